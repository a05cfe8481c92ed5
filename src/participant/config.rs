//! What a daemon may choose.

use crate::error::{Error, Result};
use crate::limits::BUILD_ID_BYTES_MAX;
use crate::protocol::message::Mode;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What a daemon may choose before it asks for its role. Everything has a default.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub(super) control_path: Option<PathBuf>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) build_id: Vec<u8>,
    pub(super) ignore_forks: bool,
    pub(super) no_helper_thread: bool,
    pub(super) network_data_dir: bool,
    pub(super) transfer_required: bool,
    pub(super) mode: Mode,
    pub(super) before_wait: BeforeWait,
}

/// What runs before a call sleeps.
#[derive(Clone, Default)]
pub(super) struct BeforeWait(pub(super) Option<Arc<dyn Fn() + Send + Sync>>);

impl fmt::Debug for BeforeWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BeforeWait").field(&self.0.is_some()).finish()
    }
}

impl Config {
    /// Everything by default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where supervisors find this daemon. Default: `$HANDOFF_CONTROL`; with neither, there is no control socket.
    pub fn control_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.control_path = Some(path.into());
        self
    }

    /// The directory whose lock says who may write. Default: `$HANDOFF_DATA_DIR`; with neither, the lock is beside the
    /// control path, and without that, too, there is no lock and the daemon can not be replaced.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Which build this is, for people. Default: the ELF build id of the executable.
    ///
    /// # Errors
    /// More than 256 bytes.
    pub fn build_id(mut self, id: impl Into<Vec<u8>>) -> Result<Self> {
        self.build_id = id.into();
        if self.build_id.len() > BUILD_ID_BYTES_MAX {
            return Err(Error::TooBig(format!("a build id has at most {BUILD_ID_BYTES_MAX} bytes")));
        }
        Ok(self)
    }

    /// The seal does not wait for forked children that have neither exec'ed nor exited.
    pub fn ignore_forks(mut self, ignore: bool) -> Self {
        self.ignore_forks = ignore;
        self
    }

    /// No helper thread during a handoff: no heartbeats while the application is busy, and no abort is heard then.
    pub fn helper_thread(mut self, helper: bool) -> Self {
        self.no_helper_thread = !helper;
        self
    }

    /// Accept a data directory on NFS and the like, whose locks may not hold across hosts.
    pub fn network_data_dir(mut self, accept: bool) -> Self {
        self.network_data_dir = accept;
        self
    }

    /// Refuse a handoff to a successor that takes neither connections nor state, before anything is disturbed; by default it
    /// goes on without them.
    pub fn require_transfer(mut self, require: bool) -> Self {
        self.transfer_required = require;
        self
    }

    /// Whether this daemon and its successor may serve side by side. Default: [`Mode::Exclusive`].
    ///
    /// In [`Mode::Overlap`] it hears nothing of a handoff until its successor serves; then it drains, for the last time. It is neither
    /// sealed nor resumed, it takes the gate and no lock, and [`super::Writers::begin`] lets everybody in until it exits: two
    /// that may serve at once must get along in their data, too. A daemon has one mode, since the one needs the lock and the other must
    /// not have it.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Runs before a call sleeps, on the thread of the call, with nothing locked.
    pub fn before_wait(mut self, f: impl Fn() + Send + Sync + 'static) -> Self {
        self.before_wait = BeforeWait(Some(Arc::new(f)));
        self
    }

    pub(super) fn build_id_or_default(&self) -> Vec<u8> {
        match self.build_id.is_empty() {
            true => crate::sys::build_id::of_executable().unwrap_or_default().into_bytes(),
            false => self.build_id.clone(),
        }
    }
}
