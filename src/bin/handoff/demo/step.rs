//! One replacement of the demo.

use super::daemon::Fault;
use handoff::HandoffOutcome;
use handoff::supervisor::Verdict;

/// One replacement.
#[derive(Debug)]
pub struct Step {
    pub number: u32,
    pub fault: Option<Fault>,
    pub outcome: HandoffOutcome,
    /// When it was under way, in nanoseconds since each load's origin.
    pub during: Window,
    /// When nothing was, before it.
    pub before: Window,
    /// The slowest request of `during`, of those that had ended by then.
    pub slowest_ns: u64,
}

/// Start and end for each of the two loads.
pub type Window = [(u64, u64); 2];

impl Step {
    /// It ended as it should.
    pub fn as_wanted(&self) -> bool {
        let wanted = if self.fault.is_some() { Verdict::RolledBack } else { Verdict::Committed };
        self.outcome.verdict == wanted
    }
}
