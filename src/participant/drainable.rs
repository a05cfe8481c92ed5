//! What an application does for a handoff.

use crate::sys::clock::monotonic_ns;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Why a hook failed: any error, or a text.
pub type HookError = Box<dyn std::error::Error + Send + Sync>;

/// How a drain ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that are still open, and will be closed when the process exits.
    pub connections_open: u32,
    /// When this process stopped accepting, if it went on for a part of the drain; otherwise that is when the drain began.
    /// The outcome's pause starts here.
    pub accept_stopped: Option<Instant>,
}

/// How a seal ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealReport {
    /// The last revision of each shard. A successor that opens less is refused.
    pub revisions: Vec<u64>,
}

/// What the application holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateSnapshot {
    /// The last revision of each shard; as many as the incumbent sealed.
    pub revisions: Vec<u64>,
    /// For people: where it listens, how much it loaded.
    pub detail: String,
}

/// How long a hook may take, and whether its result is still wanted.
#[derive(Debug)]
pub struct Deadline<'a> {
    pub(super) deadline_ns: u64,
    pub(super) cancel: BorrowedFd<'a>,
    pub(super) after_commit: bool,
}

impl Deadline<'_> {
    /// Time left until the hook is late; zero when it is, or when its result is not wanted any more.
    pub fn remaining(&self) -> Duration {
        match self.is_cancelled() {
            true => Duration::ZERO,
            false => Duration::from_nanos(self.deadline_ns.saturating_sub(monotonic_ns())),
        }
    }

    /// Whether the successor serves already: overlap mode, see [`super::Config::mode`]. Such a drain can not be taken back, and
    /// its end, also that by its deadline, is the end of this process.
    pub fn is_after_commit(&self) -> bool {
        self.after_commit
    }

    /// Whether the result is not wanted any more.
    pub fn is_cancelled(&self) -> bool {
        let mut cancel = [PollFd::new(self.cancel.as_fd(), PollFlags::POLLIN)];
        poll(&mut cancel, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Readable when the result is not wanted any more: for an application with an event loop.
    pub fn cancel_fd(&self) -> BorrowedFd<'_> {
        self.cancel
    }
}

/// What an application does for a handoff. The library calls these on the thread that called
/// [`super::Incumbent::serve`], one at a time, and says that the process is alive while they run.
///
/// An error of `drain` or `seal` is no disaster: the handoff is rolled back, and `resume_after_abort` follows.
pub trait Drainable {
    /// Stop accepting, finish what is under way, make what was acknowledged durable. In overlap mode it comes once, after the
    /// commit ([`Deadline::is_after_commit`]), or twice ([`Self::connections`]), and nothing else does.
    ///
    /// # Errors
    /// The handoff is rolled back.
    fn drain(&mut self, deadline: &Deadline<'_>) -> Result<DrainReport, HookError>;

    /// Flush and close the writers. When this returns, the lock of the data directory is released: nothing of this process
    /// may write any more.
    ///
    /// # Errors
    /// The handoff is rolled back. The lock was not released.
    fn seal(&mut self, deadline: &Deadline<'_>) -> Result<SealReport, HookError>;

    /// The handoff was rolled back and the lock is held again: reopen the data and accept again.
    ///
    /// # Errors
    /// The process can not go on; it should exit, and its supervisor starts another one.
    fn resume_after_abort(&mut self) -> Result<(), HookError>;

    /// The successor had committed, and has died; the lock is held again: reopen the data and accept again. What was given to the
    /// successor may be half used: close these connections, and do not go on with them. Without this method, as
    /// [`Self::resume_after_abort`], which is enough if no connections were given.
    ///
    /// # Errors
    /// As [`Self::resume_after_abort`].
    fn resume_after_commit(&mut self) -> Result<(), HookError> {
        self.resume_after_abort()
    }

    /// The successor serves on probation, and this process is its reserve: close the connections that were given to it, or their
    /// clients see no end of them if the successor hangs up; without a shutdown(2), which both would feel. The data stays sealed. What
    /// follows is [`Self::resume_after_commit`], if the successor dies, or the end of [`super::Incumbent::serve`].
    fn parked(&mut self) {}

    /// The probation of the handoff that this process came by is over: nobody will take over from it, and the format on disk may be
    /// changed. It comes only if that handoff had a probation.
    fn confirmed(&mut self) {}

    /// Overlap mode: the process before this one drains, and has given connections: take them with
    /// [`super::Transfer::next_connection`]. It may come at the end of a last drain of this process, which then comes once more, to give
    /// them on.
    fn connections(&mut self) {}

    /// What the application holds now: a successor announces it when it is ready.
    fn snapshot_state(&self) -> StateSnapshot;
}
