//! What a unit is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::read::RLIMITS;
use crate::limits::{
    CHECK_INTERVAL, CHECK_RETRIES, CHECK_TIMEOUT, DRAIN_GRACE, HANDOFF_DEADLINE, HELLO_TIMEOUT, LOG_BYTES,
    LOG_FILE_BYTES, LOG_FILES, LOG_LINES, MAX_DRAINING, READY_TIMEOUT, START_TIMEOUT, STOP_GRACE,
};
use crate::service::address::ListenSpec;
use crate::service::unit::restart::{Backoff, Policy, RestartLimit};
use crate::supervisor::{self, ReadySign};

/// A daemon, or a task that ends: all that its table says. A field has the name of its key; docs/units.md has their meaning.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "the keys are told in docs/units.md, once")]
pub struct Unit {
    pub exec: Command,
    pub listen: Vec<ListenSpec>,
    pub mode: Mode,
    pub ready: Ready,
    pub data_dir: Option<PathBuf>,
    pub dir: Option<PathBuf>,
    pub env: BTreeMap<String, String>,
    pub env_file: Option<PathBuf>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub umask: Option<u32>,
    #[serde(deserialize_with = "named_limits")]
    pub rlimits: BTreeMap<&'static str, Limit>,
    pub no_new_privs: bool,
    pub oom_score_adj: Option<i32>,
    pub autostart: bool,
    pub requires: Vec<Dependency>,
    pub wants: Vec<Dependency>,
    pub after: Vec<Dependency>,
    pub conflicts: Vec<String>,
    pub oneshot: bool,
    pub system: bool,
    pub pre_start: Option<Command>,
    pub post_stop: Option<Command>,
    pub stop: Vec<StopStep>,
    pub restart: Policy,
    pub backoff: Backoff,
    pub restart_limit: RestartLimit,
    pub start_timeout: Duration,
    pub health: Option<Health>,
    pub watchdog: Option<Duration>,
    pub probation: Option<Duration>,
    pub log: LogBudget,
    pub deadline: Duration,
    pub drain_grace: Duration,
    pub ready_timeout: Duration,
    pub hello_timeout: Duration,
    pub max_draining: usize,
}

/// The names are those of setrlimit(2).
fn named_limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<&'static str, Limit>, D::Error> {
    let limits = BTreeMap::<String, Limit>::deserialize(deserializer)?;
    let named = |(name, limit): (String, Limit)| {
        let known = RLIMITS.iter().find(|known| **known == name);
        known.map(|name| (*name, limit)).ok_or_else(|| D::Error::custom(format!("there is no limit '{name}' here")))
    };
    limits.into_iter().map(named).collect()
}

/// The keys of a unit whose values differ: exhaustive, since the pattern must name every field.
macro_rules! differing {
    ($old:expr, $new:expr, $($key:ident)*) => {{
        let Unit { $($key),* } = $old;
        let mut keys = Vec::new();
        $(if *$key != $new.$key { keys.push(stringify!($key)); })*
        keys
    }};
}

impl Unit {
    /// The keys whose values differ, as docs/units.md has them.
    pub fn differing_keys(&self, other: &Self) -> Vec<&'static str> {
        differing!(self, other,
            exec listen mode ready data_dir dir env env_file user group umask rlimits no_new_privs oom_score_adj autostart
            requires wants after conflicts oneshot system pre_start post_stop stop restart backoff restart_limit
            start_timeout health watchdog probation log deadline drain_grace ready_timeout hello_timeout max_draining)
    }

    /// What is required, wanted, or to be started before: all that orders its start.
    pub fn dependencies(&self) -> impl Iterator<Item = &Dependency> {
        self.requires.iter().chain(&self.wants).chain(&self.after)
    }
}

/// As if nothing was written.
impl Default for Unit {
    fn default() -> Self {
        Self {
            exec: Command::Argv(Vec::new()),
            listen: Vec::new(),
            mode: Mode::Handoff(supervisor::Mode::Exclusive),
            ready: Ready::Linked,
            data_dir: None,
            dir: None,
            env: BTreeMap::new(),
            env_file: None,
            user: None,
            group: None,
            umask: None,
            rlimits: BTreeMap::new(),
            no_new_privs: false,
            oom_score_adj: None,
            autostart: true,
            requires: Vec::new(),
            wants: Vec::new(),
            after: Vec::new(),
            conflicts: Vec::new(),
            oneshot: false,
            system: false,
            pre_start: None,
            post_stop: None,
            stop: StopStep::usual(Signal::SIGTERM),
            restart: Policy::OnFailure,
            backoff: Backoff::default(),
            restart_limit: RestartLimit::default(),
            start_timeout: START_TIMEOUT,
            health: None,
            watchdog: None,
            probation: None,
            log: LogBudget::default(),
            deadline: HANDOFF_DEADLINE,
            drain_grace: DRAIN_GRACE,
            ready_timeout: READY_TIMEOUT,
            hello_timeout: HELLO_TIMEOUT,
            max_draining: MAX_DRAINING,
        }
    }
}

/// A group of units.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// The units, and other targets, in it.
    pub units: Vec<String>,
}

/// What is executed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Command {
    /// A program and its arguments.
    Argv(Vec<String>),
    /// A line for `/bin/sh -c`.
    Shell(String),
}

/// How a process is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Mode {
    /// By a handoff in this mode.
    Handoff(supervisor::Mode),
    /// Not at all: it is stopped, and another one started.
    None,
}

/// When a process is ready.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Ready {
    /// It links the library, and says so.
    Linked,
    /// It gives this sign.
    Sign(ReadySign),
    /// It is well, as [`Unit::health`] finds it.
    Health,
}

/// Another unit, or all units of a target, and what must be true of it before.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Dependency {
    /// The name.
    pub unit: String,
    /// None: what [`Condition::of`] says.
    pub condition: Option<Condition>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Condition {
    /// It runs, and is ready.
    Started,
    /// Its health was asked for, and is good.
    Healthy,
    /// It has ended with status 0.
    Completed,
}

impl Condition {
    /// What is waited for if nothing is said: the end of what ends, the readiness of what goes on.
    pub fn of(unit: &Unit) -> Self {
        if unit.oneshot { Self::Completed } else { Self::Started }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
        }
    }
}

/// One step of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StopStep {
    /// What is sent.
    #[serde(with = "crate::sys::inherit::signal")]
    pub signal: Signal,
    /// How long its effect is waited for; none: until the end.
    pub wait: Option<Duration>,
}

impl StopStep {
    /// This signal, and SIGKILL some seconds later.
    pub fn usual(signal: Signal) -> Vec<Self> {
        vec![Self { signal, wait: Some(STOP_GRACE) }, Self { signal: Signal::SIGKILL, wait: None }]
    }
}

/// A limit of setrlimit(2), in the kernel's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limit {
    /// The soft limit; none: unlimited.
    pub soft: Option<u64>,
    /// The hard one; none: unlimited.
    pub hard: Option<u64>,
}

/// Whether a unit is well, and how often that is asked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Health {
    /// What is asked.
    pub check: Check,
    /// Between two questions.
    pub interval: Duration,
    /// An answer that comes later is none.
    pub timeout: Duration,
    /// So many bad ones in a row, and it is not well.
    pub retries: u32,
}

impl Health {
    /// This check, with the default times.
    pub fn new(check: Check) -> Self {
        Self { check, interval: CHECK_INTERVAL, timeout: CHECK_TIMEOUT, retries: CHECK_RETRIES }
    }
}

/// A question whether a unit is well.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Check {
    /// Over a socket.
    Socket(supervisor::Health),
    /// A command that must end with status 0.
    Exec(Command),
}

/// What is kept of a unit's output; whichever is reached first.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogBudget {
    /// Lines.
    pub lines: usize,
    /// Bytes.
    pub bytes: usize,
    /// Where it is written to files, too.
    pub dir: Option<PathBuf>,
    /// Bytes of a file, until another one is begun.
    pub file_bytes: u64,
    /// So many files.
    pub files: usize,
}

impl Default for LogBudget {
    fn default() -> Self {
        Self { lines: LOG_LINES, bytes: LOG_BYTES, dir: None, file_bytes: LOG_FILE_BYTES, files: LOG_FILES }
    }
}
