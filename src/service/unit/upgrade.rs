//! Replacing the daemon of a service.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::event::Event;
use super::settings::{Upgrade, WhenDraining};
use super::{CONFIRMING, IDLE, Service, State, is_settling};
use crate::limits::HANDOFF_DEADLINE;
use crate::supervisor::{HandoffOutcome, OnIncumbentDeath, SpawnSpec, Verdict};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::inherit::Word;

pub(super) const NEVER_SAID_HELLO: &str = "the daemon never said Hello: it does not link libhandoff, so it can not be drained and sealed; \
     run it with --mode overlap and --ready";
pub(super) const STOPPED_AND_STARTED: &str = "it is not replaced by a handoff (mode = \"none\", or a oneshot): handoff restart stops it, with those that require \
     it, and starts it again";
/// No successor can take over what is not at its path.
fn lock_lost(path: &Path) -> String {
    format!(
        "{} was removed while the daemon runs: it can not be replaced until a restart makes it anew",
        path.display()
    )
}

/// Of an interpreter there is no way back to what it ran.
pub(super) fn not_kept(script: &Path) -> String {
    format!(
        "only programs and their arguments are kept for a way back, and not {}, which runs as it is at that time: \
         give each version a path of its own",
        script.display()
    )
}

const UPGRADE: &str = "upgrade";
const ROLLBACK: &str = "rollback";
pub(super) const STILL_STARTING: &str = "busy: the service is still starting; try again";

/// The upgrade that is under way, or was the last.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Pending {
    /// Whether it is one or a rollback.
    #[serde(with = "crate::sys::inherit::word")]
    what: Word,
    /// Of its handoff; none: of the next outcome, because it is a cold start, or refused already.
    id: Option<u64>,
    /// It had an outcome; another one corrects it.
    told: bool,
    /// What it can not change.
    #[serde(default)]
    note: Option<String>,
}

/// An upgrade or a rollback that waits to begin.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Queued {
    /// Which of the two.
    #[serde(with = "crate::sys::inherit::word")]
    pub(super) what: Word,
    spec: SpawnSpec,
    when_draining: WhenDraining,
    /// When it was asked for, in `CLOCK_MONOTONIC` nanoseconds. No two have the same.
    since_ns: u64,
    /// Until when it waits for the end of a drain, in `CLOCK_MONOTONIC` nanoseconds.
    pub(super) until_ns: u64,
}

fn listed(pids: &[i32], separator: &str) -> String {
    let named: Vec<String> = pids.iter().map(i32::to_string).collect();
    named.join(separator)
}

impl Service {
    /// Begins to replace the daemon; an [`Event::Outcome`] follows. If the daemon waits for its next start, it is started
    /// now, with the new program. A probation that is under way is ended. If the process before the present one still retires, that is
    /// waited for; if too many drain, what [`Upgrade::when_draining`] says.
    ///
    /// # Errors
    /// The outcome of an upgrade that was refused at once; nothing was disturbed.
    pub fn upgrade(&mut self, upgrade: Upgrade) -> std::result::Result<(), Rc<HandoffOutcome>> {
        self.listen().map_err(|error| self.refused(error.to_string()))?;
        self.check_queue()?;
        let spec = self.spec(upgrade.binary.as_ref(), upgrade.times);
        if let Some(why) = self.check_bad(&spec, upgrade.force).map_err(|error| self.refused(error.to_string()))? {
            return Err(self.refused(why));
        }
        if self.supervisor.in_probation() {
            // It would be refused, and the probation be over all the same.
            spec.check().map_err(|error| self.refused(error.to_string()))?;
        }
        let trusted = if upgrade.promote { OnIncumbentDeath::Promote } else { OnIncumbentDeath::StartCold };
        self.begin_with(UPGRADE, spec.on_incumbent_death(trusted), upgrade.when_draining, upgrade.times.deadline)
    }

    /// The same for the program before.
    pub(super) fn begin_back(
        &mut self,
        previous: SpawnSpec,
        when_draining: WhenDraining,
    ) -> std::result::Result<(), Rc<HandoffOutcome>> {
        self.check_queue()?;
        self.begin_with(ROLLBACK, previous.probation(Duration::ZERO), when_draining, None)
    }

    /// Only one may wait.
    pub(super) fn check_queue(&self) -> std::result::Result<(), Rc<HandoffOutcome>> {
        let Some(queued) = &self.queued else { return Ok(()) };
        Err(self.refused(match self.crowd().as_slice() {
            [] => format!("busy: {} waits already, until the process before has exited; try again", queued.what),
            pids => format!(
                "busy: {} waits already, for the end of process {}; it is given up when its command ends (Ctrl-C there)",
                queued.what,
                listed(pids, " or ")
            ),
        }))
    }

    fn begin_with(
        &mut self,
        what: &'static str,
        spec: SpawnSpec,
        when_draining: WhenDraining,
        deadline: Option<Duration>,
    ) -> std::result::Result<(), Rc<HandoffOutcome>> {
        self.tell_settling();
        self.supervisor.end_probation();
        let phase = self.supervisor.status().phase;
        // If another one is under way, this one is refused, and nobody ended for it.
        let must_wait = matches!(self.state, State::Running)
            && (is_settling(phase) || (phase == IDLE && self.is_crowded(when_draining)?));
        if must_wait {
            let deadline = deadline.or(self.settings().times.deadline).unwrap_or(HANDOFF_DEADLINE);
            let since_ns = monotonic_ns();
            let until_ns = since_ns.saturating_add(nanoseconds(deadline));
            self.queued = Some(Queued { what, spec, when_draining, since_ns, until_ns });
            return Ok(());
        }
        self.begin_upgrade(what, &spec)
    }

    /// Whether it must wait, because as many processes drain as may.
    fn is_crowded(&mut self, when_draining: WhenDraining) -> std::result::Result<bool, Rc<HandoffOutcome>> {
        while !self.crowd().is_empty() {
            match when_draining {
                WhenDraining::Wait => return Ok(true),
                WhenDraining::Refuse => return Err(self.refused(self.too_many())),
                WhenDraining::Cut if self.supervisor.cut_draining().is_none() => break, // none may drain, and none does
                WhenDraining::Cut => {}
            }
        }
        Ok(false)
    }

    /// Those that drain, if they are as many as may: one of them must end before the next upgrade.
    pub(super) fn crowd(&self) -> Vec<i32> {
        let draining = self.supervisor.status().draining;
        let is_full = draining.len() >= self.settings().max_draining;
        draining.iter().filter(|_| is_full).map(|draining| draining.pid).collect()
    }

    /// Nobody has ended in time.
    fn in_vain(&self, queued: &Queued) -> String {
        let longer = if queued.what == UPGRADE { "give it longer (--deadline), or " } else { "" };
        format!(
            "it has waited for {} s for the end of process {}: {longer}end the oldest by --when-draining cut",
            (queued.until_ns - queued.since_ns) as f64 / 1e9,
            listed(&self.crowd(), " or ")
        )
    }

    pub(super) fn too_many(&self) -> String {
        format!(
            "as many processes serve their last clients as may ({}: process {}); --when-draining wait, or cut, the oldest",
            self.settings().max_draining,
            listed(&self.crowd(), ", ")
        )
    }

    /// The upgrade or the rollback that waits to begin, as [`Self::give_up`] wants it.
    pub fn waiting(&self) -> Option<u64> {
        self.queued.as_ref().map(|queued| queued.since_ns)
    }

    /// Whoever asked for this one does not want it any more. One that has begun goes on.
    pub fn give_up(&mut self, waiting: u64) {
        if self.waiting() == Some(waiting) {
            self.drop_queued("given up before it began: the command that asked for it has ended");
        }
    }

    /// Nothing is started any more.
    pub(super) fn check_end(&self) -> std::result::Result<(), Rc<HandoffOutcome>> {
        match self.state {
            State::Stopping(_) => {
                Err(self.refused("busy: the service is stopping; start it when it has stopped".to_owned()))
            }
            State::Ended(_) => Err(self.refused("the service has ended; start it".to_owned())),
            _ => Ok(()),
        }
    }

    fn begin_upgrade(&mut self, what: &'static str, spec: &SpawnSpec) -> std::result::Result<(), Rc<HandoffOutcome>> {
        if !self.settings.handoff {
            return Err(self.refused(STOPPED_AND_STARTED.to_owned()));
        }
        self.check_end()?;
        if let Some(path) = self.lost_lock() {
            return Err(self.refused(lock_lost(&path)));
        }
        self.again = true;
        let note = self.supervisor.script_of_same(spec).filter(|_| what == ROLLBACK).map(|script| not_kept(&script));
        let silent = !self.supervisor.status().linked && self.seems_up();
        let may_start = self.is_clear() && self.settings.process.pre_start.is_none();
        let begun = match self.state {
            State::Starting if silent => return Err(self.refused(NEVER_SAID_HELLO.to_owned())),
            State::Running => self.supervisor.start(spec),
            State::Waiting(_) if !may_start => {
                return Err(self.refused(STILL_STARTING.to_owned()));
            }
            State::Waiting(_) => self.start_cold(spec),
            _ => return Err(self.refused(STILL_STARTING.to_owned())),
        };
        begun.map_err(|error| self.refused(error.to_string()))?;
        let status = self.supervisor.status();
        if status.handoff_id.is_none() && status.phase == "starting" {
            // The daemon died in this instant.
            self.enter_starting();
        }
        self.pending = Some(Pending { what, id: status.handoff_id, told: false, note });
        Ok(())
    }

    /// What waited for the end of a retirement; should that become a takeover by the incumbent, of this, too.
    pub(super) fn begin_queued(&mut self) {
        if matches!(self.state, State::Running) && self.supervisor.status().phase != IDLE {
            return;
        }
        let Some(queued) = self.queued.take() else { return };
        let begun = match self.is_crowded(queued.when_draining) {
            Ok(true) if monotonic_ns() < queued.until_ns => return self.queued = Some(queued),
            Ok(true) => Err(self.refused(self.in_vain(&queued))),
            Ok(false) => self.begin_upgrade(queued.what, &queued.spec),
            Err(refused) => Err(refused),
        };
        if let Err(outcome) = begun {
            self.events.push(Event::Outcome(queued.what, outcome));
        }
    }

    pub(super) fn drop_queued(&mut self, why: &str) {
        if let Some(queued) = self.queued.take() {
            let outcome = self.refused(why.to_owned());
            self.events.push(Event::Outcome(queued.what, outcome));
        }
    }

    pub(super) fn refused(&self, reason: String) -> Rc<HandoffOutcome> {
        let status = self.look();
        Rc::new(HandoffOutcome {
            id: 0,
            verdict: Verdict::Refused,
            reason,
            generation: status.generation,
            pid: status.pid.unwrap_or(0),
            pidfd: None,
            warm_ns: 0,
            drain_ns: 0,
            seal_ns: 0,
            ready_ns: 0,
            pause_ns: 0,
            total_ns: 0,
            transferred_connections: 0,
            transferred_state_bytes: 0,
            errno: None,
        })
    }

    /// The outcome of a handoff that another supervisor began will be told as one that was asked for here.
    pub(super) fn expect(&mut self, id: Option<u64>) {
        self.pending = id.map(|id| Pending { what: UPGRADE, id: Some(id), told: false, note: None });
    }

    pub(super) fn on_outcome(&mut self, mut outcome: HandoffOutcome) {
        outcome.pidfd = None;
        let note = self.pending.as_mut().filter(|pending| pending.id == Some(outcome.id));
        if let Some(note) =
            note.filter(|_| outcome.verdict == Verdict::Committed).and_then(|pending| pending.note.take())
        {
            outcome.reason = note;
        }
        let outcome = Rc::new(outcome);
        let own = |pending: &&Pending| pending.id.is_none_or(|id| id == outcome.id);
        let asked_for = self.pending.as_ref().filter(own).map(|pending| pending.what);
        self.settle(&outcome, asked_for);
        if let Some(what) = asked_for {
            let told = self.pending.as_mut().is_some_and(|pending| std::mem::replace(&mut pending.told, true));
            // A refusal is no handoff, unless it is what one that was undecided came to.
            if told || outcome.verdict != Verdict::Refused {
                self.last = Some(outcome.clone());
            }
            let event = if told { Event::Corrected } else { Event::Outcome };
            self.events.push(event(what, outcome.clone()));
            // After these, a second outcome of the same handoff may come.
            if !matches!(outcome.verdict, Verdict::Undecided | Verdict::Committed) {
                self.pending = None;
            }
        }
        if outcome.verdict == Verdict::Failed {
            self.failed = Some((outcome.errno, outcome.reason.clone()));
        }
    }

    /// What an outcome means for the program and the state.
    fn settle(&mut self, outcome: &HandoffOutcome, asked_for: Option<&'static str>) {
        let done = if asked_for == Some(ROLLBACK) { "rolled back" } else { "upgraded" };
        let up = matches!(outcome.verdict, Verdict::StartedCold | Verdict::Committed | Verdict::Reverted);
        let cold =
            asked_for.is_some() && matches!(self.state, State::Starting) && outcome.verdict == Verdict::StartedCold;
        if up {
            self.keep_program();
        }
        if up && matches!(self.state, State::Starting) && outcome.pid != 0 {
            self.events.push(Event::Ready { pid: outcome.pid });
        }
        if up && matches!(self.state, State::Starting | State::Running) {
            self.state = State::Running;
            self.served = true;
            self.why = match outcome.verdict {
                Verdict::Committed => done.to_owned(),
                _ if cold => format!("{done} (started cold)"),
                _ if outcome.reason.is_empty() => self.why.clone(),
                _ => outcome.reason.clone(),
            };
        }
        match outcome.verdict {
            Verdict::Committed => {
                self.before = Some((std::mem::replace(&mut self.started_ns, monotonic_ns()), outcome.id))
            }
            // The process of before serves again; if it was replaced under another supervisor, from now on.
            Verdict::Reverted => {
                let before = self.before.take().filter(|(_, id)| *id == outcome.id);
                self.started_ns = before.map_or_else(monotonic_ns, |(started_ns, _)| started_ns);
            }
            _ => {}
        }
    }

    /// What is waited for in this phase, for people.
    pub(super) fn reserve_must_end(&self, phase: &str) -> Option<String> {
        let reserve = self.supervisor.status().parked_pid.filter(|_| phase == CONFIRMING);
        reserve.map(|pid| format!("process {pid}, which was the reserve, must end first"))
    }

    /// To whom asks for an upgrade only now: the phase that it has to wait for.
    fn tell_settling(&mut self) {
        let phase = self.supervisor.status().phase;
        if is_settling(phase) {
            let waits = self.reserve_must_end(phase);
            let waits = waits.unwrap_or_else(|| "the process that was replaced must exit first".to_owned());
            self.events.push(Event::Phase(phase, Some(waits)));
        }
    }
}
