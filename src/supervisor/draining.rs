//! Processes that were replaced in overlap mode, and serve their last clients.

use super::attempt::Attempt;
use super::engine::{Engine, Leaving};
use super::{Draining, Supervisor};
use crate::limits::{DRAIN_GRACE, SLACK};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use nix::sys::signal::Signal;

/// For how long a process that was replaced may drain, in absolute `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drain {
    pub(super) since_ns: u64,
    pub(super) until_ns: u64,
}

impl Drain {
    /// Now; the grace is what the handoff that ends has told the process.
    pub(super) fn begun(attempt: Option<&Attempt>) -> Self {
        let since_ns = monotonic_ns();
        let grace = attempt.map_or(DRAIN_GRACE, |attempt| attempt.spec.drain_grace);
        Self { since_ns, until_ns: since_ns.saturating_add(nanoseconds(grace)) }
    }

    /// When it is ended, if it has not ended by itself.
    pub(super) fn evicted_ns(self) -> u64 {
        self.until_ns.saturating_add(nanoseconds(SLACK))
    }
}

impl Leaving {
    /// Until it exits.
    pub(super) fn holds_gate(&self) -> bool {
        self.drain.is_none()
    }

    /// It drains, and was not told to end.
    fn draining(&self) -> Option<Draining> {
        let Drain { since_ns, until_ns } = self.drain.filter(|_| self.signal == Signal::SIGTERM)?;
        let (pid, generation) = (self.process.pid, self.process.generation);
        Some(Draining { pid, generation, since_ns, until_ns })
    }
}

impl Engine {
    pub(super) fn draining(&self) -> impl Iterator<Item = Draining> {
        self.processes.leaving.iter().filter_map(Leaving::draining)
    }
}

impl Supervisor {
    /// Ends the process that has drained for the longest time: SIGTERM, and SIGKILL after
    /// [`crate::limits::RETIRE_GRACE`]. Its pid; none if none drains.
    pub fn cut_draining(&mut self) -> Option<i32> {
        let leaving = &self.engine.processes.leaving;
        let oldest = leaving.iter().filter(|leaving| leaving.draining().is_some());
        let oldest = oldest.min_by_key(|leaving| leaving.drain.map(|drain| drain.since_ns))?;
        let (key, pid) = (oldest.process.key, oldest.process.pid);
        self.engine.hasten(key);
        Some(pid)
    }

    /// Sends a signal to all of them.
    pub(crate) fn signal_draining(&self, signal: Signal) {
        for leaving in self.engine.processes.leaving.iter().filter(|leaving| leaving.drain.is_some()) {
            let _ = leaving.process.signal(signal); // it may just have ended
        }
    }

    /// Whether one of them lives.
    pub(crate) fn is_draining(&self) -> bool {
        self.engine.processes.leaving.iter().any(|leaving| leaving.drain.is_some())
    }
}
