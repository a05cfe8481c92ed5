//! Processes and waits for the tests of this directory.
//!
//! Tests run side by side, and a forked child of one holds copies of the descriptors of all
//! others for a while. So a test that closes something waits until the kernel says that the
//! close has come through, and a child is told to go on by a byte, never by an EOF.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::pidfd::Pidfd;

/// Waits until `fd` has one of `events` (or a hang-up). Panics after 20 s.
pub fn wait_for(fd: BorrowedFd<'_>, events: PollFlags) {
    let mut entry = [PollFd::new(fd, events)];
    loop {
        match poll(&mut entry, PollTimeout::from(20_000u16)) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(1) => return,
            other => panic!("nothing happened on descriptor {}: {other:?}", fd.as_raw_fd()),
        }
    }
}

/// A forked child that did not exec. It is killed and reaped at the latest when dropped.
pub struct Forked {
    pid: Pid,
    go: OwnedFd,
}

impl Forked {
    /// A child that waits for `release` and exits with 0.
    pub fn that_waits() -> Self {
        Self::start(|go| {
            let mut byte = 0u8;
            // SAFETY: read(2) is async-signal-safe; `byte` has room for one byte.
            unsafe { libc::read(go, (&raw mut byte).cast(), 1) };
            0
        })
    }

    /// A child that exits with what `f` gives. `f` must be async-signal-safe.
    pub fn that_runs(f: impl FnOnce() -> u8) -> Self {
        Self::start(|_| f())
    }

    fn start(f: impl FnOnce(i32) -> u8) -> Self {
        let (wait, go) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        // SAFETY: the child runs only async-signal-safe code, then _exit.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Self { pid: child, go },
            ForkResult::Child => {
                let code = f(wait.as_raw_fd());
                // SAFETY: _exit(2) may always be called.
                unsafe { libc::_exit(code.into()) }
            }
        }
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    pub fn pidfd(&self) -> Pidfd {
        Pidfd::open(self.pid()).unwrap()
    }

    /// Lets the child go; does not wait for its end.
    pub fn release(&self) {
        nix::unistd::write(&self.go, b"x").unwrap();
    }

    /// Waits for the child's end; its exit code.
    pub fn exit_code(self) -> i32 {
        match waitpid(self.pid, None).unwrap() {
            WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        // Not reaped yet, or this fails: nobody else gets the number before it is reaped.
        if let Ok(WaitStatus::StillAlive) = waitpid(self.pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
            let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// `cat`: an exec'ed child that does nothing, and that ends with this process at the latest.
pub struct Cat(std::process::Child);

impl Cat {
    pub fn start() -> Self {
        let mut command = Command::new("cat");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        // The kernel says "exec'ed" a moment before the process has its new name.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(child)
    }

    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub fn is_running(&self) -> bool {
        !Pidfd::open(self.pid()).unwrap().is_dead()
    }
}

impl Drop for Cat {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads until the end.
pub fn read_all(fd: impl AsFd) -> String {
    let mut text = String::new();
    std::fs::File::from(fd.as_fd().try_clone_to_owned().unwrap()).read_to_string(&mut text).unwrap();
    text
}
