//! What is asked of a service.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::restart::Policy;
use crate::error::{Error, Result};
use crate::supervisor::{Health, Mode, ReadySign, SpawnSpec};
use crate::sys::limits::hard_nofile;
use nix::sys::signal::Signal;

/// How a service is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name, good for a file name ([`super::paths::check_name`]).
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Its data directory, if it has one.
    pub data_dir: Option<PathBuf>,
    /// When it is started again.
    pub restart: Policy,
    /// Of its start and its handoffs.
    pub times: Times,
    /// Whether a successor serves beside its predecessor for a while.
    pub mode: Mode,
    /// How it tells that it is ready, if it does not link the library.
    pub readiness: Option<ReadySign>,
    /// What a process must answer during its probation.
    pub health: Option<Health>,
    /// What makes it stop.
    pub stop_signal: Signal,
    /// In overlap mode: how many processes that were replaced may serve their last clients at the same time.
    pub max_draining: usize,
}

impl Settings {
    /// The program that would be executed now, or why there is none.
    ///
    /// # Errors
    /// [`Error::System`] of the kinds `NotFound`, `PermissionDenied`, `IsADirectory`.
    pub fn check_program(&self) -> Result<PathBuf> {
        SpawnSpec::new(&self.argv).check()
    }

    /// Whether a process could have the descriptor that its readiness is seen on (`RLIMIT_NOFILE`, getrlimit(2)).
    ///
    /// # Errors
    /// [`Error::Limit`]: it could not.
    pub fn check_readiness(&self) -> Result<()> {
        let Some(ReadySign::Descriptor(number)) = self.readiness else { return Ok(()) };
        let limit = hard_nofile().map_err(Error::system("RLIMIT_NOFILE"))?;
        if u64::try_from(number).is_ok_and(|number| number < limit) {
            return Ok(());
        }
        Err(Error::Limit(format!(
            "--ready fd={number}: a process has {limit} descriptors here at most (RLIMIT_NOFILE, ulimit -Hn): write a \
             smaller number"
        )))
    }
}

/// How long the steps of a start or a handoff may take; none: the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// All of it.
    pub deadline: Option<Duration>,
    /// The drain.
    pub drain_grace: Option<Duration>,
    /// From Begin to Ready.
    pub ready: Option<Duration>,
    /// From exec to Hello.
    pub hello: Option<Duration>,
    /// How long the process that was replaced stays as a reserve.
    pub probation: Option<Duration>,
}

impl Times {
    /// These, and `other` where there is none.
    pub fn or(self, other: Self) -> Self {
        Self {
            deadline: self.deadline.or(other.deadline),
            drain_grace: self.drain_grace.or(other.drain_grace),
            ready: self.ready.or(other.ready),
            hello: self.hello.or(other.hello),
            probation: self.probation.or(other.probation),
        }
    }

    pub(super) fn apply(self, mut spec: SpawnSpec) -> SpawnSpec {
        if let Some(time) = self.deadline {
            spec = spec.deadline(time);
        }
        if let Some(time) = self.drain_grace {
            spec = spec.drain_grace(time);
        }
        if let Some(time) = self.ready {
            spec = spec.ready_timeout(time);
        }
        if let Some(time) = self.hello {
            spec = spec.hello_timeout(time);
        }
        if let Some(time) = self.probation {
            spec = spec.probation(time);
        }
        spec
    }
}

/// What is asked of an upgrade.
#[derive(Clone, Debug, Default)]
pub struct Upgrade {
    /// The program to execute, with the arguments of before; none: the same again, its path resolved anew.
    pub binary: Option<PathBuf>,
    /// If the incumbent dies before it has sealed, the successor recovers the data; else the incumbent's program is started
    /// again.
    pub promote: bool,
    /// Also if this program has failed a probation.
    pub force: bool,
    /// Where they differ from the service's own.
    pub times: Times,
    /// What to do when [`Settings::max_draining`] processes drain.
    pub when_draining: WhenDraining,
}

/// What an upgrade does when as many processes drain as may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenDraining {
    /// Waits for the end of one, but not longer than its deadline.
    #[default]
    Wait,
    /// Is refused.
    Refuse,
    /// Ends the oldest.
    Cut,
}
