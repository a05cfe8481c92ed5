//! The way to the commit.

use super::{Action, Current, OnIncumbentDeath, Peer, Phase, Supervisor, Timer, Verdict};
use crate::protocol::message::{
    Begin, Commit, Committed, Message, Mode, PrepareHandoff, Readiness, Resumed, SealRequest, SealStep, Sealed,
    capability,
};
use crate::protocol::{HandoffId, Violation, check_revisions};

impl Supervisor {
    pub(super) fn on_message(&mut self, peer: Peer, message: Message, out: &mut Vec<Action>) {
        if self.owes(peer) {
            out.push(Action::Arm(Timer::Liveness(peer)));
        }
        if peer == Peer::Parked {
            return self.on_parked_message(message, out);
        }
        let id = message.id();
        match &message {
            Message::AdoptAck(ack) if peer == Peer::Incumbent && self.seeks() => return self.on_adopted(ack, out),
            Message::Reject(_) if peer == Peer::Incumbent && self.seeks() => return self.estrange(out),
            // The driver takes them; which ones they are decides nothing.
            Message::AdoptListeners(_) if peer == Peer::Incumbent && self.adoptions > 0 => return,
            _ => {}
        }
        if let Some(current) = self.current.as_mut().filter(|current| current.id() == id) {
            match (peer, self.phase, message) {
                (Peer::Successor, Phase::Warming, Message::Warmed(_)) => self.on_warmed(out),
                (Peer::Incumbent, Phase::Announcing, Message::Announced(_)) => self.begin(Sealed::Beside, out),
                (Peer::Incumbent, Phase::Draining, Message::Drained(_)) => {
                    out.extend([
                        Action::Disarm(Timer::Drain),
                        Action::Send(peer, Message::SealRequest(SealRequest { id })),
                    ]);
                    self.enter(Phase::Sealing, out);
                }
                (Peer::Incumbent, phase, Message::SealComplete(m)) => {
                    current.sealed = Some((m.revisions.clone(), m.fingerprint));
                    if phase == Phase::Sealing {
                        let sealed = Sealed::Complete { revisions: m.revisions, fingerprint: m.fingerprint };
                        return self.begin(sealed, out);
                    }
                    self.on_unexpected(peer, &Message::SealComplete(m), out);
                }
                (Peer::Incumbent, Phase::Draining | Phase::Sealing, Message::SealFailed(m)) => {
                    let what = if m.step == SealStep::Drain { "drain" } else { "seal" };
                    self.abort(format!("the incumbent could not {what}: {}", m.error), out);
                }
                (Peer::Incumbent, Phase::Announcing | Phase::Draining, Message::Stopping(_)) => {
                    self.abort("the incumbent was asked to stop".into(), out);
                }
                (Peer::Incumbent, _, Message::Resumed(m)) if current.prepared && self.parked.is_none() => {
                    self.on_resumed(m.error, out)
                }
                (Peer::Successor, Phase::AwaitReady, Message::Ready(m)) => self.on_ready(&m.readiness, out),
                (Peer::Successor, Phase::AwaitServing | Phase::Revoking, Message::Serving(_)) => self.on_serving(out),
                (Peer::Incumbent, Phase::Probation | Phase::Confirming, Message::Serving(_)) => self.note_serving(),
                (_, _, Message::Heartbeat(_))
                | (Peer::Incumbent, _, Message::SealProgress(_) | Message::Stopping(_)) => {}
                (_, _, other) => self.on_unexpected(peer, &other, out),
            }
            return;
        }
        match (peer, message) {
            (_, Message::Reject(m)) if self.current.is_some() => self.on_rejected(peer, m.text, out),
            (Peer::Incumbent, Message::Ready(_)) if id == HandoffId::COLD => {}
            // Also in a handoff that S knows nothing of, if it was adopted in its midst.
            (Peer::Incumbent, Message::Serving(_) | Message::Resumed(Resumed { error: None, .. }))
                if self.incumbent.is_some() && (id == HandoffId::COLD || self.adoptions > 0) =>
            {
                self.note_serving();
                if self.phase == Phase::ColdStarting {
                    self.cold_is_up(out);
                }
            }
            (_, other) => self.on_unexpected(peer, &other, out),
        }
    }

    /// A message that the phase does not wait for: a crossing, or the end of the session.
    pub(super) fn on_unexpected(&mut self, peer: Peer, message: &Message, out: &mut Vec<Action>) {
        let id = message.id();
        let current = self.handoff();
        let finished = id != HandoffId::COLD && id <= self.newest && Some(id) != current;
        // Also when N turned out to have won: whatever was on its way when S gave up may still arrive.
        let asked = self.current.as_ref().is_some_and(|current| current.asked);
        let after = matches!(self.phase, Phase::Reverting | Phase::Retiring | Phase::Probation | Phase::Confirming);
        let leaving = asked || after;
        let late_hello = peer == Peer::Successor && matches!(message, Message::Hello(_));
        if finished || leaving && (Some(id) == current || late_hello) {
            self.dropped += 1;
            return;
        }
        let violation = Violation { message: message.name(), phase: self.phase.name(), id };
        let text = violation.to_string();
        out.push(Action::EndSession(peer, violation));
        self.on_lost(peer, &text, out);
    }

    fn on_warmed(&mut self, out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        current.journalled = true;
        out.push(Action::OpenJournal);
        if current.incumbent_dead {
            return self.begin(Sealed::Recover, out);
        }
        current.prepared = true;
        let terms = current.plan.terms;
        let successor = current.successor.filter(|successor| successor.capabilities & capability::TRANSFER != 0);
        let prepare = PrepareHandoff {
            id: terms.id,
            mode: terms.mode,
            deadline_ns: terms.deadline_ns,
            drain_grace_ns: current.plan.drain_grace_ns,
            park_ns: terms.park_ns,
            transfer: successor.map(|successor| successor.room),
        };
        let prepare = Action::Send(Peer::Incumbent, Message::PrepareHandoff(prepare));
        if terms.mode == Mode::Overlap {
            out.push(prepare);
            return self.enter(Phase::Announcing, out);
        }
        out.extend([prepare, Action::Arm(Timer::Drain)]);
        self.enter(Phase::Draining, out);
    }

    fn begin(&mut self, sealed: Sealed, out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        current.begun = true;
        let begin = Begin { id: current.id(), sealed };
        out.extend([
            Action::Send(Peer::Successor, Message::Begin(begin)),
            Action::Disarm(Timer::Drain),
            Action::Arm(Timer::Ready),
        ]);
        self.enter(Phase::AwaitReady, out);
    }

    fn on_ready(&mut self, readiness: &Readiness, out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        if let Err(reason) = current.check(readiness) {
            return self.abort(reason, out);
        }
        current.format_changes = readiness.format_changes;
        let committed = Committed { id: current.id() };
        out.extend([
            Action::Send(Peer::Successor, Message::Committed(committed)),
            Action::Disarm(Timer::Ready),
            Action::Arm(Timer::Serving),
        ]);
        self.enter(Phase::AwaitServing, out);
    }

    /// N has won and is on its way to serve. It will have to be adopted, also if the end of its session was not told yet.
    pub(super) fn on_page_serving(&mut self, out: &mut Vec<Action>) {
        self.note_loss(Peer::Successor);
        self.on_serving(out);
    }

    /// N serves: by its message, or by the page when its session is lost.
    pub(super) fn on_serving(&mut self, out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        if let Some(successor) = &mut current.successor {
            successor.serving = true;
        }
        if self.phase != Phase::AwaitServing {
            return; // its session is lost, or the word is being asked: on_decided goes on
        }
        let (id, incumbent_dead, parks) = (current.id(), current.incumbent_dead, current.parks());
        out.extend([Action::Disarm(Timer::Serving), Action::Disarm(Timer::Deadline)]);
        out.push(Action::Send(Peer::Incumbent, Message::Commit(Commit { id })));
        if parks {
            return self.begin_probation(out);
        }
        self.enter(Phase::Retiring, out);
        out.extend([Action::Arm(Timer::Retire), Action::Report(Verdict::Committed, String::new())]);
        if incumbent_dead {
            self.on_retired(out);
        }
    }

    fn note_serving(&mut self) {
        if let Some(incumbent) = &mut self.incumbent {
            incumbent.serving = true;
        }
    }

    /// O will never serve again: N is the incumbent.
    pub(super) fn on_retired(&mut self, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Retiring => {}
            Phase::Confirming => return self.close_probation(out),
            Phase::Reverting => return self.on_retired_too_late(out),
            _ => return,
        }
        let Some(current) = self.current.take() else { return };
        self.generation += 1;
        self.incumbent = if current.successor_dead { None } else { current.successor };
        self.new_incumbent();
        self.incumbent_lost = current.successor_lost;
        // From here on the names mean other processes.
        let timers = [Timer::Retire, Timer::Lost(Peer::Incumbent), Timer::Lost(Peer::Successor)];
        out.extend(timers.map(Action::Disarm));
        if current.journalled {
            out.push(Action::CloseJournal);
        }
        out.extend([Action::Promote, Action::Release]);
        self.enter(Phase::Idle, out);
        self.seek(out);
    }

    /// O has died before it sealed, or N's Begin is still to come.
    pub(super) fn on_incumbent_death(&mut self, status: &str, out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        match (self.phase, current.plan.on_incumbent_death) {
            (Phase::Announcing | Phase::Draining | Phase::Sealing, OnIncumbentDeath::Promote)
                if !current.successor_dead =>
            {
                self.begin(Sealed::Recover, out);
            }
            // The spawn goes on; on_warmed lets N begin.
            (Phase::Spawning | Phase::AwaitHello | Phase::Warming, OnIncumbentDeath::Promote) => {}
            _ => self.abort(format!("the incumbent died: {status}"), out),
        }
    }
}

impl Current {
    /// Whether N could serve, with everything that was sealed.
    fn check(&self, readiness: &Readiness) -> Result<(), String> {
        if readiness.unhealthy {
            return Err(format!("the successor is not healthy: {}", readiness.detail));
        }
        match &self.sealed {
            Some((sealed, _)) => check_revisions(sealed, &readiness.revisions),
            None => Ok(()),
        }
    }
}
