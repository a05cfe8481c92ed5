//! The control path: where a supervisor that has no session finds the daemon.

use super::trace;
use crate::channel::{Channel, Incoming};
use crate::error::{Error, Result};
use crate::limits::{ASKING_MAX, HELLO_TIMEOUT};
use crate::protocol::Message;
use crate::protocol::message::{Hello, Reject, RejectCode, VERSION_MAX, VERSION_MIN, common_version};
use crate::sys::control::{self, ControlListener, PreparedControl};
use crate::sys::seqpacket::{Credentials, Seqpacket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The control socket, and where it is on its way to its path.
#[derive(Debug, Default)]
pub(super) struct Control {
    path: Option<PathBuf>,
    prepared: Option<PreparedControl>,
    listener: Option<ControlListener>,
    /// Who has connected, and has not said what for: the oldest first.
    asking: Vec<Asking>,
}

/// A supervisor without a session, or anybody else. It can not be waited for.
#[derive(Debug)]
struct Asking {
    channel: Channel,
    peer: Credentials,
    since: Instant,
}

impl Control {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, ..Self::default() }
    }

    /// Binds and listens under a temporary name.
    pub(super) fn prepare(&mut self) -> Result<()> {
        if let (Some(path), None) = (&self.path, &self.prepared) {
            self.prepared = Some(ControlListener::prepare(path).map_err(|error| Error::Invalid(error.to_string()))?);
        }
        Ok(())
    }

    /// Whether the path could be had at all, before anything is changed.
    pub(super) fn check(&self) -> Result<()> {
        self.path.as_deref().map_or(Ok(()), control::check).map_err(|error| Error::Invalid(error.to_string()))
    }

    /// Refuses to take the path from anybody but the daemon that is being replaced, if one is.
    pub(super) fn check_free(&self, incumbent: Option<i32>) -> Result<()> {
        let free = self.path.as_deref().map_or(Ok(()), |path| control::check_free(path, incumbent));
        free.map_err(|error| Error::Locked(error.to_string()))
    }

    /// Moves the socket to its path. May be called again after a failure.
    pub(super) fn publish(&mut self) -> Result<Option<BorrowedFd<'_>>> {
        if let Some(prepared) = &mut self.prepared {
            let listener = prepared.publish().map_err(|error| Error::Invalid(error.to_string()))?;
            self.prepared = None;
            self.listener = Some(listener);
            return Ok(self.listener.as_ref().map(AsFd::as_fd));
        }
        Ok(None)
    }

    /// Whether another process has taken the path since, or somebody has removed it.
    pub(super) fn is_lost(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| !listener.is_ours())
    }

    /// Whether the path leads to nobody any more, and another could be made.
    pub(super) fn is_dead(&self) -> bool {
        let nobody = |path: &Path| matches!(control::living_owner(path), Ok(None)) && control::check(path).is_ok();
        self.is_lost() && self.path.as_deref().is_some_and(nobody)
    }

    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Greets everybody who connects; those who may adopt this daemon are to be watched. With an error if somebody waits who
    /// can not be accepted now.
    pub(super) fn greet(&mut self, hello: &Hello) -> (Vec<BorrowedFd<'_>>, io::Result<()>) {
        self.asking.retain(|asking| asking.since.elapsed() < HELLO_TIMEOUT);
        let before = self.asking.len();
        let accepted = loop {
            match self.listener.as_ref().map_or(Ok(None), ControlListener::accept) {
                Ok(Some((socket, peer))) => self.asking.extend(welcome(socket, peer, hello)),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let excess = self.asking.len().saturating_sub(ASKING_MAX);
        self.asking.drain(..excess);
        let new = &self.asking[before.saturating_sub(excess)..];
        (new.iter().map(|asking| asking.channel.as_fd()).collect(), accepted)
    }

    /// The session of a supervisor that adopts this daemon, and the version to speak in it. The descriptor of one that has gone is closed here.
    pub(super) fn adopted(&mut self) -> Option<(Channel, u16)> {
        let mut index = 0;
        while let Some(asking) = self.asking.get_mut(index) {
            match asking.channel.receive() {
                Ok(Incoming::Nothing) => index += 1,
                Ok(Incoming::Message(Message::Adopt(adopt), ..)) => {
                    let mut asking = self.asking.remove(index);
                    let (min, max) = (adopt.version_min, adopt.version_max);
                    if let Some(version) = common_version(min, max) {
                        return Some((asking.channel, version));
                    }
                    let text = format!(
                        "the supervisor speaks protocol {min} to {max}, the daemon {VERSION_MIN} to {VERSION_MAX}"
                    );
                    refuse(&mut asking.channel, RejectCode::Version, text);
                }
                Ok(Incoming::Message(message, ..)) => {
                    let Asking { mut channel, peer, .. } = self.asking.remove(index);
                    trace::dropped(&message, Some(peer.pid), "not the way to adopt a daemon");
                    refuse(&mut channel, RejectCode::Unable, format!("Adopt was expected, not {}", message.name()));
                }
                Ok(Incoming::End) | Err(_) => drop(self.asking.remove(index)),
            }
        }
        None
    }

    /// In a forked child: the temporary name belongs to the parent.
    pub(super) fn forget(&mut self) {
        std::mem::forget(self.prepared.take());
    }

    /// This process will never serve: its temporary name goes.
    pub(super) fn discard(&mut self) {
        self.prepared = None;
    }
}

fn welcome(socket: Seqpacket, peer: Credentials, hello: &Hello) -> Option<Asking> {
    let own = nix::unistd::geteuid().as_raw();
    let mut channel = Channel::new(socket);
    if peer.uid != own && peer.uid != 0 {
        tracing::warn!(target: "handoff", pid = peer.pid, uid = peer.uid, "refused: another user connected to the control path");
        refuse(&mut channel, RejectCode::Uid, format!("user {} may not control this daemon", peer.uid));
        return None;
    }
    let greeted = channel.send(&Message::Hello(hello.clone()), &[]);
    greeted.ok().map(|()| Asking { channel, peer, since: Instant::now() })
}

/// A peer that has gone harms nobody.
fn refuse(channel: &mut Channel, code: RejectCode, text: String) {
    let _ = channel.send(&Message::Reject(Reject { code, text }), &[]);
}
