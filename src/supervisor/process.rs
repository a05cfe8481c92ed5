//! A process that S has started.

use super::executable::Executable;
use super::journal::Identity;
#[cfg(feature = "program")]
use super::notify::Pulse;
use super::notify::Said;
use super::output::Output;
use super::spec::SpawnSpec;
#[cfg(feature = "program")]
use super::tree::Tree;
use super::unlinked::Former;
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::protocol::supervisor::Peer;
use crate::sys::control;
#[cfg(feature = "program")]
use crate::sys::descendants::release;
use crate::sys::fork::Withheld;
use crate::sys::pidfd::{ExitStatus, Pidfd};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use std::os::fd::AsFd;
use std::sync::Arc;

/// What a descriptor in the epoll belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Timer,
    Output,
    Cancel,
    Notify,
    Ready,
    Former,
    /// Nothing of the engine's: it belongs to who uses it.
    Also,
    Session(u64),
    Death(u64),
}

/// No key becomes that large.
const CANCEL: u64 = u64::MAX;
const NOTIFY: u64 = u64::MAX - 1;
const READY: u64 = u64::MAX - 2;
const FORMER: u64 = u64::MAX - 3;
const ALSO: u64 = u64::MAX - 4;

impl Token {
    pub(super) fn from_raw(raw: u64) -> Self {
        match (raw >> 1, raw & 1) {
            _ if raw == CANCEL => Self::Cancel,
            _ if raw == NOTIFY => Self::Notify,
            _ if raw == READY => Self::Ready,
            _ if raw == FORMER => Self::Former,
            _ if raw == ALSO => Self::Also,
            (0, 0) => Self::Timer,
            (0, _) => Self::Output,
            (key, 0) => Self::Session(key),
            (key, _) => Self::Death(key),
        }
    }

    pub(super) fn event(self) -> EpollEvent {
        let raw = match self {
            Self::Timer => 0,
            Self::Output => 1,
            Self::Cancel => CANCEL,
            Self::Notify => NOTIFY,
            Self::Ready => READY,
            Self::Former => FORMER,
            Self::Also => ALSO,
            Self::Session(key) => key << 1,
            Self::Death(key) => key << 1 | 1,
        };
        EpollEvent::new(EpollFlags::EPOLLIN, raw)
    }
}

/// What a process was when it died.
pub(super) enum Was {
    Peer(Peer),
    Leaving,
}

impl Was {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Peer(Peer::Successor) => "successor",
            Self::Peer(Peer::Incumbent | Peer::Parked) | Self::Leaving => "incumbent",
        }
    }
}

/// A child, from its exec to its end; or one of a supervisor before.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Process {
    /// Never used again, not zero.
    pub(super) key: u64,
    pub(super) pid: i32,
    pub(super) generation: u64,
    pub(super) pidfd: Pidfd,
    /// For the journal, if there is one.
    pub(super) identity: Option<Identity>,
    /// None once it has ended.
    pub(super) session: Option<Withheld<Channel>>,
    /// The session has ended, and the machine does not know it yet.
    pub(super) end_is_news: bool,
    #[serde(with = "crate::sys::inherit::shared")]
    pub(super) spec: Arc<SpawnSpec>,
    pub(super) output: Option<Output>,
    /// The leader of its session: it itself, unless it was started by something that is gone.
    pub(super) leader: i32,
    /// Those that were it before, and are not reaped.
    pub(super) former: Vec<Former>,
    /// What it said to `NOTIFY_SOCKET`.
    pub(super) said: Said,
    /// The same, of its life.
    #[cfg(feature = "program")]
    pub(super) pulse: Pulse,
    /// What it was started from, if that could be kept open.
    pub(super) executable: Option<Executable>,
    /// What descends from it.
    #[cfg(feature = "program")]
    pub(super) tree: Option<Tree>,
}

impl Process {
    /// Nothing more is known of it yet.
    pub(super) fn new(key: u64, pid: i32, pidfd: Pidfd, spec: Arc<SpawnSpec>) -> Self {
        Self {
            key,
            pid,
            generation: 0,
            pidfd,
            identity: None,
            session: None,
            end_is_news: false,
            spec,
            output: None,
            leader: pid,
            former: Vec::new(),
            said: Said::default(),
            #[cfg(feature = "program")]
            pulse: Pulse::default(),
            executable: None,
            #[cfg(feature = "program")]
            tree: None,
        }
    }

    /// Watches its death and its session.
    pub(super) fn watch(&self, epoll: &Epoll) -> nix::Result<()> {
        epoll.add(&self.pidfd, Token::Death(self.key).event())?;
        self.watch_session(epoll)
    }

    pub(super) fn watch_session(&self, epoll: &Epoll) -> nix::Result<()> {
        self.session.as_ref().map_or(Ok(()), |session| epoll.add(session, Token::Session(self.key).event()))
    }

    /// Closes the session. An epoll watches the description, of which others may hold duplicates: hence the explicit end.
    pub(super) fn close_session(&mut self, epoll: &Epoll) {
        if let Some(session) = self.session.take() {
            let _ = epoll.delete(&session);
        }
    }

    /// Forgets about its descriptors. A reaped pidfd stays readable for ever.
    pub(super) fn unwatch(&mut self, epoll: &Epoll) {
        self.close_session(epoll);
        let _ = epoll.delete(&self.pidfd);
    }

    /// Removes what it has left beside its control path. It is dead; a zombie's pid is still its own.
    pub(super) fn clean_up(&self, is_zombie: bool) {
        match (&self.spec.control_path, is_zombie) {
            (Some(path), true) => control::remove_temporaries(path, self.pid),
            (Some(path), false) => control::remove_dead_temporaries(path),
            (None, _) => {}
        }
    }

    /// What starts the same file again, whatever its path leads to by then.
    pub(super) fn pinned(&self) -> Arc<SpawnSpec> {
        match &self.executable {
            Some(executable) => Arc::new(self.spec.as_ref().clone().executable(executable.clone())),
            None => self.spec.clone(),
        }
    }

    /// The same, to go back to it from what is started now. Not after a way back: there is only one.
    pub(super) fn way_back(&self, next: &SpawnSpec) -> Option<Arc<SpawnSpec>> {
        next.executable.is_none().then(|| self.pinned())
    }

    /// Reaps it; its status, and the same for people.
    pub(super) fn reap(&mut self) -> (Option<ExitStatus>, String) {
        let status = self.pidfd.wait().unwrap_or_else(|_| self.status_of_stranger());
        // One that was no child of ours is not reaped here.
        #[cfg(feature = "program")]
        release(self.pid);
        let mut text = status.map_or_else(|| "unknown exit status".to_owned(), |status| status.to_string());
        if let Some(lines) = self.output.as_ref().and_then(Output::last_lines) {
            text = format!("{text}; its last output: {lines}");
        }
        (status, text)
    }

    /// How it ended, if it is not our child.
    fn status_of_stranger(&self) -> Option<ExitStatus> {
        self.identity.and_then(|own| self.pidfd.status_of_stranger(own.pid, own.start_time))
    }

    /// It is dead, not reaped, and did not exit by itself.
    pub(super) fn was_killed(&self) -> bool {
        let status = self.pidfd.zombie().or_else(|| self.status_of_stranger());
        status.is_some_and(|status| status.signal.is_some())
    }

    /// SIGKILL, and waits for the end.
    pub(super) fn kill_and_reap(&self) {
        let _ = self.pidfd.kill(Signal::SIGKILL);
        let mut entry = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        while poll(&mut entry, PollTimeout::NONE) == Err(Errno::EINTR) {}
        self.clean_up(self.pidfd.is_zombie());
        let _ = self.pidfd.wait();
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        self.pidfd.kill(signal).map_err(Error::system(format!("process {}", self.pid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_epoll() {
        for token in [
            Token::Timer,
            Token::Output,
            Token::Cancel,
            Token::Notify,
            Token::Ready,
            Token::Former,
            Token::Also,
            Token::Session(1),
            Token::Death(77),
        ] {
            assert_eq!(Token::from_raw(token.event().data()), token);
        }
    }
}
