//! The control path: where a supervisor that has no session finds the daemon.

use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::protocol::Message;
use crate::protocol::message::{Hello, Reject, RejectCode};
use crate::sys::control::{self, ControlListener, PreparedControl};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

/// The control socket, and where it is on its way to its path.
#[derive(Debug, Default)]
pub(super) struct Control {
    path: Option<PathBuf>,
    prepared: Option<PreparedControl>,
    listener: Option<ControlListener>,
}

impl Control {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, prepared: None, listener: None }
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

    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Greets everybody who connects, and says that adoption is not offered. An error: somebody waits who can not be
    /// accepted now.
    pub(super) fn greet(&self, hello: &Hello) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        while let Some((socket, peer)) = listener.accept()? {
            let uid = nix::unistd::geteuid().as_raw();
            let mut channel = Channel::new(socket);
            let refusal = if peer.uid == uid || peer.uid == 0 {
                let _ = channel.send(&Message::Hello(hello.clone()), &[]); // a peer that has gone harms nobody
                Reject { code: RejectCode::Unable, text: "this daemon can not be adopted yet".into() }
            } else {
                tracing::warn!(target: "handoff", pid = peer.pid, uid = peer.uid, "refused: another user connected to the control path");
                Reject { code: RejectCode::Uid, text: format!("user {} may not control this daemon", peer.uid) }
            };
            let _ = channel.send(&Message::Reject(refusal), &[]);
        }
        Ok(())
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
