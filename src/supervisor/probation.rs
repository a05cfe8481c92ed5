//! The time in which the process before the one that serves is its reserve.

use super::engine::Engine;
use super::leaving::Term;
use super::{Executable, SpawnSpec, Supervisor};
use crate::error::{Error, Result};
use crate::protocol::supervisor::{Input, Phase};
use crate::sys::clock::monotonic_ns;

impl Engine {
    /// N is the incumbent; O is its reserve.
    pub(super) fn park(&mut self) {
        self.probation_end_ns = monotonic_ns().saturating_add(self.machine.park_ns());
        self.processes.parked = self.processes.incumbent.take();
        // If it has to be started again, that is because what its path leads to is no good.
        self.serving_spec = self.processes.parked.as_ref().map(|parked| parked.pinned());
        self.processes.incumbent = self.processes.successor.take();
        self.tell_ends_again();
    }

    /// N is dead; O is the incumbent again, if it lives.
    pub(super) fn unpark(&mut self) {
        self.processes.incumbent = self.processes.parked.take();
        self.tell_ends_again();
    }

    /// The machine knows of ends under the names of before.
    fn tell_ends_again(&mut self) {
        for process in [&mut self.processes.incumbent, &mut self.processes.parked].into_iter().flatten() {
            process.end_is_news = process.session.is_none();
        }
    }

    /// O will never serve again: what N was started from is what is started again.
    pub(super) fn dismiss(&mut self) {
        if let Some(process) = self.processes.parked.take() {
            self.leave(process, Term::short());
        }
        if let Some(incumbent) = &self.processes.incumbent {
            self.serving_spec = Some(incumbent.spec.clone());
        }
    }
}

impl Supervisor {
    /// Whether the process before the one that serves is its reserve.
    pub fn in_probation(&self) -> bool {
        self.engine.machine.phase() == Phase::Probation
    }

    /// What the process before the one that serves was started from, to go back to it; None: it is not known, or it was gone back to
    /// already.
    #[cfg(feature = "program")]
    pub(crate) fn previous(&self) -> Option<SpawnSpec> {
        self.engine.previous.as_deref().cloned()
    }

    /// The file that is started again if the process that serves dies, if that is not what its path leads to: after a way back.
    #[cfg(feature = "program")]
    pub(crate) fn pinned(&self) -> Option<Executable> {
        self.engine.serving_spec.as_ref().and_then(|spec| spec.executable.clone())
    }

    /// Ends a probation before its time, if one is under way: the process that serves has proved itself. Nothing can be started until
    /// its reserve is gone.
    pub fn end_probation(&mut self) {
        self.engine.feed(Input::EndProbation);
        self.engine.wake();
    }

    /// The process that serves is no good: it is killed, and its reserve takes over, with everything that was written. The outcome
    /// [`super::Verdict::Reverted`] follows, with the id of the handoff.
    ///
    /// # Errors
    /// [`Error::State`]: no probation is under way.
    pub fn condemn(&mut self, reason: &str) -> Result<()> {
        if !self.in_probation() {
            return Err(Error::State("no probation is under way".into()));
        }
        self.engine.feed(Input::Condemn(reason.to_owned()));
        self.engine.wake();
        Ok(())
    }
}
