//! What a library must know of forks in the program that it lives in.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use nix::fcntl::OFlag;
use nix::poll::PollFlags;

use super::fd::poll_now;

/// Has `f` called in every child that fork(2) makes from now on, before fork returns there
/// (pthread_atfork(3)).
///
/// Only the first call of a process registers; later ones do nothing, whatever their `f`,
/// because there is no way to take a handler back. `f` runs in a child of a threaded process:
/// it may do what is async-signal-safe and nothing else. [`super::spawn::spawn`] does not call
/// it.
pub fn on_fork_in_child(f: extern "C" fn()) -> io::Result<()> {
    static REGISTERED: Mutex<bool> = Mutex::new(false);
    let mut registered = REGISTERED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if !*registered {
        // SAFETY: `f` is a function and lives as long as the program (the library is linked
        // with nodelete).
        let errno = unsafe { libc::pthread_atfork(None, None, Some(f)) };
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        *registered = true;
    }
    Ok(())
}

/// Tells whether children that were forked, and neither exec'ed nor exited, are left.
///
/// It is a pipe whose close-on-exec write end every child inherits. When this process has
/// closed its own, the read end hangs up with the last such child.
#[derive(Debug)]
pub struct Witness {
    read: OwnedFd,
    write: Option<OwnedFd>,
}

impl Witness {
    /// Watches the children forked from now on (pipe2(2)).
    pub fn new() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        Ok(Self {
            read,
            write: Some(write),
        })
    }

    /// Closes this process's write end: from now on only children count, and later children
    /// are not seen.
    pub fn close_own_write_end(&mut self) {
        self.write = None;
    }

    /// Have all children that were watched exec'ed or exited? Always false before
    /// [`close_own_write_end`](Self::close_own_write_end). An error of poll(2) counts as no.
    pub fn all_gone(&self) -> bool {
        poll_now(self.read.as_fd(), PollFlags::empty())
            .is_ok_and(|events| events.contains(PollFlags::POLLHUP))
    }
}

impl AsFd for Witness {
    /// The read end: `POLLHUP` when all are gone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::sys::testing::{Forked, wait_for};

    #[test]
    fn witness_sees_a_forked_child_until_it_exits() {
        let mut witness = Witness::new().unwrap();
        let child = Forked::that_waits();
        assert!(!witness.all_gone(), "this process has the write end");
        witness.close_own_write_end();
        assert!(!witness.all_gone(), "the child has the write end");
        child.release();
        wait_for(witness.as_fd(), PollFlags::empty());
        assert!(witness.all_gone());
    }

    #[test]
    fn witness_does_not_see_an_execed_child() {
        let mut witness = Witness::new().unwrap();
        let cat = crate::sys::testing::Cat::start();
        witness.close_own_write_end();
        wait_for(witness.as_fd(), PollFlags::empty());
        assert!(witness.all_gone());
        assert!(cat.is_running());
    }

    static CALLS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn count() {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    extern "C" fn never() {
        CALLS.fetch_add(1000, Ordering::Relaxed);
    }

    #[test]
    fn handler_runs_in_the_child_only_and_once() {
        on_fork_in_child(count).unwrap();
        on_fork_in_child(never).unwrap();
        let before = CALLS.load(Ordering::Relaxed);
        let child = Forked::that_runs(|| CALLS.load(Ordering::Relaxed) as u8);
        assert_eq!(child.exit_code(), before as i32 + 1);
        assert_eq!(CALLS.load(Ordering::Relaxed), before);
    }
}
