//! What is different when O and N may serve at once.

use super::{Action, Peer, Phase, Supervisor, Timer};
use crate::protocol::message::{Mode, capability};

impl Supervisor {
    /// Whether the handoff that is under way is one in which both serve.
    pub fn overlaps(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.plan.terms.mode == Mode::Overlap)
    }

    /// The mode that the incumbent offers; None: that is not known, or it offers none.
    pub fn incumbent_mode(&self) -> Option<Mode> {
        let capabilities = self.incumbent.as_ref()?.capabilities;
        common_mode(capabilities, capabilities).ok()
    }

    /// N had committed and died, and S let O take over; but O had seen N serve. It drains, and will not serve again: nobody
    /// waits for its end.
    pub(super) fn on_retired_too_late(&mut self, out: &mut Vec<Action>) {
        let Some(current) = self.current.as_mut().filter(|current| !current.incumbent_dead) else { return };
        debug_assert!(self.phase == Phase::Reverting);
        current.incumbent_dead = true;
        // From here on its name means another process.
        let timers = [Timer::Lost(Peer::Incumbent), Timer::Liveness(Peer::Incumbent), Timer::Adoption];
        out.extend(timers.map(Action::Disarm));
        out.push(Action::Promote);
        self.try_settle(out);
    }
}

/// The mode of a handoff between daemons with these capabilities; what keeps them apart if there is none.
pub(super) fn common_mode(incumbent: u32, successor: u32) -> Result<Mode, String> {
    let mut modes = [Mode::Overlap, Mode::Exclusive].into_iter();
    let common = modes.find(|mode| incumbent & successor & mode.capability() != 0);
    let text = || format!("the daemon offers {}, the successor {}", offered(incumbent), offered(successor));
    common.ok_or_else(text)
}

fn offered(capabilities: u32) -> &'static str {
    match capabilities & (capability::EXCLUSIVE | capability::OVERLAP) {
        0 => "no mode, since it has neither a data directory nor a control path",
        capability::EXCLUSIVE => "exclusive mode",
        capability::OVERLAP => "overlap mode",
        _ => "both modes",
    }
}
