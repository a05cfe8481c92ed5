//! Both sides, for an application that is written in Rust.

use super::{StateBytes, TransferredConnection};
use crate::error::Result;
use crate::participant::handle::Participant;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What moves to the successor, and what came from the incumbent.
#[derive(Clone, Debug)]
pub struct Transfer(pub(in crate::participant) Arc<Participant>);

impl Transfer {
    /// Inside of a drain or a seal: [`Participant::put_connection`].
    ///
    /// # Errors
    /// The same.
    pub fn put_connection(&self, fd: impl AsFd, name: &str, state: &[u8]) -> Result<()> {
        self.0.put_connection(fd, name.as_bytes(), state)
    }

    /// Inside of a drain or a seal: [`Participant::put_state`].
    ///
    /// # Errors
    /// The same.
    pub fn put_state(&self, key: &str, data: &[u8]) -> Result<()> {
        self.0.put_state(key.as_bytes(), data)
    }

    /// Inside of a drain or a seal: [`Participant::put_state_fd`].
    ///
    /// # Errors
    /// The same.
    pub fn put_state_fd(&self, key: &str, fd: impl AsFd) -> Result<()> {
        self.0.put_state_fd(key.as_bytes(), fd)
    }

    /// Once this process serves: [`Participant::next_connection`].
    ///
    /// # Errors
    /// The same.
    pub fn next_connection(&self) -> Result<Option<TransferredConnection>> {
        self.0.next_connection()
    }

    /// Once the data may be opened: [`Participant::state`].
    ///
    /// # Errors
    /// The same.
    pub fn state(&self, key: &str) -> Result<StateBytes> {
        self.0.state(key.as_bytes())
    }

    /// Once the data may be opened: [`Participant::take_state_fd`].
    ///
    /// # Errors
    /// The same.
    pub fn take_state_fd(&self, key: &str) -> Result<OwnedFd> {
        self.0.take_state_fd(key.as_bytes())
    }
}
