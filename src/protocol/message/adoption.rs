//! What a supervisor without a session and a daemon say to each other.

use crate::protocol::HandoffId;
use crate::protocol::codec::{Decode, Encode};

/// A restarted supervisor asks for the session. Its layout never changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adopt {
    /// The oldest version that it speaks.
    pub version_min: u16,
    /// The newest version that it speaks.
    pub version_max: u16,
}

/// The answer to Adopt. Its layout never changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AdoptAck {
    /// The version that both will speak.
    pub version: u16,
    /// The daemon's pid as it sees itself.
    pub pid: u32,
    /// Which process of this service it is.
    pub generation: u64,
    /// The number of the daemon's phase.
    pub phase: u8,
    /// The handoff that is open, or else the newest that the daemon knows of, or [`HandoffId::COLD`].
    pub id: HandoffId,
    /// How many listeners come after it, in messages of their own.
    pub listeners: u16,
}

impl AdoptAck {
    /// [`AdoptAck::phase`] of a daemon that serves. The numbers are those of `handoff_phases` in `handoff.h`.
    pub const SERVING: u8 = 2;
}

/// Listeners of a daemon that is being adopted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct AdoptListeners {
    /// Their names, in the order in which the daemon got them.
    pub names: Vec<String>,
}
