//! What a library must know of forks in the program that it lives in.

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::fd::poll_now;
use super::proc;

/// Sockets at most that a forked child must not keep: sessions and control listeners of a few handles.
const SOCKETS_MAX: usize = 32;
const FREE: i32 = -1;

static SOCKETS: [AtomicI32; SOCKETS_MAX] = [const { AtomicI32::new(FREE) }; SOCKETS_MAX];
static EPOCH: AtomicU32 = AtomicU32::new(0);

/// How many forks lie between this process and the one that called [`watch_forks`]. A handle that remembers the
/// number of its making knows when it is used in a child.
pub fn epoch() -> u32 {
    EPOCH.load(Ordering::Relaxed)
}

/// From now on [`epoch`] changes in every child that fork(2) makes, and the sockets that are [withheld](withhold) are
/// closed there, before fork returns (pthread_atfork(3)). [`super::spawn::spawn`] does not count.
pub fn watch_forks() -> io::Result<()> {
    static REGISTERED: Mutex<bool> = Mutex::new(false);
    let mut registered = REGISTERED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !*registered {
        // SAFETY: the handler is a function and lives as long as the program (the library is linked with nodelete).
        let errno = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        *registered = true;
    }
    Ok(())
}

/// Keeps a socket from forked children, until [`release`]: its peer must see the end of this process, not of them.
pub fn withhold(fd: BorrowedFd<'_>) {
    for slot in &SOCKETS {
        if slot.compare_exchange(FREE, fd.as_raw_fd(), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

/// The socket is about to be closed.
pub fn release(fd: BorrowedFd<'_>) {
    for slot in &SOCKETS {
        if slot.compare_exchange(fd.as_raw_fd(), FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

/// A socket that is [withheld](withhold) for as long as it is here.
#[derive(Debug)]
pub struct Withheld<T: AsFd>(T);

impl<T: AsFd> Withheld<T> {
    /// From now on.
    pub fn new(socket: T) -> Self {
        withhold(socket.as_fd());
        Self(socket)
    }
}

impl<T: AsFd + Serialize> Serialize for Withheld<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: AsFd + Deserialize<'de>> Deserialize<'de> for Withheld<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::new)
    }
}

impl<T: AsFd> Deref for Withheld<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: AsFd> DerefMut for Withheld<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: AsFd> AsFd for Withheld<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<T: AsFd> Drop for Withheld<T> {
    fn drop(&mut self) {
        release(self.0.as_fd());
    }
}

/// Runs in the child of a threaded process: only async-signal-safe calls (signal-safety(7)).
extern "C" fn in_child() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
    // SAFETY: a literal path; dup3 onto a number that this process has open. The numbers stay open, so that the
    // handles that own them can close them later without hitting somebody else's descriptor.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for slot in &SOCKETS {
            let fd = slot.load(Ordering::Relaxed);
            if fd != FREE && null >= 0 {
                libc::dup3(null, fd, libc::O_CLOEXEC);
            }
        }
        if null >= 0 {
            libc::close(null);
        }
    }
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
        Ok(Self { read, write: Some(write) })
    }

    /// Closes this process's write end: from now on only children count, and later children
    /// are not seen.
    pub fn close_own_write_end(&mut self) {
        self.write = None;
    }

    /// Does it see children that are forked now?
    pub fn watches(&self) -> bool {
        self.write.is_some()
    }

    /// Have all children that were watched exec'ed or exited? Always false before
    /// [`close_own_write_end`](Self::close_own_write_end). An error of poll(2) counts as no.
    pub fn all_gone(&self) -> bool {
        poll_now(self.read.as_fd(), PollFlags::empty()).is_ok_and(|events| events.contains(PollFlags::POLLHUP))
    }
}

impl Witness {
    /// The children that are left, for people: "process 12 (worker)"; best effort, from /proc.
    pub fn living(&self) -> String {
        let own = std::process::id() as i32;
        let Ok(pipe) = std::fs::read_link(format!("/proc/self/fd/{}", self.read.as_raw_fd())) else {
            return String::new();
        };
        let has_it = |pid: &i32| {
            proc::descriptors(*pid)
                .any(|fd| std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|link| link == pipe))
        };
        let named = proc::pids()
            .filter(|pid| *pid != own)
            .filter(has_it)
            .map(|pid| format!("process {pid} ({})", proc::command(pid)));
        named.collect::<Vec<_>>().join(", ")
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
    use super::*;
    use crate::sys::testing::{Forked, wait_for};

    #[test]
    fn witness_sees_a_forked_child_until_it_exits() {
        let mut witness = Witness::new().unwrap();
        let child = Forked::that_waits();
        assert!(!witness.all_gone(), "this process has the write end");
        witness.close_own_write_end();
        assert!(!witness.all_gone(), "the child has the write end");
        assert!(witness.living().contains(&format!("process {} (", child.pid())));
        child.release();
        wait_for(witness.as_fd(), PollFlags::empty());
        assert_eq!(witness.living(), "");
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

    #[test]
    fn a_child_counts_the_fork_and_loses_withheld_sockets_but_no_number() {
        watch_forks().unwrap();
        watch_forks().unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        withhold(ours.as_fd());
        let before = epoch();
        let kept = ours.as_fd().as_raw_fd();
        let child = Forked::that_runs(move || {
            let link = std::fs::read_link(format!("/proc/self/fd/{kept}"));
            let closed = link.is_ok_and(|target| target == std::path::Path::new("/dev/null"));
            (epoch() - before) as u8 + 10 * u8::from(closed)
        });
        assert_eq!(child.exit_code(), 11);
        assert_eq!(epoch(), before);
        release(ours.as_fd());
        drop(ours);
        wait_for(theirs.as_fd(), PollFlags::POLLIN);
    }
}
