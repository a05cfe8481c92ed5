//! Thin safe wrappers over the kernel. They know nothing of the protocol.
//!
//! Every descriptor made here is close-on-exec. Linux 5.10 is the floor.

pub mod build_id;
pub mod clock;
pub mod control;
pub mod crash;
pub mod env;
pub mod fd;
pub mod fork;
pub mod limits;
pub mod listener;
pub mod lock;
pub mod memfd;
pub mod notify;
pub mod page;
pub mod pidfd;
pub(crate) mod proc;
mod program;
pub mod seqpacket;
pub mod session;
pub mod signals;
pub mod spawn;
pub mod terminal;
pub mod timers;
pub mod unix_diag;

#[cfg(test)]
mod testing;
