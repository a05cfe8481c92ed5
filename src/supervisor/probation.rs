//! The time in which the process before the one that serves is its reserve.

use super::Supervisor;
use super::engine::{Due, Engine};
use super::health::{Probe, Step};
use super::leaving::Term;
use super::process::Process;
use super::unlinked::UNLINKED;
use crate::error::{Error, Result};
use crate::limits::{
    HEALTH_FAILURES_MAX, HEALTH_INTERVAL, HEALTH_LOOK, HEALTH_VERDICT, PROBE_TIMEOUT, RESERVE_SILENCE,
};
use crate::protocol::supervisor::{Input, Peer, Phase, Verdict};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::proc::is_stopped;
use std::path::Path;

/// The probation that is under way.
#[derive(Debug, Default)]
pub(super) struct Probation {
    /// When it ends.
    pub(super) end_ns: u64,
    /// Of the process that serves, if somebody wants that.
    probe: Option<Probe>,
    /// Probes that it has failed, one after the other.
    failures: u32,
    /// Its time is over, but for the answer to the last probe.
    overdue: bool,
    /// When the reserve was heard of last.
    heard_ns: u64,
}

impl Probation {
    /// This process has said something.
    pub(super) fn note_heard(&mut self, peer: Peer) {
        if peer == Peer::Parked {
            self.heard_ns = monotonic_ns();
        }
    }
}

impl Engine {
    /// N is the incumbent; O is its reserve.
    pub(super) fn park(&mut self) {
        self.probation.end_ns = self.probation_end_ns();
        self.probation.heard_ns = monotonic_ns();
        self.processes.parked = self.processes.incumbent.take();
        // If it has to be started again, that is because what its path leads to is no good.
        self.serving_spec = self.processes.parked.as_ref().map(|parked| parked.pinned());
        self.processes.incumbent = self.processes.successor.take();
        self.tell_ends_again();
        self.watch_health();
    }

    /// Of one that begins now. O parks for longer, if N is asked whether it is well.
    pub(super) fn probation_end_ns(&self) -> u64 {
        let asked = self.attempt.as_ref().is_some_and(|attempt| attempt.spec.asked().is_some());
        let last_words = if asked { nanoseconds(HEALTH_VERDICT) } else { 0 };
        monotonic_ns().saturating_add(self.machine.park_ns().saturating_sub(last_words))
    }

    /// The first probe comes after a while: clients come first.
    fn watch_health(&mut self) {
        // Its reserve accepts nothing.
        let of = |process: &Process| Some(Probe::new(process.spec.asked()?.clone(), None, PROBE_TIMEOUT));
        self.probation.probe = self.processes.incumbent.as_ref().and_then(of);
        (self.probation.failures, self.probation.overdue) = (0, false);
        if self.probation.probe.is_some() {
            self.timers.arm(Due::Health, monotonic_ns().saturating_add(nanoseconds(HEALTH_INTERVAL)));
        }
    }

    /// The probation is over; but nobody is confirmed who does not answer now.
    pub(super) fn asks_once_more(&mut self) -> bool {
        let asks = self.machine.phase() == Phase::Probation && self.probation.probe.is_some();
        if asks {
            self.probation.overdue = true;
            self.timers.arm(Due::Health, monotonic_ns());
        }
        asks
    }

    /// After the probation nothing is asked any more.
    pub(super) fn check_health(&mut self) {
        let on_trial = self.machine.phase() == Phase::Probation;
        let Some(probe) = self.probation.probe.as_mut().filter(|_| on_trial && UNLINKED) else { return };
        let step = probe.advance();
        match step {
            Step::Pending => {}
            Step::Ready if self.probation.overdue => return self.feed(Input::EndProbation),
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

    /// Why the reserve could not take over now, as far as that can be told.
    fn doubt_of_reserve(&self) -> Option<String> {
        let parked = self.processes.parked.as_ref()?;
        let pid = parked.pid;
        let silence_ns = monotonic_ns().saturating_sub(self.probation.heard_ns);
        let (what, remedy) = match parked.session {
            _ if is_stopped(pid) => ("is stopped".to_owned(), format!("let it go on (kill -CONT {pid}), or ")),
            Some(_) if silence_ns > nanoseconds(RESERVE_SILENCE) => {
                (format!("was not heard of for {} s", silence_ns / 1_000_000_000), String::new())
            }
            _ => return None,
        };
        let program =
            parked.spec.binary.as_deref().or(parked.spec.argv.first().map(Path::new)).unwrap_or(Path::new(""));
        let program = program.display();
        Some(format!(
            "the reserve, process {pid}, {what}, so it could not take over, and the process that serves was left alone: \
             {remedy}replace that by the program before: handoff upgrade --binary {program}"
        ))
    }

    /// What there is to go back to after this outcome.
    pub(super) fn note_way_back(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Committed => self.previous = self.replaced.take(),
            // A cold start is one of the program that served, so the one before it stays.
            Verdict::Reverted => self.previous = None,
            _ => {}
        }
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
    pub(crate) fn previous(&self) -> Option<super::SpawnSpec> {
        self.engine.previous.as_deref().cloned()
    }

    /// The file that is started again if the process that serves dies, if that is not what its path leads to: after a way back.
    #[cfg(feature = "program")]
    pub(crate) fn pinned(&self) -> Option<super::Executable> {
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
    /// [`Error::State`]: no probation is under way, or the reserve is stopped (proc_pid_stat(5), state T), or was not heard of for
    /// [`crate::limits::RESERVE_SILENCE`]; nothing was disturbed.
    pub fn condemn(&mut self, reason: &str) -> Result<()> {
        if !self.in_probation() {
            return Err(Error::State("no probation is under way".into()));
        }
        self.engine.drain_all();
        if let Some(why) = self.engine.doubt_of_reserve() {
            return Err(Error::State(why));
        }
        self.engine.feed(Input::Condemn(reason.to_owned()));
        self.engine.wake();
        Ok(())
    }
}
