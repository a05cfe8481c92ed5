//! Replaces the binary of a running daemon: no connection is refused, reset or dropped, no acknowledged write is lost, two
//! processes never write the same data, and if the new binary is bad, the old one serves again by itself.
//!
//! A daemon asks for its [`Role`] with [`detect_role`], opens its data when it may, says that it is ready, and then takes
//! part in handoffs with [`Incumbent::serve`], for which it implements [`Drainable`].
//!
//! ARCHITECTURE.md says how the pieces fit; `docs/protocol.md` has the bytes.

pub mod channel;
pub mod error;
pub mod ffi;
pub mod limits;
pub mod participant;
pub mod protocol;
#[cfg(feature = "program")]
pub mod service;
pub mod supervisor;
pub mod sys;

pub use error::{Error, Result};
pub use participant::*;
pub use supervisor::{HandoffOutcome, OnIncumbentDeath, SpawnSpec, Supervisor, Verdict};
