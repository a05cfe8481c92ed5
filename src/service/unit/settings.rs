//! What is asked of a service.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::restart::Rules;
use crate::error::{Error, Result};
use crate::service::config::{self, LogBudget, StopStep};
use crate::service::paths::RuntimeDir;
use crate::service::task::TaskSpec;
use crate::supervisor::{ExecContext, Health, Mode, ReadySign, SpawnSpec};
use crate::sys::limits::hard_nofile;
use nix::sys::signal::Signal;

/// How a service is run.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// Its name, good for a file name ([`crate::service::paths::check_name`]).
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Its data directory, if it has one.
    pub data_dir: Option<PathBuf>,
    /// As whom and where it runs, and what runs around it.
    pub process: ProcessSettings,
    /// When it is started again.
    pub restart: Rules,
    /// How long it may take until it is ready, or done; none: as long as it likes.
    pub start_timeout: Option<Duration>,
    /// A task, which is done when it has ended with status 0.
    pub oneshot: bool,
    /// Of its start and its handoffs.
    pub times: Times,
    /// Whether a successor serves beside its predecessor for a while.
    pub mode: Mode,
    /// It is replaced by a handoff; or else it is stopped, and another one started.
    pub handoff: bool,
    /// How it tells that it is ready, if it does not link the library.
    pub readiness: Option<ReadySign>,
    /// What a process must answer during its probation.
    pub health: Option<Health>,
    /// Whether it is well, as long as it runs.
    pub check: Option<config::Health>,
    /// How often its process must say that it is alive, to `NOTIFY_SOCKET`.
    pub watchdog: Option<Duration>,
    /// How it is stopped: signals, each with the time for what comes of it. The last one is SIGKILL, without a time.
    pub stop: Vec<StopStep>,
    /// In overlap mode: how many processes that were replaced may serve their last clients at the same time.
    pub max_draining: usize,
    /// Its standard output is captured, too, and not only its standard error.
    pub capture_stdout: bool,
    /// What is kept of its output.
    pub log: LogBudget,
}

/// As whom and where a process of a service runs, and what runs around it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessSettings {
    /// The working directory; none: ours.
    pub dir: Option<PathBuf>,
    /// Variables beside ours. They win over those of `context`.
    pub env: Vec<(OsString, OsString)>,
    /// User, limits and the like.
    pub context: ExecContext,
    /// What must end with status 0 before each start.
    pub pre_start: Option<Vec<OsString>>,
    /// What runs after each end, and is told its cause.
    pub post_stop: Option<Vec<OsString>>,
}

impl ProcessSettings {
    /// A command that runs as the process does, with these variables more.
    pub(super) fn task(&self, argv: &[OsString], more: Vec<(OsString, OsString)>) -> TaskSpec {
        let env = self.env.iter().cloned().chain(more).collect();
        TaskSpec { argv: argv.to_vec(), env, dir: self.dir.clone(), context: self.context.clone() }
    }

    /// The same as a daemon. The control path of another user is in a directory of that user's own.
    pub(super) fn apply(&self, mut spec: SpawnSpec, name: &str, runtime: &RuntimeDir) -> SpawnSpec {
        spec = spec.context(self.context.clone()).ends_tree();
        spec = self.env.iter().fold(spec, |spec, (name, value)| spec.env(name, value));
        if let Some(dir) = &self.dir {
            spec = spec.working_dir(dir);
        }
        match self.context.user {
            Some(_) => spec.own_dir(runtime.own_dir(name)).control_path(runtime.own_control(name)),
            None => spec.control_path(runtime.control(name)),
        }
    }
}

impl Settings {
    /// What makes it stop.
    pub(super) fn stop_signal(&self) -> Signal {
        self.stop.first().map_or(Signal::SIGTERM, |step| step.signal)
    }

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
