//! Replaces the binary of a running daemon.
pub mod channel;
pub mod error;
pub mod ffi;
pub mod limits;
pub mod participant;
pub mod protocol;
pub mod sys;
