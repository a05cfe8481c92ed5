//! O waits behind a commit, so that it can take over from an N that dies.
//!
//! It goes on if and only if N is dead: never because the lock is free, which a later N may be about to take, and never because
//! S is gone.

use super::{Action, Incumbent, Phase, Timer};

impl Incumbent {
    /// N serves and lives.
    pub(super) fn park(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Parked;
        out.extend([Action::Disarm(Timer::Deadline), Action::Arm(Timer::Park), Action::Park]);
    }

    /// O is not needed any more, unless N has died since.
    pub(super) fn end_probation(&mut self, out: &mut Vec<Action>) {
        if self.phase != Phase::Parked {
            return;
        }
        if let Some(current) = &mut self.current {
            current.parks = false;
        }
        self.look(out);
    }
}
