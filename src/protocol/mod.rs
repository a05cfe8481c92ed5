//! The rules of a handoff, as pure values.
//!
//! Three machines, one for each process: [`supervisor::Supervisor`], [`incumbent::Incumbent`] and [`successor::Successor`].
//! A machine takes an input and returns the actions that its driver must carry out, in order. Nothing in this module has
//! a descriptor, reads a clock or makes a system call; a machine asks for a timer with `Arm` and hears of it with `Timer`,
//! and asks for the compare-and-swap on the decision word with `Decide` and hears its result with `Decided`. So the
//! code that runs is the code that tests drive on a virtual clock and that a model checker can explore.

mod attachment;
pub mod capability;
pub mod codec;
pub mod incumbent;
pub mod message;
pub mod successor;
pub mod supervisor;
pub mod transfer;
#[cfg(test)]
mod trio;

pub use message::{HandoffId, Message};

use std::fmt;

/// The value of the decision word, which N, O and S share and which leaves [`Decision::Open`] exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Nobody has decided.
    Open,
    /// N serves, and O could still read the data.
    Committed,
    /// N serves, and changed the format of the data: O can not take over any more.
    CommittedIncompatible,
    /// N must not serve; O may resume.
    Revoked,
}

impl Decision {
    /// Whether N has won.
    pub fn is_committed(self) -> bool {
        matches!(self, Self::Committed | Self::CommittedIncompatible)
    }
}

/// What a machine asks of the decision word. The driver answers with `Decided(value)`, the value that holds afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decide {
    /// Compare-and-swap from open to committed; none if `deadline_ns` is past at that moment. The answer is the word as
    /// it is then, which may still be open.
    Commit {
        /// N changed the format on disk.
        incompatible: bool,
        /// Absolute `CLOCK_MONOTONIC` nanoseconds; none when N is alone and there is nobody to be late for.
        deadline_ns: Option<u64>,
    },
    /// Compare-and-swap from open to revoked.
    Revoke,
}

/// A message that no crossing of messages explains. It ends the session with the peer that sent it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Violation {
    /// The message.
    pub message: &'static str,
    /// The phase of the machine that received it.
    pub phase: &'static str,
    /// The handoff that the message names.
    pub id: HandoffId,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, phase, id } = self;
        write!(f, "unexpected {message} of handoff {id} while {phase}")
    }
}

/// Whether the successor has opened all that was sealed.
fn check_revisions(sealed: &[u64], opened: &[u64]) -> Result<(), String> {
    if sealed.len() != opened.len() {
        return Err(format!(
            "the incumbent sealed {} shards, but the successor announced {} revisions: both must give one for each shard",
            sealed.len(),
            opened.len()
        ));
    }
    for (shard, (sealed, opened)) in sealed.iter().zip(opened).enumerate() {
        if opened < sealed {
            return Err(format!(
                "a write would be lost: shard {shard} was sealed at revision {sealed}, but the successor opened {opened}"
            ));
        }
    }
    Ok(())
}
