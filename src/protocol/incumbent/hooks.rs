//! What the application does, and the lock.

use super::{Action, Incumbent, Phase, Timer};
use crate::protocol::message::{
    Drained, Fingerprint, Message, Resumed, SealComplete, SealFailed, SealProgress, SealStep,
};

impl Incumbent {
    pub(super) fn on_drained(&mut self, connections_open: u32, accept_stopped_ns: u64, out: &mut Vec<Action>) {
        if self.phase == Phase::Draining {
            self.phase = Phase::Drained;
            let drained = Drained { id: self.id(), connections_open, accept_stopped_ns };
            out.extend([Action::Disarm(Timer::Drain), Action::Send(Message::Drained(drained))]);
        }
        self.left(out);
    }

    pub(super) fn on_sealed(&mut self, revisions: Vec<u64>, out: &mut Vec<Action>) {
        if self.phase == Phase::Sealing {
            self.phase = Phase::Unlocking;
            self.revisions = revisions;
            out.push(Action::ReleaseLock);
        }
    }

    pub(super) fn on_unlocked(&mut self, fingerprint: Fingerprint, out: &mut Vec<Action>) {
        if let Some(current) = &mut self.current {
            current.unlocked = true;
        }
        if self.phase == Phase::Unlocking {
            self.phase = Phase::Sealed;
            if self.current.as_ref().is_some_and(|current| current.fence_next) {
                return self.fence(out);
            }
            let revisions = std::mem::take(&mut self.revisions);
            let complete = SealComplete { id: self.id(), revisions, fingerprint };
            out.push(Action::Send(Message::SealComplete(complete)));
        }
    }

    pub(super) fn on_unlock_failed(&mut self, error: String, out: &mut Vec<Action>) {
        if self.phase == Phase::Unlocking {
            self.fail(SealStep::Seal, error, out);
            if self.current.as_ref().is_some_and(|current| current.fence_next) {
                self.fence(out);
            }
        }
    }

    pub(super) fn on_hook_failed(&mut self, error: String, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Draining => self.fail(SealStep::Drain, error, out),
            Phase::Sealing => self.fail(SealStep::Seal, error, out),
            Phase::Resuming => {
                let resumed = Resumed { id: self.id(), error: Some(error.clone()) };
                out.push(Action::Send(Message::Resumed(resumed)));
                self.lose(format!("it could not resume: {error}"), out);
            }
            Phase::Leaving => self.left(out),
            _ => {}
        }
    }

    /// Tells S that the hook failed, and waits for its ResumeAfterAbort, its end or the deadline.
    pub(super) fn fail(&mut self, step: SealStep, error: String, out: &mut Vec<Action>) {
        self.phase = Phase::Failed;
        let failed = SealFailed { id: self.id(), step, error };
        out.extend([Action::Disarm(Timer::Drain), Action::Send(Message::SealFailed(failed))]);
    }

    pub(super) fn on_progress(&mut self, done: u64, total: u64, out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        current.progress = Some((done, total));
        if self.phase == Phase::Sealing {
            let progress = SealProgress { id: self.id(), done, total };
            out.push(Action::Send(Message::SealProgress(progress)));
        }
    }

    pub(super) fn on_resumed(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::Resuming {
            let resumed = Resumed { id: self.id(), error: None };
            self.phase = Phase::Serving;
            self.current = None;
            self.quiet(out);
            // The control path is bound again before anybody hears that O serves.
            out.extend([Action::Release, Action::Send(Message::Resumed(resumed))]);
        }
    }
}
