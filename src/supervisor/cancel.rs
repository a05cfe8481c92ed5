//! Giving up a handoff while another thread waits for its outcome.

use super::process::Token;
use crate::error::{Error, Result};
use nix::sys::epoll::Epoll;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::sync::Arc;

/// Ends the call that waits ([`super::Supervisor::perform_handoff`]), from another thread or a signal handler.
#[derive(Clone, Debug)]
pub struct Canceller(Arc<EventFd>);

/// Each program has its own.
pub(super) mod anew {
    use super::Canceller;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::supervisor) fn serialize<S: Serializer>(_: &Canceller, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }

    pub(in crate::supervisor) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Canceller, D::Error> {
        <()>::deserialize(deserializer)?;
        Canceller::unwatched().map_err(de::Error::custom)
    }
}

impl Canceller {
    pub(super) fn new(epoll: &Epoll) -> Result<Self> {
        let system = |errno: nix::Error| Error::system("cannot make an eventfd for the supervisor")(errno.into());
        let canceller = Self::unwatched().map_err(system)?;
        canceller.watch(epoll).map_err(system)?;
        Ok(canceller)
    }

    fn unwatched() -> nix::Result<Self> {
        EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(|fd| Self(Arc::new(fd)))
    }

    pub(super) fn watch(&self, epoll: &Epoll) -> nix::Result<()> {
        epoll.add(&*self.0, Token::Cancel.event())
    }

    /// What [`super::Supervisor::cancel`] does, to the call that is under way; what came before a call is forgotten when it
    /// begins. Async-signal-safe: one write(2).
    pub fn cancel(&self) {
        let _ = self.0.write(1); // only fails when it is readable already
    }

    /// Whether it was used since the last look.
    pub(super) fn take(&self) -> bool {
        self.0.read().is_ok()
    }
}
