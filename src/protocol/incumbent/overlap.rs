//! Overlap mode: O serves on beside N until N serves; then it drains, and does not come back.
//!
//! Until it retires its application hears nothing. It stops on N's *serving*, never on the word alone, so that there is no
//! instant in which nobody accepts; whatever undoes the handoff before that finds it serving.

use super::{Action, Hook, Incumbent, Phase, Timer};
use crate::protocol::message::{Announced, Message, Mode, Reject, RejectCode};

impl Incumbent {
    pub(super) fn is_overlap(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.mode == Mode::Overlap)
    }

    /// Whether its application serves: in overlap mode also while it takes part in a handoff.
    pub fn serves(&self) -> bool {
        self.phase == Phase::Serving || self.is_overlap() && !matches!(self.phase, Phase::Leaving | Phase::Replaced)
    }

    /// Begin follows only when S has heard that O knows N: with S gone, two that know nothing of each other would serve
    /// for ever.
    pub(super) fn announce(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Announced;
        out.extend([Action::Arm(Timer::Deadline), Action::Arm(Timer::Heartbeat), Action::SendGate]);
    }

    pub(super) fn on_gate_sent(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::Announced {
            out.push(Action::Send(Message::Announced(Announced { id: self.id() })));
        }
    }

    pub(super) fn on_gate_failed(&mut self, error: String, out: &mut Vec<Action>) {
        if self.phase == Phase::Announced {
            self.phase = Phase::Serving;
            self.current = None;
            self.quiet(out);
            let reject = Reject { code: RejectCode::Unable, text: error };
            out.extend([Action::Release, Action::Send(Message::Reject(reject))]);
        }
    }

    /// N serves: no way leads back. The page says so at once, since the next handoff waits for it, and not for the drain.
    pub(super) fn leave(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Leaving;
        self.quiet(out);
        out.extend([Action::Retire, Action::Arm(Timer::Drain), Action::Run(Hook::Leave)]);
    }

    /// The last drain is done, has failed, or is not waited for any more.
    pub(super) fn left(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::Leaving {
            self.phase = Phase::Replaced;
            self.quiet(out);
            out.push(Action::Exit(None));
        }
    }

    pub(super) fn cut_leave(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::Leaving {
            out.push(Action::Cancel);
            self.left(out);
        }
    }
}
