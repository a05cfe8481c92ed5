//! The calls that wait: for an outcome, or for a daemon to be adopted.

use super::awaited::Awaited;
use super::outcome::HandoffOutcome;
use super::resume::{Found, Resumption};
use super::spec::SpawnSpec;
use super::{Event, Supervisor};
use crate::error::{Error, Result};
use crate::limits::{EVENTS_MAX, RESUME_LOOK};
use crate::protocol::supervisor::{Phase, Verdict};
use crate::sys::proc;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a caller does whenever a call is about to wait.
type Attend<'a> = dyn FnMut() -> Result<()> + 'a;

/// How far a supervisor is that goes on where another one stopped.
pub(crate) enum Resumed {
    /// Whoever serves is adopted, or nobody is left; the outcome of the handoff that was open.
    Done(Option<Box<HandoffOutcome>>),
    /// It is to be looked again when there is news, and after this time at the latest.
    Waits(Duration),
}

impl Supervisor {
    /// Replaces the process that serves, and waits for the outcome; starts the first one cold. Waits first until the
    /// incumbent of the handoff before has retired, and, for a cold start, has exited; a probation that is under way is ended. Events
    /// that are not the outcome stay for [`Self::turn`].
    ///
    /// An outcome that is not wanted is no error: look at [`HandoffOutcome::verdict`].
    ///
    /// # Errors
    /// [`Error::Busy`]: a handoff is under way, nothing was disturbed. [`Error::Aborted`]: cancelled before it began.
    /// [`Error::System`]: epoll failed.
    pub fn perform_handoff(&mut self, spec: &SpawnSpec) -> Result<HandoffOutcome> {
        self.perform(spec, Duration::ZERO, &mut || Ok(()))
    }

    /// The same, for a caller that does nothing in between: it waits for the end of what was undecided, too. `attend` runs
    /// before each wait, and may forbid it.
    pub(crate) fn perform_attended(&mut self, spec: &SpawnSpec, attend: &mut Attend<'_>) -> Result<HandoffOutcome> {
        self.perform(spec, spec.deadline, attend)
    }

    fn perform(&mut self, spec: &SpawnSpec, patience: Duration, attend: &mut Attend<'_>) -> Result<HandoffOutcome> {
        self.forget_cancel();
        if self.engine.resuming {
            return Err(Error::State("a daemon lives that could not be adopted: this supervisor is of no use".into()));
        }
        self.engine.turn(Some(Duration::ZERO))?;
        self.wait_until_idle(patience, attend)?;
        let mut earlier = std::mem::take(&mut self.engine.events);
        let outcome = self.engine.begin(Arc::new(spec.clone())).and_then(|()| self.wait_for_outcome(attend));
        let steps = |event: &Event| matches!(event, Event::Phase(_) | Event::Progress { .. });
        earlier.retain(|event| !steps(event));
        earlier.extend(std::mem::take(&mut self.engine.events).into_iter().filter(|event| !steps(event)));
        let excess = earlier.len().saturating_sub(EVENTS_MAX);
        earlier.drain(..excess);
        self.engine.events = earlier;
        self.engine.wake();
        outcome
    }

    /// The end of what the call before has left; [`Engine::begin`](super::engine::Engine) tells if it did not come.
    fn wait_until_idle(&mut self, patience: Duration, attend: &mut Attend<'_>) -> Result<()> {
        let begun = Instant::now();
        loop {
            let processes = &self.engine.processes;
            let left = match self.engine.machine.phase() {
                // Whoever has retired holds the gate until it exits, and keeps a cold start out; its exit is seen to. One that drains
                // does not.
                Phase::Idle
                    if processes.incumbent.is_none()
                        && processes.leaving.iter().any(|leaving| !leaving.term.drains) =>
                {
                    None
                }
                Phase::Idle => return Ok(()),
                Phase::Probation => {
                    self.end_probation();
                    continue;
                }
                Phase::Retiring | Phase::Confirming => None,
                _ => match patience.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
                    None => return Ok(()),
                    left => left,
                },
            };
            if self.engine.cancelled {
                return Err(Error::Aborted("cancelled before it began, nothing was disturbed".into()));
            }
            attend()?;
            self.engine.turn(left)?;
        }
    }

    fn wait_for_outcome(&mut self, attend: &mut Attend<'_>) -> Result<HandoffOutcome> {
        loop {
            if let Some(outcome) = self.engine.take_outcome() {
                return Ok(outcome);
            }
            if let Some(outcome) = self.cancelled_start() {
                return Ok(outcome);
            }
            attend()?;
            self.engine.turn(None)?;
        }
    }

    /// Of a cold start only the wait can be given up: nobody else could serve.
    fn cancelled_start(&self) -> Option<HandoffOutcome> {
        let engine = &self.engine;
        let attempt = engine.attempt.as_ref().filter(|_| engine.cancelled);
        let attempt = attempt.filter(|_| engine.machine.phase() == Phase::ColdStarting)?;
        let reason = "cancelled by the caller: the daemon was started, and has not said that it serves".to_owned();
        Some(attempt.outcome(Verdict::Undecided, reason, engine.processes.incumbent.as_ref()))
    }

    fn forget_cancel(&mut self) {
        self.engine.canceller.take();
        self.engine.cancelled = false;
    }

    /// Goes on where another supervisor of this service stopped, which is gone: ends the handoff that was open by its decision
    /// word, and adopts the daemon that serves, through its control path. Its listeners become those of this supervisor
    /// ([`Self::listeners`]; those that [`Self::with_listener`] gave before are refused). The first call of all; `spec` is
    /// what the service is started from. Waits until the daemon has a session here; of a handoff that is still being
    /// undone then, the outcome comes as [`Event::Outcome`].
    ///
    /// A reserve of a probation ([`SpawnSpec::probation`]) whose successor is dead, and that is stopped (proc_pid_stat(5), state T) and has
    /// not taken the lock, is killed after [`crate::limits::LIVENESS`]: then none is left.
    ///
    /// None: no handoff was open; [`Self::status`] tells whether a daemon was adopted, or none is left.
    ///
    /// # Errors
    /// [`Error::Locked`]: a daemon lives, and can not be adopted; the text names it. Nothing was disturbed.
    /// [`Error::State`]: it is not the first call. [`Error::System`].
    pub fn resume_from_journal(&mut self, spec: &SpawnSpec) -> Result<Option<HandoffOutcome>> {
        self.resume_unless(spec, &mut |_| None)
    }

    /// The same, and waits for the outcome of a handoff that is still being undone.
    pub(crate) fn resume_attended(
        &mut self,
        spec: &SpawnSpec,
        attend: &mut Attend<'_>,
    ) -> Result<Option<HandoffOutcome>> {
        let outcome = self.resume_unless(spec, &mut |_| attend().err().map(|error| error.to_string()))?;
        match self.engine.machine.handoff() {
            Some(_) if outcome.is_none() => self.wait_for_outcome(attend).map(Some),
            _ => Ok(outcome),
        }
    }

    /// The same as [`Self::resume_from_journal`]; when it has to wait for long it says for whom, and gives up if it is told why it should not. Sooner than that
    /// the daemon is rather adopted: whoever wants it stopped needs a supervisor.
    pub(crate) fn resume_unless(
        &mut self,
        spec: &SpawnSpec,
        unwanted: &mut dyn FnMut(&Awaited) -> Option<String>,
    ) -> Result<Option<HandoffOutcome>> {
        let begun = Instant::now();
        self.begin_resume(spec, 0)?;
        loop {
            match self.step_resume(begun.elapsed(), unwanted)? {
                Resumed::Done(outcome) => return Ok(outcome.map(|outcome| *outcome)),
                Resumed::Waits(time) => self.engine.turn(Some(time))?,
            }
        }
    }

    /// Begins what [`Self::resume_unless`] does, for a caller that does not wait. If nobody lives any more, the number of the next process comes after
    /// `generation`, too.
    pub(crate) fn begin_resume(&mut self, spec: &SpawnSpec, generation: u64) -> Result<()> {
        if self.engine.listeners.len() > 0 {
            return Err(Error::State(
                "resuming is the first call, and comes before the listeners: the daemon has them".into(),
            ));
        }
        self.forget_cancel();
        self.engine.begin_resume(spec, generation)
    }

    /// What has come meanwhile; its events stay for [`Self::turn`].
    #[cfg(feature = "program")]
    pub(crate) fn turn_resume(&mut self) -> Result<()> {
        self.engine.turn(Some(Duration::ZERO))
    }

    /// How far it is after this time.
    pub(crate) fn step_resume(
        &mut self,
        waited: Duration,
        unwanted: &mut dyn FnMut(&Awaited) -> Option<String>,
    ) -> Result<Resumed> {
        match self.engine.resumption() {
            Resumption::Adopted | Resumption::Nobody => return self.end_resume().map(Resumed::Done),
            Resumption::Estranged => return Err(self.not_adopted("it refuses, or has no control path")),
            Resumption::Waiting => {}
        }
        self.engine.end_stopped_reserve(waited);
        if waited >= RESUME_LOOK
            && let Some(why) =
                unwanted(&self.engine.awaited()).or_else(|| self.engine.cancelled.then(|| "cancelled".to_owned()))
        {
            // Or whoever is to be stopped would live on.
            return match !self.engine.cancelled && self.engine.adopt_silent()? {
                true => Ok(Resumed::Waits(Duration::ZERO)),
                false => Err(self.given_up(&why)),
            };
        }
        match (self.engine.patience(waited), self.engine.adoption.found) {
            (Some(left), _) => Ok(Resumed::Waits(left.min(RESUME_LOOK))),
            (None, Found::Gate) => {
                #[cfg(feature = "program")]
                self.leave_incumbent();
                self.engine.forget_incumbent();
                Ok(Resumed::Waits(Duration::ZERO))
            }
            (None, _) if self.engine.adopt_silent()? => Ok(Resumed::Waits(Duration::ZERO)),
            (None, _) => Err(self.not_adopted("")),
        }
    }

    fn end_resume(&mut self) -> Result<Option<Box<HandoffOutcome>>> {
        self.engine.end_resume()?;
        Ok(self.engine.take_outcome().map(Box::new))
    }

    fn given_up(&self, why: &str) -> Error {
        let pids = self.engine.processes.iter().map(|process| process.pid.to_string()).collect::<Vec<_>>().join(", ");
        Error::Locked(format!("given up: {why}; process {pids} lives on without a supervisor"))
    }

    fn not_adopted(&self, why: &str) -> Error {
        let answers = self.engine.processes.incumbent.as_ref().is_some_and(|process| process.session.is_some());
        let why = match why {
            "" if answers => "it does not answer",
            "" => &self.engine.adoption.trouble,
            why => why,
        };
        let processes = [&self.engine.processes.incumbent, &self.engine.processes.successor];
        let Some(process) = processes.into_iter().flatten().next() else { return Error::Locked(why.to_owned()) };
        let (pid, command) = (process.pid, proc::command(process.pid));
        let path = process.spec.control_path.as_deref().unwrap_or(Path::new("")).display();
        Error::Locked(match self.engine.adoption.found {
            Found::ControlPath => format!(
                "process {pid} ({command}) listens on control path {path}, but is no daemon that can be adopted ({why}): stop it, or choose another path"
            ),
            _ => format!(
                "process {pid} ({command}) of this service lives without a supervisor, and can not be adopted ({why}): stop it first (kill {pid})"
            ),
        })
    }
}
