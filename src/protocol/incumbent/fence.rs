//! Who goes on: first the word, then N's death, then the lock.

use super::{Action, Current, Hook, Incumbent, Phase, Timer};
use crate::protocol::{Decide, Decision};

impl Incumbent {
    /// S says that N serves. The word must say so, too, and N must live: if not, O is the one to go on.
    pub(super) fn on_commit(&mut self, out: &mut Vec<Action>) {
        self.on_successor(|current| current.successor_serving = true, out);
        self.fence(out);
    }

    /// Whoever wants to resume must first win the word from N.
    pub(super) fn fence(&mut self, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Draining | Phase::Sealing => out.push(Action::Cancel),
            Phase::Announced | Phase::Drained | Phase::Sealed | Phase::Failed => {}
            Phase::Unlocking => {
                if let Some(current) = &mut self.current {
                    current.fence_next = true;
                }
                return;
            }
            _ => return, // serves, is fencing already, or is past it
        }
        out.push(Action::Disarm(Timer::Drain));
        self.ask_word(out);
    }

    fn ask_word(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Fencing;
        out.push(Action::Decide(Decide::Revoke));
    }

    /// N serves; but it may have died since.
    pub(super) fn look(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Looking;
        out.push(Action::Look);
    }

    pub(super) fn on_seen(&mut self, alive: bool, out: &mut Vec<Action>) {
        let (Phase::Looking, Some(current)) = (self.phase, &mut self.current) else { return };
        current.successor_dead |= !alive;
        match (current.successor_dead, current.parks) {
            // The word says which kind of commit it was; it can not change any more.
            (true, _) => self.ask_word(out),
            (false, true) => self.park(out),
            (false, false) => self.retire(out),
        }
    }

    pub(super) fn on_decided(&mut self, value: Decision, out: &mut Vec<Action>) {
        let (Phase::Fencing, Some(current)) = (self.phase, &mut self.current) else { return };
        current.committed = value.is_committed();
        // What is written in another format is of no use to O.
        current.parks &= value != Decision::CommittedIncompatible;
        match value {
            Decision::Committed | Decision::CommittedIncompatible if !current.successor_dead => {
                self.phase = Phase::AwaitServing;
                self.on_successor(|_| {}, out);
            }
            Decision::Committed => self.take_lock(out),
            Decision::CommittedIncompatible => {
                self.lose("the successor changed the format of the data and died".into(), out);
            }
            Decision::Revoked | Decision::Open => {
                self.phase = Phase::AwaitDeath;
                out.push(Action::KillSuccessor);
                self.on_successor(|_| {}, out);
            }
        }
    }

    pub(super) fn on_successor(&mut self, note: impl FnOnce(&mut Current), out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        note(current);
        match self.phase {
            Phase::Announced if current.successor_serving => self.fence(out),
            Phase::AwaitServing if current.successor_dead => self.ask_word(out),
            Phase::AwaitServing if current.successor_serving => self.look(out),
            Phase::AwaitDeath if current.successor_dead => self.take_lock(out),
            // Its commit left the format as it was, or O would not be parked.
            Phase::Parked if current.successor_dead => self.take_lock(out),
            _ => {}
        }
    }

    pub(super) fn take_lock(&mut self, out: &mut Vec<Action>) {
        let unlocked = self.current.as_ref().is_some_and(|current| current.unlocked);
        self.phase = Phase::Locking;
        if unlocked { out.push(Action::TakeLock) } else { self.on_locked(out) }
    }

    pub(super) fn on_locked(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::Locking {
            self.phase = Phase::Resuming;
            if self.is_overlap() {
                return self.on_resumed(out); // it has served all the time
            }
            let after_commit = self.current.as_ref().is_some_and(|current| current.committed);
            out.extend([Action::Disarm(Timer::Lock), Action::Run(Hook::Resume { after_commit })]);
        }
    }

    pub(super) fn retire(&mut self, out: &mut Vec<Action>) {
        if self.is_overlap() {
            return self.leave(out);
        }
        self.phase = Phase::Replaced;
        self.quiet(out);
        out.extend([Action::Retire, Action::Exit(None)]);
    }

    pub(super) fn lose(&mut self, reason: String, out: &mut Vec<Action>) {
        self.phase = Phase::Lost;
        self.quiet(out);
        out.push(Action::Exit(Some(reason)));
    }

    pub(super) fn quiet(&self, out: &mut Vec<Action>) {
        let timers = [Timer::Drain, Timer::Deadline, Timer::Heartbeat, Timer::Lock, Timer::Park];
        out.extend(timers.map(Action::Disarm));
    }
}
