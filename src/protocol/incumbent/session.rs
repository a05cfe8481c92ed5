//! What S says, and what it hears.

use super::{Action, Current, Hook, Incumbent, Phase, Timer};
use crate::protocol::message::{
    AdoptAck, Commit, EndProbation, Heartbeat, Message, Mode, PrepareHandoff, Readiness, Ready, Reject, RejectCode,
    ResumeAfterAbort, Resumed, SealRequest, SealStep, Serving, Stopping,
};
use crate::protocol::transfer::Totals;
use crate::protocol::{HandoffId, Violation};

impl Incumbent {
    pub(super) fn on_ready(&mut self, readiness: Readiness, out: &mut Vec<Action>) {
        if self.phase == Phase::Starting {
            self.readiness = readiness.clone();
            out.push(Action::Send(Message::Ready(Ready { id: HandoffId::COLD, readiness, taken: Totals::default() })));
        }
    }

    pub(super) fn on_served(&mut self, now_ns: u64, control: Result<(), String>, out: &mut Vec<Action>) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Serving;
            let serving = Serving { id: HandoffId::COLD, committed_ns: now_ns, control };
            out.push(Action::Send(Message::Serving(serving)));
        }
    }

    /// The answer comes first: the new supervisor must know of a handoff that is undone now.
    pub(super) fn on_adopted(&mut self, ack: AdoptAck, out: &mut Vec<Action>) {
        let ack = AdoptAck { generation: self.generation, phase: self.phase.number(), id: self.id(), ..ack };
        out.push(Action::Send(Message::AdoptAck(ack)));
        self.fence(out);
    }

    pub(super) fn on_message(&mut self, message: Message, out: &mut Vec<Action>) {
        let id = message.id();
        match (self.phase, message) {
            (Phase::Starting | Phase::Serving, Message::HelloAck(ack))
                if ack.terms.is_none() && self.generation == 0 =>
            {
                self.generation = ack.generation;
            }
            (Phase::Starting | Phase::Serving, Message::Reject(_)) => {} // the log has it; the daemon serves unsupervised
            (Phase::Serving, Message::PrepareHandoff(prepare)) if id > self.newest => self.on_prepare(&prepare, out),
            (Phase::Drained, Message::SealRequest(SealRequest { id })) if id == self.id() => {
                self.phase = Phase::Sealing;
                out.push(Action::Run(Hook::Seal));
            }
            (
                Phase::Announced | Phase::Sealed | Phase::Fencing | Phase::AwaitServing,
                Message::Commit(Commit { id }),
            ) if id == self.id() => {
                self.on_commit(out);
            }
            (Phase::Serving, Message::ResumeAfterAbort(ResumeAfterAbort { id })) if id != HandoffId::COLD => {
                // Idempotent: it may have resumed by itself, or never have heard of this handoff.
                self.newest = self.newest.max(id);
                out.push(Action::Send(Message::Resumed(Resumed { id, error: None })));
            }
            (Phase::Parked, Message::EndProbation(EndProbation { id })) if id == self.id() => self.end_probation(out),
            (_, Message::ResumeAfterAbort(ResumeAfterAbort { id })) if self.handoff() == Some(id) => self.fence(out),
            // Crossings: of a finished handoff, or of one that O has left by itself.
            (
                _,
                Message::PrepareHandoff(_)
                | Message::SealRequest(_)
                | Message::Commit(_)
                | Message::EndProbation(_)
                | Message::ResumeAfterAbort(_),
            ) if self.is_crossing(id) => self.dropped += 1,
            (_, other) => self.on_unexpected(other.name(), id, out),
        }
    }

    fn on_unexpected(&mut self, message: &'static str, id: HandoffId, out: &mut Vec<Action>) {
        out.push(Action::EndSession(Violation { message, phase: self.phase.name(), id }));
        self.fence(out);
    }

    /// Whether a message of handoff `id` may arrive although nothing waits for it.
    fn is_crossing(&self, id: HandoffId) -> bool {
        let finished = id < self.id() || self.current.is_none() && id <= self.newest;
        use Phase::{Announced, Drained, Draining, Sealing, Serving};
        let leaving = !matches!(self.phase, Serving | Announced | Draining | Drained | Sealing);
        id != HandoffId::COLD && (finished || id == self.id() && leaving)
    }

    pub(super) fn on_unable(&mut self, id: HandoffId, text: String, out: &mut Vec<Action>) {
        if self.is_crossing(id) {
            self.dropped += 1;
            return;
        }
        if self.phase != Phase::Serving {
            return self.on_unexpected("PrepareHandoff", id, out);
        }
        self.newest = self.newest.max(id);
        out.push(Action::Send(Message::Reject(Reject { code: RejectCode::Unable, text })));
        out.push(Action::Release);
    }

    fn on_prepare(&mut self, prepare: &PrepareHandoff, out: &mut Vec<Action>) {
        self.newest = prepare.id;
        self.current = Some(Current {
            id: prepare.id,
            mode: prepare.mode,
            unlocked: false,
            successor_dead: false,
            successor_serving: false,
            committed: false,
            progress: None,
            parks: prepare.park_ns > 0 && prepare.mode == Mode::Exclusive,
            fence_next: false,
        });
        if prepare.mode == Mode::Overlap {
            return self.announce(out);
        }
        self.phase = Phase::Draining;
        out.extend([
            Action::Arm(Timer::Deadline),
            Action::Arm(Timer::Drain),
            Action::Arm(Timer::Heartbeat),
            Action::Run(Hook::Drain),
        ]);
    }

    pub(super) fn on_stop(&mut self, out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        // It is no reserve for anybody, or whoever stops a whole service would wake it.
        current.parks = false;
        if self.phase == Phase::Parked {
            return self.look(out);
        }
        if self.phase == Phase::Leaving {
            return self.cut_leave(out);
        }
        out.push(Action::Send(Message::Stopping(Stopping { id: self.id() })));
        if matches!(self.phase, Phase::Announced | Phase::Draining | Phase::Drained | Phase::Failed) {
            self.fence(out);
        }
    }

    pub(super) fn on_timer(&mut self, timer: Timer, out: &mut Vec<Action>) {
        match timer {
            Timer::Drain if self.phase == Phase::Draining => {
                out.push(Action::Cancel);
                self.fail(SealStep::Drain, "the drain took longer than its grace".into(), out);
            }
            Timer::Drain => self.cut_leave(out),
            Timer::Deadline => self.fence(out),
            Timer::Heartbeat => {
                let Some(current) = &self.current else { return };
                let heartbeat = Heartbeat { id: current.id, progress: current.progress };
                out.extend([Action::Send(Message::Heartbeat(heartbeat)), Action::Arm(Timer::Heartbeat)]);
            }
            Timer::Lock if self.phase == Phase::Locking => out.push(Action::TakeLock),
            Timer::Park => self.end_probation(out),
            _ => {}
        }
    }
}
