//! How a daemon that does not link the library tells that it is ready, and waiting for that.

use crate::supervisor::health::{Health, Probe};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// What a daemon does when it is ready, if it does not link the library.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ReadySign {
    /// It sends `READY=1` to `NOTIFY_SOCKET` (sd_notify(3)).
    Notify,
    /// It writes a line end to this descriptor, as under s6.
    Descriptor(RawFd),
    /// It answers a probe.
    Health(Health),
    /// The caller says so.
    #[cfg(feature = "program")]
    Told,
    /// It does nothing: it is taken to be ready when this time has passed.
    Delay(Duration),
}

impl fmt::Display for ReadySign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Notify => f.write_str("notify"),
            Self::Descriptor(number) => write!(f, "fd={number}"),
            Self::Health(health) => write!(f, "health={health}"),
            #[cfg(feature = "program")]
            Self::Told => f.write_str("health"),
            Self::Delay(time) => write!(f, "delay={}ms", time.as_millis()),
        }
    }
}

/// A process whose readiness is waited for.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Watch {
    /// Of the process.
    pub(super) key: u64,
    pub(super) sign: Sign,
}

/// Where its readiness is seen.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) enum Sign {
    /// On the notification socket.
    Notify,
    /// Our end of the pipe.
    Pipe(#[serde(with = "crate::sys::inherit::fd")] File),
    Probe(Probe),
    /// In a word of the caller.
    #[cfg(feature = "program")]
    Told,
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

/// The two ends of a pipe for [`ReadySign::Descriptor`]: ours, which does not block, and the daemon's. That one can also be read, so that a daemon
/// that gets ready while there is no supervisor meets no pipe without a reader (SIGPIPE, pipe(7)), and its word is kept for the next one.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let both = File::options().read(true).write(true).open(format!("/proc/self/fd/{}", theirs.as_raw_fd()));
    Ok((ours, both.map_or(theirs, OwnedFd::from)))
}
