//! Processes that will never serve again, until their end.

use super::Draining;
use super::engine::{Due, Engine};
use super::process::Process;
use crate::limits::RETIRE_GRACE;
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::timers::Timers;
use nix::sys::signal::Signal;

/// A process that will never serve again.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) process: Process,
    /// What it gets if it does not exit.
    pub(super) signal: Signal,
    /// It does not link the library, and finishes what it has accepted.
    pub(super) drains: bool,
    pub(super) since_ns: u64,
    /// When it gets the signal.
    pub(super) until_ns: u64,
}

impl Leaving {
    /// Sends the signal, and makes SIGKILL the next one.
    pub(super) fn tell(&mut self, timers: &mut Timers<Due>) {
        let _ = self.process.signal(self.signal);
        let drains = self.drains && self.signal != Signal::SIGKILL;
        let grace = if drains { self.process.spec.drain_grace } else { RETIRE_GRACE };
        self.signal = Signal::SIGKILL;
        self.until_ns = monotonic_ns().saturating_add(nanoseconds(grace));
        timers.arm(Due::Leaving(self.process.key), self.until_ns);
    }
}

impl Engine {
    pub(super) fn draining(&self) -> Vec<Draining> {
        let draining = self.processes.leaving.iter().filter(|leaving| leaving.drains);
        let list = draining.map(|leaving| Draining {
            pid: leaving.process.pid,
            generation: leaving.process.generation,
            since_ns: leaving.since_ns,
            deadline_ns: leaving.until_ns,
        });
        list.collect()
    }

    /// It finishes what it has accepted. Without a next signal its stop signal comes when the grace is over.
    pub(super) fn leave(&mut self, mut process: Process, next: Option<Signal>) {
        process.close_session(&self.epoll);
        let now_ns = monotonic_ns();
        // The grace is that of the handoff which replaces it, or gives it up.
        let grace = self.attempt.as_ref().map_or(process.spec.drain_grace, |attempt| attempt.spec.drain_grace);
        let until_ns = now_ns.saturating_add(nanoseconds(grace));
        self.timers.arm(Due::Leaving(process.key), until_ns);
        let signal = next.unwrap_or(process.spec.stop_signal);
        self.processes.leaving.push(Leaving { process, signal, drains: true, since_ns: now_ns, until_ns });
    }

    /// A process that will never serve again should have exited by now.
    pub(super) fn hasten(&mut self, key: u64) {
        let leaving = self.processes.leaving.iter_mut().find(|leaving| leaving.process.key == key);
        leaving.into_iter().for_each(|leaving| leaving.tell(&mut self.timers));
    }
}
