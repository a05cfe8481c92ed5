//! Thin safe wrappers over the kernel. They know nothing of the protocol.
//!
//! Every descriptor made here is close-on-exec. Linux 5.10 is the floor.

pub mod build_id;
#[cfg(feature = "program")]
pub(crate) mod cgroup;
pub mod clock;
pub mod control;
pub mod crash;
#[cfg(feature = "program")]
pub mod descendants;
pub mod env;
pub mod fd;
pub mod fork;
pub mod inherit;
pub mod limits;
pub mod listener;
pub(crate) mod listing;
pub mod lock;
pub(crate) mod look;
pub mod memfd;
pub mod notify;
pub mod page;
pub mod pidfd;
pub(crate) mod proc;
pub mod program;
pub mod reap;
#[cfg(feature = "program")]
pub mod reexec;
pub mod seqpacket;
pub mod session;
pub mod signals;
pub mod spawn;
pub mod terminal;
pub mod timers;
pub mod unix_diag;

#[cfg(test)]
mod testing;
