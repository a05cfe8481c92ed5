//! The time in which the process before the one that serves is its reserve.

use super::engine::{Due, Engine};
use super::health::{Probe, Step};
use super::leaving::Term;
use super::process::Process;
use super::{Executable, SpawnSpec, Supervisor};
use crate::error::{Error, Result};
use crate::limits::{HEALTH_FAILURES_MAX, HEALTH_INTERVAL, HEALTH_LOOK};
use crate::protocol::supervisor::{Input, Phase};
use crate::sys::clock::{monotonic_ns, nanoseconds};

/// The probation that is under way.
#[derive(Debug, Default)]
pub(super) struct Probation {
    /// When it ends.
    pub(super) end_ns: u64,
    /// Of the process that serves, if somebody wants that.
    probe: Option<Probe>,
    /// Probes that it has failed, one after the other.
    failures: u32,
}

impl Engine {
    /// N is the incumbent; O is its reserve.
    pub(super) fn park(&mut self) {
        self.probation.end_ns = monotonic_ns().saturating_add(self.machine.park_ns());
        self.processes.parked = self.processes.incumbent.take();
        // If it has to be started again, that is because what its path leads to is no good.
        self.serving_spec = self.processes.parked.as_ref().map(|parked| parked.pinned());
        self.processes.incumbent = self.processes.successor.take();
        self.tell_ends_again();
        self.watch_health();
    }

    /// The first probe comes after a while: clients come first.
    fn watch_health(&mut self) {
        let of = |process: &Process| Some(Probe::new(process.spec.health.clone()?, process.leader));
        self.probation.probe = self.processes.incumbent.as_ref().and_then(of);
        self.probation.failures = 0;
        if self.probation.probe.is_some() {
            self.timers.arm(Due::Health, monotonic_ns().saturating_add(nanoseconds(HEALTH_INTERVAL)));
        }
    }

    /// After the probation nothing is asked any more.
    pub(super) fn check_health(&mut self) {
        let on_trial = self.machine.phase() == Phase::Probation;
        let Some(probe) = self.probation.probe.as_mut().filter(|_| on_trial) else { return };
        let step = probe.advance();
        match step {
            Step::Pending => {}
            Step::Ready => self.probation.failures = 0,
            Step::Failed => self.probation.failures += 1,
        }
        if self.probation.failures < HEALTH_FAILURES_MAX {
            let wait = if step == Step::Pending { HEALTH_LOOK } else { HEALTH_INTERVAL };
            return self.timers.arm(Due::Health, monotonic_ns().saturating_add(nanoseconds(wait)));
        }
        let why = format!("unhealthy: {} failed {HEALTH_FAILURES_MAX} times in a row", probe.health());
        self.feed(Input::Condemn(why));
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
