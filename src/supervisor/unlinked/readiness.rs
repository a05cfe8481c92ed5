//! How a daemon that does not link the library tells that it is ready, and waiting for that.

use crate::supervisor::health::{Health, Probe};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

/// What a daemon does when it is ready, if it does not link the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadySign {
    /// It sends `READY=1` to `NOTIFY_SOCKET` (sd_notify(3)).
    Notify,
    /// It writes a line end to this descriptor, as under s6.
    Descriptor(RawFd),
    /// It answers a probe.
    Health(Health),
    /// It does nothing: it is taken to be ready when this time has passed.
    Delay(Duration),
}

impl fmt::Display for ReadySign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Notify => f.write_str("notify"),
            Self::Descriptor(number) => write!(f, "fd={number}"),
            Self::Health(health) => write!(f, "health={health}"),
            Self::Delay(time) => write!(f, "delay={}ms", time.as_millis()),
        }
    }
}

/// A process whose readiness is waited for.
#[derive(Debug)]
pub(super) struct Watch {
    /// Of the process.
    pub(super) key: u64,
    pub(super) sign: Sign,
}

/// Where its readiness is seen.
#[derive(Debug)]
pub(super) enum Sign {
    /// On the notification socket.
    Notify,
    /// Our end of the pipe.
    Pipe(File),
    Probe(Probe),
    /// When its time is over.
    Delay,
}

impl Sign {
    /// Reads what came through the pipe; whether there was a line end. `UnexpectedEof`: there will be none.
    pub(super) fn read_pipe(&mut self) -> io::Result<bool> {
        let Self::Pipe(pipe) = self else { return Ok(false) };
        let mut bytes = [0; 64];
        match pipe.read(&mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => Ok(bytes[..len].contains(&b'\n')),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The two ends of a pipe for [`ReadySign::Descriptor`]: ours, which does not block, and the daemon's.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((ours, theirs))
}
