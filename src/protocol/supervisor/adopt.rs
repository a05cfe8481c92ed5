//! A living incumbent without a session: after a restart of S, or when the session was cut.

use super::{Action, Current, Linked, Peer, Phase, Supervisor, Timer};
use crate::protocol::message::{Adopt, AdoptAck, Message, ResumeAfterAbort, VERSION_MAX, VERSION_MIN};
use crate::protocol::transfer::Room;
use crate::protocol::{Decide, HandoffId};

/// How often an incumbent is adopted that ends its sessions without a handoff in between.
const ADOPTIONS_MAX: u8 = 8;

/// What a supervisor that is gone has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Past {
    /// Which process of the service the incumbent is; 0 if that is not known.
    pub generation: u64,
    /// The incumbent lives.
    pub incumbent_lives: bool,
    /// The handoff that was open.
    pub handoff: Option<PastHandoff>,
}

/// A handoff that nobody has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PastHandoff {
    /// Its id.
    pub id: HandoffId,
    /// N lives.
    pub successor_lives: bool,
    /// How long O parks behind the commit, in nanoseconds.
    pub park_ns: u64,
}

impl Supervisor {
    /// Goes on where another supervisor stopped: as if both sessions had been cut, wherever the handoff was.
    pub(super) fn on_resume(&mut self, past: Past, out: &mut Vec<Action>) {
        if self.phase != Phase::Idle || self.incumbent.is_some() {
            return;
        }
        self.generation = past.generation;
        self.incumbent = past.incumbent_lives.then(Linked::unknown);
        self.new_incumbent();
        self.incumbent_lost = true;
        match past.handoff {
            None => self.seek(out),
            Some(handoff) => self.decide_past(handoff, !past.incumbent_lives, out),
        }
    }

    /// How far it came is not known: whoever could have won is asked by the word, whoever could be disturbed is told.
    fn decide_past(&mut self, handoff: PastHandoff, incumbent_dead: bool, out: &mut Vec<Action>) {
        self.newest = self.newest.max(handoff.id);
        let mut current = Current::of(handoff.id);
        current.plan.terms.park_ns = handoff.park_ns;
        self.current = Some(Current {
            journalled: true,
            prepared: true,
            begun: true,
            asked: true,
            incumbent_dead,
            successor: Some(Linked::unknown()),
            successor_dead: !handoff.successor_lives,
            successor_lost: true,
            reason: "the supervisor was restarted in mid-handoff".into(),
            ..current
        });
        self.enter(Phase::Revoking, out);
        out.extend([Action::Arm(Timer::Deadline), Action::Decide(Decide::Revoke)]);
    }

    /// Looks for a new session with an incumbent that lives, if its own is lost.
    pub(super) fn seek(&mut self, out: &mut Vec<Action>) {
        // In a probation that is said of O.
        let dead = self.parked.is_none() && self.current.as_ref().is_some_and(|current| current.incumbent_dead);
        if !self.seeks() || dead {
            return;
        }
        if self.adoptions >= ADOPTIONS_MAX {
            self.estranged = true;
            return;
        }
        if self.current.is_some() && self.parked.is_none() {
            out.push(Action::Arm(Timer::Adoption));
        }
        out.push(Action::Adopt);
    }

    /// Whether a Hello of the incumbent would be the begin of an adoption.
    pub fn seeks(&self) -> bool {
        self.incumbent_lost && self.incumbent.is_some() && !self.estranged
    }

    /// The incumbent has said Hello on a new session, and may take part.
    pub(super) fn greet_again(&mut self, linked: Linked, out: &mut Vec<Action>) {
        let serving = self.incumbent.is_some_and(|incumbent| incumbent.serving);
        self.incumbent = Some(Linked { serving, ..linked });
        let adopt = Adopt { version_min: VERSION_MIN, version_max: VERSION_MAX };
        out.push(Action::Send(Peer::Incumbent, Message::Adopt(adopt)));
    }

    /// It will not be adopted, or should not.
    pub(super) fn estrange(&mut self, out: &mut Vec<Action>) {
        self.estranged = true;
        self.try_settle(out);
    }

    pub(super) fn on_adopted(&mut self, ack: &AdoptAck, out: &mut Vec<Action>) {
        let Some(incumbent) = &mut self.incumbent else { return };
        // An N whose page says that it serves may still be on its way there: it will say so.
        incumbent.serving = ack.phase == AdoptAck::SERVING;
        self.incumbent_lost = false;
        self.adoptions += 1;
        if self.generation == 0 {
            self.generation = ack.generation;
        }
        if let Some(current) = &mut self.current {
            current.unreachable = false;
        }
        out.extend([Action::Disarm(Timer::Lost(Peer::Incumbent)), Action::Disarm(Timer::Adoption)]);
        match &self.current {
            Some(current) if current.disturbed() && matches!(self.phase, Phase::RollingBack | Phase::Reverting) => {
                let id = current.id();
                out.push(Action::Send(Peer::Incumbent, Message::ResumeAfterAbort(ResumeAfterAbort { id })));
                self.enter(self.phase, out);
            }
            _ => self.newest = self.newest.max(ack.id),
        }
    }

    /// In a handoff that is undone: the incumbent could not be reached in time.
    pub(super) fn on_unreachable(&mut self, out: &mut Vec<Action>) {
        let Some(current) = self.current.as_mut().filter(|_| self.incumbent_lost) else { return };
        // It may well serve: silence on a path that leads nowhere says nothing, so it is not killed.
        current.unreachable = true;
        self.try_settle(out);
    }
}

impl Linked {
    /// A daemon that has said Hello to another supervisor.
    fn unknown() -> Self {
        Self { uid: 0, capabilities: 0, room: Room { descriptors_max: 0, open_descriptors: 0 }, serving: false }
    }
}
