//! Processes that will never serve again, until their end.

use super::attempt::Attempt;
use super::engine::{Due, Engine};
use super::process::Process;
use super::{Draining, Supervisor, trace};
use crate::limits::{DRAIN_GRACE, RETIRE_GRACE, SLACK};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::pidfd::ExitStatus;
use crate::sys::timers::Timers;
use nix::sys::signal::Signal;

/// A process that will never serve again.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Leaving {
    pub(super) process: Process,
    /// What it gets if it does not exit.
    #[serde(with = "crate::sys::inherit::signal")]
    pub(super) signal: Signal,
    pub(super) term: Term,
    /// It can not be told to retire but by its stop signal, which it did not get yet.
    pub(super) untold: bool,
    /// It was told to end at once.
    ended: bool,
}

/// For how long a process may stay, in absolute `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Term {
    /// It was replaced in overlap mode, and serves its last clients. It has let go of the gate.
    pub(super) drains: bool,
    pub(super) since_ns: u64,
    /// When it gets the signal.
    pub(super) until_ns: u64,
}

impl Term {
    /// Of one that is about to exit.
    pub(super) fn short() -> Self {
        let since_ns = monotonic_ns();
        Self { drains: false, since_ns, until_ns: since_ns.saturating_add(nanoseconds(RETIRE_GRACE)) }
    }

    /// Of one that drains: for its grace, which the handoff that ends has told it, and until its last word is here.
    pub(super) fn of_drain(attempt: Option<&Attempt>) -> Self {
        let since_ns = monotonic_ns();
        let grace = attempt.map_or(DRAIN_GRACE, |attempt| attempt.spec.drain_grace);
        Self { drains: true, since_ns, until_ns: since_ns.saturating_add(nanoseconds(grace.saturating_add(SLACK))) }
    }
}

impl Leaving {
    /// Sends the signal, and makes SIGKILL the next one.
    pub(super) fn tell(&mut self, timers: &mut Timers<Due>) {
        let _ = self.process.signal(self.signal); // it may just have ended
        self.signal = Signal::SIGKILL;
        let until_ns = if std::mem::take(&mut self.untold) {
            // Only now it drains.
            let until_ns = monotonic_ns().saturating_add(self.term.until_ns.saturating_sub(self.term.since_ns));
            self.term.until_ns = until_ns;
            until_ns
        } else {
            self.ended = true;
            monotonic_ns().saturating_add(nanoseconds(RETIRE_GRACE))
        };
        timers.arm(Due::Leaving(self.process.key), until_ns);
    }

    /// Its stop signal is on its way: what comes next is SIGKILL.
    pub(super) fn note_told(&mut self) {
        (self.signal, self.untold) = (Signal::SIGKILL, false);
    }

    /// It drains, and was not told to end.
    pub(super) fn may_drain(&self) -> bool {
        self.term.drains && !self.ended
    }
}

impl Engine {
    /// It has retired; if it takes too long, it is ended.
    pub(super) fn leave(&mut self, mut process: Process, term: Term) {
        process.close_session(&self.epoll);
        self.timers.arm(Due::Leaving(process.key), term.until_ns);
        let signal = Signal::SIGTERM;
        self.processes.leaving.push(Leaving { process, signal, term, untold: false, ended: false });
    }

    /// The same of one that does not link the library. It is not told here.
    pub(super) fn leave_unlinked(&mut self, process: Process, term: Term) -> &mut Leaving {
        let signal = process.spec.stop_signal;
        self.leave(process, term);
        let index = self.processes.leaving.len() - 1;
        let leaving = &mut self.processes.leaving[index];
        (leaving.signal, leaving.untold) = (signal, true);
        leaving
    }

    /// A process that will never serve again should have exited by now.
    pub(super) fn hasten(&mut self, key: u64) {
        let leaving = self.processes.leaving.iter_mut().find(|leaving| leaving.process.key == key);
        leaving.into_iter().for_each(|leaving| leaving.tell(&mut self.timers));
    }

    /// Of a process that was replaced nobody waits for the status. What nobody sends it is no end that it should have.
    pub(super) fn note_crash(&self, process: &Process, status: Option<ExitStatus>, text: &str) {
        let sent = [Signal::SIGKILL, Signal::SIGTERM, process.spec.stop_signal].map(|signal| signal as i32);
        if status.and_then(|status| status.signal).is_some_and(|signal| !sent.contains(&signal)) {
            trace::trouble(
                &self.service,
                Some(process.pid),
                &format!("a process that was replaced has crashed: {text}"),
            );
        }
    }

    /// Those that may serve their last clients.
    pub(super) fn draining(&self) -> Vec<Draining> {
        let draining = self.processes.leaving.iter().filter(|leaving| leaving.may_drain());
        let list = draining.map(|leaving| Draining {
            pid: leaving.process.pid,
            generation: leaving.process.generation,
            since_ns: leaving.term.since_ns,
            deadline_ns: leaving.term.until_ns,
        });
        list.collect()
    }
}

impl Supervisor {
    /// Ends the process that has drained for the longest time: SIGTERM, and SIGKILL after
    /// [`crate::limits::RETIRE_GRACE`]. Its pid; none if none drains.
    pub fn cut_draining(&mut self) -> Option<i32> {
        let engine = &mut self.engine;
        let draining = engine.processes.leaving.iter_mut().filter(|leaving| leaving.may_drain());
        let oldest = draining.min_by_key(|leaving| leaving.term.since_ns)?;
        oldest.tell(&mut engine.timers);
        Some(oldest.process.pid)
    }

    /// Sends a signal to all that will never serve again. Whoever has had such a one, and may take a second one amiss, or is about to
    /// exit anyway, gets SIGKILL only.
    #[cfg(feature = "program")]
    pub(crate) fn signal_leaving(&self, signal: Signal) {
        let wanted =
            |leaving: &&Leaving| signal == Signal::SIGKILL || leaving.term.drains && leaving.signal != Signal::SIGKILL;
        for leaving in self.engine.processes.leaving.iter().filter(wanted) {
            let _ = leaving.process.signal(signal); // it may just have ended
        }
    }

    /// The pids of all that are still there.
    #[cfg(feature = "program")]
    pub(crate) fn leaving(&self) -> impl Iterator<Item = i32> {
        self.engine.processes.leaving.iter().map(|leaving| leaving.process.pid)
    }
}
