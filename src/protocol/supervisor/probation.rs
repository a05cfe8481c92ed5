//! N serves, and O is parked: sealed, without the lock, ready to go on when N is dead.
//!
//! From here on N is the incumbent, which is adopted when its session is lost; O decides alone, by the death of N. S only ends it:
//! by EndProbation, or, if the caller condemns N, by killing it.

use super::{Action, Current, Peer, Phase, Supervisor, Timer, Verdict};
use crate::protocol::message::{EndProbation, Message};

impl Supervisor {
    /// How long O parks, in nanoseconds, in the probation that is under way.
    pub fn park_ns(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.plan.terms.park_ns)
    }

    /// Why N was condemned, if it was.
    pub fn condemnation(&self) -> Option<&str> {
        self.current.as_ref().filter(|current| current.condemned).map(|current| current.reason.as_str())
    }

    /// Whether an O is parked behind the incumbent.
    pub fn is_on_trial(&self) -> bool {
        matches!(self.phase, Phase::Probation | Phase::Confirming)
    }

    /// Commit is sent. The journal stays open: another S must find both.
    pub(super) fn begin_probation(&mut self, out: &mut Vec<Action>) {
        let Some(current) = &self.current else { return };
        let (successor, successor_lost) = (current.successor, current.successor_lost);
        self.generation += 1;
        self.parked = self.incumbent.take();
        self.parked_lost = self.incumbent_lost;
        self.new_incumbent();
        (self.incumbent, self.incumbent_lost) = (successor, successor_lost);
        // From here on the names mean other processes.
        self.forget_losses(out);
        self.enter(Phase::Probation, out);
        out.extend([Action::Arm(Timer::Probation), Action::Report(Verdict::Committed, String::new()), Action::Park]);
        self.seek(out);
    }

    fn forget_losses(&self, out: &mut Vec<Action>) {
        out.extend([Peer::Incumbent, Peer::Successor].map(|peer| Action::Disarm(Timer::Lost(peer))));
    }

    /// Its time is over, or the caller goes on: nobody can take over from N any more.
    pub(super) fn end_probation(&mut self, out: &mut Vec<Action>) {
        let Some(current) = self.current.as_ref().filter(|current| !current.condemned) else { return };
        if self.phase != Phase::Probation {
            return;
        }
        let id = current.id();
        out.push(Action::Disarm(Timer::Probation));
        self.enter(Phase::Confirming, out);
        out.extend([
            Action::Send(Peer::Parked, Message::EndProbation(EndProbation { id })),
            Action::Arm(Timer::Retire),
        ]);
        if self.parked_lost {
            out.push(Action::EvictParked); // a SIGTERM says the same
        }
    }

    /// N is no good: it dies, and O goes on.
    pub(super) fn condemn(&mut self, reason: String, out: &mut Vec<Action>) {
        let Some(current) = self.current.as_mut().filter(|_| self.phase == Phase::Probation) else { return };
        current.condemned = true;
        current.reason = reason;
        out.extend([Action::Disarm(Timer::Probation), Action::KillIncumbent]);
    }

    pub(super) fn on_parked_message(&mut self, message: Message, out: &mut Vec<Action>) {
        match (message, &mut self.current) {
            // N is dead, but its pidfd was not looked at yet; if O can not go on, it is about to exit.
            (Message::Resumed(m), Some(current)) if m.id == current.id() && m.error.is_none() => current.resumed = true,
            (Message::Heartbeat(_) | Message::Stopping(_), _) => {}
            (other, _) => self.on_unexpected(Peer::Parked, &other, out),
        }
    }

    pub(super) fn on_parked_lost(&mut self, out: &mut Vec<Action>) {
        self.parked_lost = true;
        if self.phase == Phase::Confirming {
            out.push(Action::EvictParked);
        }
    }

    pub(super) fn on_died_in_probation(&mut self, peer: Peer, status: &str, out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        match peer {
            Peer::Parked => {
                current.incumbent_dead = true;
                if !current.condemned {
                    self.close_probation(out); // else N is dying
                }
            }
            Peer::Incumbent => {
                current.note_successor_death(status);
                self.unpark(out);
            }
            Peer::Successor => {}
        }
    }

    /// O is dead or retired.
    pub(super) fn close_probation(&mut self, out: &mut Vec<Action>) {
        let Some(current) = self.current.take() else { return };
        (self.parked, self.parked_lost) = (None, false);
        out.extend([Timer::Probation, Timer::Retire].map(Action::Disarm));
        if current.journalled {
            out.push(Action::CloseJournal);
        }
        out.extend([Action::Dismiss, Action::Release]);
        self.enter(Phase::Idle, out);
    }

    /// N is dead: O goes on, unless it has retired at the same moment.
    fn unpark(&mut self, out: &mut Vec<Action>) {
        self.generation = self.generation.saturating_sub(1);
        self.incumbent = self.parked.take();
        self.new_incumbent();
        self.incumbent_lost = std::mem::take(&mut self.parked_lost);
        self.forget_losses(out);
        out.extend([Action::Disarm(Timer::Probation), Action::Unpark]);
        self.revert(out);
    }
}

impl Current {
    /// Whether O parks behind the commit.
    pub(super) fn parks(&self) -> bool {
        self.plan.terms.park_ns > 0 && !self.format_changes && !self.incumbent_dead
    }
}
