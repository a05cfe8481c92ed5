//! The way back, and the ends that are not in our hands.

use super::{Action, Current, Peer, Phase, Supervisor, Timer, Verdict};
use crate::protocol::message::{Abort, Message, ResumeAfterAbort};
use crate::protocol::{Decide, Decision};

impl Supervisor {
    /// Whoever wants O to go on must first win the word from N.
    pub(super) fn abort(&mut self, reason: String, out: &mut Vec<Action>) {
        let forward = matches!(
            self.phase,
            Phase::AwaitHello
                | Phase::Warming
                | Phase::Announcing
                | Phase::Draining
                | Phase::Sealing
                | Phase::AwaitReady
                | Phase::AwaitServing
        );
        let Some(current) = self.current.as_mut().filter(|_| forward || self.phase == Phase::Spawning) else { return };
        if current.reason.is_empty() {
            current.reason = reason;
        }
        if self.phase == Phase::Spawning {
            return; // on_spawned goes on
        }
        current.asked = true;
        let timers = [Timer::Hello, Timer::Drain, Timer::Ready, Timer::Serving];
        out.extend(timers.map(Action::Disarm));
        self.enter(Phase::Revoking, out);
        out.push(Action::Decide(Decide::Revoke));
    }

    /// Somebody can not take part; nothing was disturbed.
    pub(super) fn reject(&mut self, reason: String, out: &mut Vec<Action>) {
        if let Some(current) = &mut self.current {
            current.rejected = true;
        }
        self.abort(reason, out);
    }

    /// O refuses Prepare, or N refuses to go on.
    pub(super) fn on_rejected(&mut self, peer: Peer, text: String, out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        current.rejected |= peer == Peer::Incumbent || !current.prepared;
        self.abort(text, out);
    }

    pub(super) fn on_cancel(&mut self, reason: String, out: &mut Vec<Action>) {
        self.abort(reason, out);
    }

    pub(super) fn on_decided(&mut self, value: Decision, out: &mut Vec<Action>) {
        let (Phase::Revoking, Some(current)) = (self.phase, &mut self.current) else { return };
        if !value.is_committed() {
            return self.roll_back(out);
        }
        current.format_changes |= value == Decision::CommittedIncompatible;
        if current.successor_dead {
            return self.revert(out);
        }
        let serving = current.successor.is_some_and(|successor| successor.serving);
        self.enter(Phase::AwaitServing, out);
        if serving {
            return self.on_serving(out);
        }
        self.report_undecided(out);
    }

    fn roll_back(&mut self, out: &mut Vec<Action>) {
        let Some(current) = &self.current else { return };
        let (id, reason) = (current.id(), current.reason.clone());
        // Whoever has begun may hold the lock; and while nobody serves, or after the deadline, nobody waits for manners.
        if current.begun || current.incumbent_dead || current.late {
            out.push(Action::KillSuccessor);
        } else {
            out.push(Action::Send(Peer::Successor, Message::Abort(Abort { id, reason })));
            if !current.successor_dead {
                out.push(Action::Arm(Timer::AbortGrace));
            }
        }
        if current.disturbed() {
            out.push(Action::Send(Peer::Incumbent, Message::ResumeAfterAbort(ResumeAfterAbort { id })));
        }
        self.enter(Phase::RollingBack, out);
        self.seek(out);
        self.try_settle(out);
        self.report_undecided(out);
    }

    /// N won the word and died: O goes on after it, if O lives.
    pub(super) fn revert(&mut self, out: &mut Vec<Action>) {
        let Some(current) = &self.current else { return };
        let id = current.id();
        if current.disturbed() {
            out.push(Action::Send(Peer::Incumbent, Message::ResumeAfterAbort(ResumeAfterAbort { id })));
        }
        out.push(Action::Disarm(Timer::Retire));
        self.enter(Phase::Reverting, out);
        self.seek(out);
        self.try_settle(out);
    }

    /// Ends the transaction when nobody is left who could still change how it ended.
    pub(super) fn try_settle(&mut self, out: &mut Vec<Action>) {
        let (Phase::RollingBack | Phase::Reverting, Some(current)) = (self.phase, &self.current) else { return };
        if !current.successor_dead {
            return;
        }
        if current.incumbent_dead {
            out.extend([Action::Disarm(Timer::AbortGrace), Action::Disarm(Timer::Deadline)]);
            return self.spawn_cold(out);
        }
        let verdict = match self.phase {
            Phase::Reverting if current.resumed => Verdict::Reverted,
            Phase::RollingBack if current.rejected => Verdict::Refused,
            Phase::RollingBack if current.resumed || !current.prepared => Verdict::RolledBack,
            _ if current.unreachable || self.estranged => Verdict::Undecided,
            _ => return,
        };
        let reason = current.reason.clone();
        self.settle(verdict, reason, out);
    }

    pub(super) fn on_resumed(&mut self, error: Option<String>, out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        if let Some(error) = error {
            let before = if current.reason.is_empty() { String::new() } else { format!("{}; and ", current.reason) };
            current.reason = format!("{before}the incumbent could not resume: {error}");
            return out.push(Action::KillIncumbent); // it is about to exit; its death starts the rest
        }
        current.resumed = true;
        self.adoptions = self.adoptions.min(1);
        if let Some(incumbent) = &mut self.incumbent {
            incumbent.serving = true;
        }
        match self.phase {
            Phase::RollingBack | Phase::Reverting => {
                out.push(Action::Disarm(Timer::Liveness(Peer::Incumbent)));
                self.try_settle(out);
            }
            // N has died, but its pidfd was not looked at yet.
            Phase::Retiring => {}
            _ => self.abort("the incumbent resumed by itself".into(), out),
        }
    }

    pub(super) fn on_died(&mut self, peer: Peer, status: &str, out: &mut Vec<Action>) {
        out.push(Action::Disarm(Timer::Lost(peer)));
        if self.is_on_trial() {
            return self.on_died_in_probation(peer, status, out);
        }
        match (peer, &mut self.current) {
            (Peer::Incumbent, None) => {
                self.incumbent = None;
                self.on_cold_failed(status, out);
            }
            (Peer::Incumbent, Some(_)) if self.phase == Phase::ColdStarting => self.on_cold_failed(status, out),
            (Peer::Incumbent, Some(current)) => {
                current.incumbent_dead = true;
                match self.phase {
                    Phase::AwaitReady | Phase::AwaitServing | Phase::Revoking => {}
                    Phase::RollingBack | Phase::Reverting => {
                        if !current.successor_dead && self.phase == Phase::RollingBack {
                            out.push(Action::KillSuccessor);
                        }
                        self.try_settle(out);
                    }
                    Phase::Retiring => self.on_retired(out),
                    _ => self.on_incumbent_death(status, out),
                }
            }
            (Peer::Successor, Some(current)) => {
                if !current.late {
                    out.push(Action::Disarm(Timer::AbortGrace));
                }
                current.note_successor_death(status);
                match self.phase {
                    Phase::RollingBack | Phase::Reverting => self.try_settle(out),
                    // O may not have read Commit: then it takes over. If it has, it exits, and nobody is left.
                    Phase::Retiring => self.revert(out),
                    _ => self.abort(String::new(), out),
                }
            }
            (Peer::Successor, None) | (Peer::Parked, _) => {}
        }
    }

    /// The session has ended; its process may be dead, too, and that would say more.
    pub(super) fn on_gone(&mut self, peer: Peer, out: &mut Vec<Action>) {
        self.note_loss(peer);
        if peer == Peer::Parked {
            return self.on_parked_lost(out);
        }
        out.push(Action::Arm(Timer::Lost(peer)));
    }

    pub(super) fn note_loss(&mut self, peer: Peer) {
        if let (Peer::Successor, Some(current)) = (peer, &mut self.current) {
            current.successor_lost = true;
        }
    }

    /// The session is lost with both sides alive.
    pub(super) fn on_lost(&mut self, peer: Peer, why: &str, out: &mut Vec<Action>) {
        self.note_loss(peer);
        match peer {
            Peer::Incumbent if self.phase == Phase::ColdStarting => {
                self.incumbent_lost = true;
                self.settle(
                    Verdict::Undecided,
                    format!("the daemon's session was lost before it said that it serves: {why}"),
                    out,
                );
                self.seek(out);
            }
            Peer::Incumbent => {
                self.incumbent_lost = true;
                if self.phase == Phase::AwaitServing || self.phase == Phase::Retiring {
                    return; // the word and the page tell O all that it needs
                }
                self.abort(format!("the session with the incumbent is lost: {why}"), out);
                use Phase::{Confirming, Idle, Probation, Reverting, RollingBack};
                if matches!(self.phase, Idle | RollingBack | Reverting | Probation | Confirming) {
                    self.seek(out);
                }
                self.try_settle(out);
            }
            Peer::Successor => self.abort(format!("the session with the successor is lost: {why}"), out),
            Peer::Parked => self.on_parked_lost(out),
        }
    }

    pub(super) fn on_silence(&mut self, peer: Peer, out: &mut Vec<Action>) {
        if !self.owes(peer) {
            return;
        }
        let rolling = matches!(self.phase, Phase::RollingBack | Phase::Reverting);
        if !rolling {
            let who = if peer == Peer::Incumbent { "incumbent" } else { "successor" };
            return self.abort(format!("the {who} gave no sign of life"), out);
        }
        // A sealed O that is silent keeps everybody waiting; one that never sealed still holds the lock and may serve.
        if self.current.as_ref().is_some_and(|current| current.sealed.is_some()) {
            out.push(Action::KillIncumbent);
        }
    }

    pub(super) fn on_late(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::ColdStarting {
            return out.push(Action::Report(
                Verdict::Undecided,
                "the daemon was started, and has not said that it serves".into(),
            ));
        }
        let Some(current) = &mut self.current else { return };
        current.late = true;
        if self.phase == Phase::RollingBack && !current.successor_dead {
            out.push(Action::KillSuccessor);
        }
        self.abort("the handoff's deadline is past".into(), out);
        self.report_undecided(out);
    }

    /// N was told to go, and is still there; or, after the deadline, O has not said yet that it goes on.
    pub(super) fn on_abort_grace(&mut self, out: &mut Vec<Action>) {
        let (Phase::RollingBack, Some(current)) = (self.phase, &self.current) else { return };
        if !current.successor_dead {
            out.push(Action::KillSuccessor);
        }
        self.tell_undecided(out);
    }

    /// The caller hears at the deadline that nobody knows yet; S goes on.
    fn report_undecided(&mut self, out: &mut Vec<Action>) {
        // In overlap mode O has served all the time, prepared or not.
        let overlaps = self.overlaps();
        let serves_on = |current: &Current| !current.incumbent_dead && (overlaps || !current.disturbed());
        if self.phase == Phase::RollingBack
            && self.current.as_ref().is_some_and(|current| current.late && serves_on(current))
        {
            // But for N's end, and O's word, it is known, and those are a matter of moments, if it can be killed at all.
            return out.push(Action::Arm(Timer::AbortGrace));
        }
        self.tell_undecided(out);
    }

    fn tell_undecided(&mut self, out: &mut Vec<Action>) {
        let waiting = matches!(self.phase, Phase::AwaitServing | Phase::RollingBack | Phase::Reverting);
        let Some(current) = self.current.as_mut().filter(|current| waiting && current.late && !current.undecided)
        else {
            return;
        };
        current.undecided = true;
        out.push(Action::Report(Verdict::Undecided, current.reason.clone()));
    }
}

impl Current {
    pub(super) fn note_successor_death(&mut self, status: &str) {
        self.successor_dead = true;
        if self.reason.is_empty() {
            self.reason = format!("the successor died: {status}");
            return;
        }
        // It may have said itself why it goes, in the words that it was told.
        let repeats = status.contains(&self.reason);
        let how = status.split(';').next().filter(|_| repeats).unwrap_or(status);
        self.reason = format!("{} (the successor: {how})", self.reason);
    }

    /// Whether O has to be told to go on.
    pub(super) fn disturbed(&self) -> bool {
        self.prepared && !self.resumed && !self.incumbent_dead
    }
}
