//! Replaces the binary of a running daemon.
pub mod channel;
pub mod error;
pub mod limits;
pub mod protocol;
pub mod service;
pub mod supervisor;
pub mod sys;

pub use error::{Error, Result};
pub use supervisor::{Event, HandoffOutcome, OnIncumbentDeath, SpawnSpec, Status, Supervisor, Verdict};
