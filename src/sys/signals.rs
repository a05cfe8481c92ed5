//! Signals as something to poll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that arrive at a descriptor instead of ending this process (signalfd(2)). They stay blocked when it is
/// dropped; a program that is started by [`super::spawn`] has none blocked.
#[derive(Debug)]
pub struct Signals(SignalFd);

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Which.
    pub signal: i32,
    /// The kernel sent it: for SIGHUP, the terminal is gone.
    pub from_kernel: bool,
    /// Who sent it, if it was a process.
    pub pid: u32,
}

impl Signals {
    /// Takes these signals, in this thread and in those that it starts: call it before any other thread runs. One that
    /// is ignored (nohup(1)) stays ignored.
    ///
    /// Resets SIGCHLD to its default: if it were ignored, as some parents leave it, exit codes would be lost.
    pub fn take(signals: &[Signal]) -> io::Result<Self> {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::SA_NOCLDSTOP, SigSet::empty());
        // SAFETY: the default disposition runs no code of ours.
        unsafe { sigaction(Signal::SIGCHLD, &default) }?;
        // The kernel queues an ignored signal once it is blocked.
        let set: SigSet = signals.iter().copied().filter(|signal| !is_ignored(*signal)).collect();
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next one; None if none waits.
    pub fn next(&self) -> io::Result<Option<Arrived>> {
        const SI_KERNEL: i32 = 0x80;
        let info = self.0.read_signal()?;
        Ok(info.map(|info| Arrived {
            signal: info.ssi_signo as i32,
            from_kernel: info.ssi_code == SI_KERNEL,
            pid: info.ssi_pid,
        }))
    }
}

fn is_ignored(signal: Signal) -> bool {
    // SAFETY: all-zero is a valid sigaction.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new disposition the call only fills in `now`.
    let asked = unsafe { libc::sigaction(signal as i32, std::ptr::null(), &mut now) };
    asked == 0 && now.sa_sigaction == libc::SIG_IGN
}

impl AsFd for Signals {
    /// Readable when a signal waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn a_signal_becomes_readable() {
        let signals = Signals::take(&[Signal::SIGUSR2]).unwrap();
        assert_eq!(signals.next().unwrap(), None);
        // To this thread: another one of the test program does not block it.
        raise(Signal::SIGUSR2).unwrap();
        let arrived = signals.next().unwrap().unwrap();
        assert_eq!((arrived.signal, arrived.from_kernel), (Signal::SIGUSR2 as i32, false));
        assert_eq!(arrived.pid, std::process::id());
    }
}
