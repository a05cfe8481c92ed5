//! Replaces the binary of a running daemon.
pub mod error;
pub mod limits;
pub mod protocol;
pub mod sys;
