//! What a daemon can take part in: the bits of [`super::message::Hello::capabilities`], and the two modes.

use super::codec::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// It can take part in an exclusive handoff.
pub const EXCLUSIVE: u32 = 1;
/// It can take part in an overlap handoff.
pub const OVERLAP: u32 = 2;
/// It can give and take connections and state.
pub const TRANSFER: u32 = 4;

/// Whether O and N may run side by side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub enum Mode {
    /// They must not both hold the data.
    #[default]
    Exclusive,
    /// They may: N accepts before O stops.
    Overlap,
}

impl Mode {
    /// Its bit among the capabilities.
    pub fn capability(self) -> u32 {
        match self {
            Self::Exclusive => EXCLUSIVE,
            Self::Overlap => OVERLAP,
        }
    }
}
