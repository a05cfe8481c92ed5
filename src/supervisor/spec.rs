//! What to start, and how long each step of it may take.

#[cfg(feature = "program")]
use super::context::ExecContext;
use super::executable::Executable;
use super::health::Health;
use super::unlinked::{ReadySign, UNLINKED};
use crate::error::{Error, Result};
use crate::limits::{DRAIN_GRACE, HANDOFF_DEADLINE, HEALTH_VERDICT, HELLO_TIMEOUT, READY_TIMEOUT};
use crate::protocol::message::Mode;
use crate::protocol::supervisor::OnIncumbentDeath;
use crate::sys::lock::LockPaths;
use crate::sys::spawn::{Attributes, find_program};
use nix::sys::signal::Signal;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A program, its arguments and environment, and the times of its handoff.
///
/// The child gets the environment of the supervisor (without `LISTEN_*` and `HANDOFF_*`, which describe the supervisor's
/// own start), then the additions, then the variables of the protocol. Its stdin is /dev/null, it leads a session of its
/// own, its signal dispositions are the default ones and no signal is blocked; user, umask, nice and limits are the
/// supervisor's (see [`super::Supervisor::new`] for the limit on descriptors).
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct SpawnSpec {
    pub(super) argv: Vec<OsString>,
    pub(super) binary: Option<PathBuf>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) dir: Option<PathBuf>,
    pub(super) deadline: Duration,
    pub(super) drain_grace: Duration,
    pub(super) hello_timeout: Duration,
    pub(super) ready_timeout: Duration,
    pub(super) probation: Duration,
    pub(super) health: Option<Health>,
    pub(super) on_incumbent_death: OnIncumbentDeath,
    pub(super) mode: Mode,
    pub(super) readiness: Option<ReadySign>,
    #[serde(with = "crate::sys::inherit::signal")]
    pub(super) stop_signal: Signal,
    pub(super) control_path: Option<PathBuf>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) capture: Option<Capture>,
    pub(super) executable: Option<Executable>,
    #[cfg(feature = "program")]
    pub(super) context: ExecContext,
    /// The directory of the control path, if it belongs to the user that the daemon runs as.
    #[cfg(feature = "program")]
    pub(super) own_dir: Option<PathBuf>,
    /// What it leaves behind ends with it, wherever it has gone.
    #[cfg(feature = "program")]
    pub(super) ends_tree: bool,
}

/// What one start of a program needs beside [`Spawn`](crate::sys::spawn::Spawn)'s usual.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) attributes: Attributes,
    /// Variables of the user, then those of a file: what comes later wins.
    pub(crate) env: Vec<(OsString, OsString)>,
}

/// Where the output of a process goes.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Capture {
    pub(super) dir: PathBuf,
    pub(super) stdout: bool,
}

impl SpawnSpec {
    /// A program with its arguments, its own name as the first (`argv[0]`, which is also searched in `PATH`).
    pub fn new(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            binary: None,
            env: Vec::new(),
            dir: None,
            deadline: HANDOFF_DEADLINE,
            drain_grace: DRAIN_GRACE,
            hello_timeout: HELLO_TIMEOUT,
            ready_timeout: READY_TIMEOUT,
            probation: Duration::ZERO,
            health: None,
            on_incumbent_death: OnIncumbentDeath::default(),
            mode: Mode::Exclusive,
            readiness: None,
            stop_signal: Signal::SIGTERM,
            control_path: None,
            data_dir: None,
            capture: None,
            executable: None,
            #[cfg(feature = "program")]
            context: ExecContext::default(),
            #[cfg(feature = "program")]
            own_dir: None,
            #[cfg(feature = "program")]
            ends_tree: false,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.argv.push(arg.into());
        self
    }

    /// The file to execute; default `argv[0]`. Without a slash it is searched in `PATH`. It is resolved anew each time.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Executes this file, whatever its path leads to by now.
    #[must_use]
    pub fn executable(mut self, executable: Executable) -> Self {
        self.binary = Some(executable.path().to_owned());
        self.executable = Some(executable);
        self
    }

    /// Sets a variable in the child's environment. `LISTEN_*` and `HANDOFF_*` belong to the protocol and are refused.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The child's working directory; default: the supervisor's.
    #[must_use]
    pub fn working_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// The whole handoff, or a cold start until the caller hears [`super::Verdict::Undecided`]; default 300 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long the incumbent may drain; default 60 s.
    #[must_use]
    pub fn drain_grace(mut self, grace: Duration) -> Self {
        self.drain_grace = grace;
        self
    }

    /// From the start of the process to its Hello; default 10 s. After a cold start, a daemon that is silent for this long
    /// is taken for one that does not link the library.
    #[must_use]
    pub fn hello_timeout(mut self, timeout: Duration) -> Self {
        self.hello_timeout = timeout;
        self
    }

    /// From Begin to Ready; default 60 s.
    #[must_use]
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// How long the incumbent stays as a reserve after the commit; default: not at all. It is sealed and holds no lock. If
    /// the successor dies in this time it takes over, with everything that the successor has written; unless that changed the
    /// format on disk: then there is no probation.
    #[must_use]
    pub fn probation(mut self, time: Duration) -> Self {
        self.probation = time;
        self
    }

    /// What the successor must answer during its [`Self::probation`]: it is asked every second, and if it fails three times in a row,
    /// it is ended as by [`super::Supervisor::condemn`]. An answer counts only if it comes from the process itself, or from one of its
    /// session. When the probation is over it is asked once more, and stays only if it answers; the reserve waits for that. Default:
    /// nothing is asked.
    #[cfg(feature = "program")]
    #[must_use]
    pub fn health(mut self, health: Health) -> Self {
        self.health = Some(health);
        self
    }

    /// Whom to trust if the incumbent dies before it has sealed; default: its own program, started cold.
    #[must_use]
    pub fn on_incumbent_death(mut self, what: OnIncumbentDeath) -> Self {
        self.on_incumbent_death = what;
        self
    }

    /// Whether N serves beside O for a while; default: never. Two daemons that do not link the library can only be replaced
    /// in that way, and by a sign that they are ready.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// How a daemon that does not link the library tells that it is ready; default: it is up after the Hello timeout, and
    /// can not be replaced.
    #[cfg(feature = "program")]
    #[must_use]
    pub fn readiness(mut self, readiness: ReadySign) -> Self {
        self.readiness = Some(readiness);
        self
    }

    /// What tells a daemon that does not link the library to finish what it has accepted and to exit; default SIGTERM.
    #[must_use]
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.stop_signal = signal;
        self
    }

    /// How long the incumbent must be able to take over: also while the last answer of its successor is waited for.
    pub(super) fn park_time(&self) -> Duration {
        let asked = self.asked().is_some() && !self.probation.is_zero();
        self.probation.saturating_add(if asked { HEALTH_VERDICT } else { Duration::ZERO })
    }

    /// What the successor must answer.
    pub(super) fn asked(&self) -> Option<&Health> {
        self.health.as_ref().filter(|_| UNLINKED)
    }

    /// How a daemon that does not link the library tells that it is ready.
    pub(super) fn ready_sign(&self) -> Option<&ReadySign> {
        self.readiness.as_ref().filter(|_| UNLINKED)
    }

    /// The number that the daemon writes to when it is ready.
    pub(super) fn ready_descriptor(&self) -> Option<RawFd> {
        match self.ready_sign() {
            Some(ReadySign::Descriptor(number)) => Some(*number),
            _ => None,
        }
    }

    /// The daemon's control socket (`HANDOFF_CONTROL`).
    #[must_use]
    pub fn control_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.control_path = Some(path.into());
        self
    }

    /// The daemon's data directory (`HANDOFF_DATA_DIR`).
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// The locks of the daemon's data, or of its control path if it has none; None if it has neither.
    pub(super) fn lock_paths(&self) -> Option<LockPaths> {
        LockPaths::locate(self.data_dir.as_deref(), self.control_path.as_deref())
    }

    /// Sends stderr to a file in `dir` that the supervisor follows ([`super::Event::Output`], and the last lines in the
    /// reasons of outcomes); default: inherited. The daemon neither blocks nor gets EPIPE when the supervisor is gone.
    #[cfg(feature = "program")]
    #[must_use]
    pub fn capture_stderr(mut self, dir: impl Into<PathBuf>) -> Self {
        self.capture = Some(Capture { dir: dir.into(), stdout: false });
        self
    }

    /// The same for stdout and stderr, each in a file of its own: their order is only kept as far as they are read.
    #[cfg(feature = "program")]
    #[must_use]
    pub fn capture_output(mut self, dir: impl Into<PathBuf>) -> Self {
        self.capture = Some(Capture { dir: dir.into(), stdout: true });
        self
    }

    /// Where the output goes. Nobody but the program asks for that, and a library without it has no code for it.
    pub(super) fn capture(&self) -> Option<&Capture> {
        self.capture.as_ref().filter(|_| cfg!(feature = "program"))
    }

    /// As whom it is executed.
    #[cfg(feature = "program")]
    #[must_use]
    pub(crate) fn context(mut self, context: ExecContext) -> Self {
        self.context = context;
        self
    }

    /// Its control path is in this directory, which belongs to the user that it runs as.
    #[cfg(feature = "program")]
    #[must_use]
    pub(crate) fn own_dir(mut self, dir: PathBuf) -> Self {
        self.own_dir = Some(dir);
        self
    }

    /// What it leaves behind ends with it, wherever it has gone: see [`super::tree`].
    #[cfg(feature = "program")]
    #[must_use]
    pub(crate) fn ends_tree(mut self) -> Self {
        self.ends_tree = true;
        self
    }

    /// For one start.
    #[cfg(feature = "program")]
    pub(super) fn resolve(&self) -> Result<Resolved> {
        self.context.resolve()
    }

    #[cfg(not(feature = "program"))]
    pub(super) fn resolve(&self) -> Result<Resolved> {
        Ok(Resolved::default())
    }

    /// The file that would be executed now. Only execve(2) itself knows whether its architecture is right and its
    /// interpreter there; that, too, is known before anything is disturbed.
    ///
    /// # Errors
    /// [`Error::Invalid`]: no argument, or a name that can not be used. [`Error::System`] of the kinds `NotFound`,
    /// `PermissionDenied`, `IsADirectory`: the program.
    pub fn check(&self) -> Result<PathBuf> {
        let Some(name) = self.argv.first() else {
            return Err(Error::Invalid("no program: argv is empty".into()));
        };
        for (variable, _) in &self.env {
            check_variable(variable)?;
        }
        if let Some(dir) = self.dir.as_deref().filter(|dir| !dir.is_dir()) {
            let source = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(Error::System { what: format!("working directory {}", dir.display()), source });
        }
        if let Some(executable) = &self.executable {
            return Ok(executable.place());
        }
        let name = self.binary.as_deref().map_or(name.as_os_str(), Path::as_os_str);
        let program = find_program(name).map_err(Error::system("cannot execute"))?;
        // The child resolves a relative path in its own directory.
        if self.dir.is_some() {
            std::path::absolute(&program).map_err(Error::system("current directory"))
        } else {
            Ok(program)
        }
    }

    /// The program's name for people and for files, if nobody gave the service one.
    pub(super) fn service(&self) -> String {
        let name = self.binary.as_deref().or_else(|| self.argv.first().map(Path::new));
        let name = name.and_then(Path::file_name).unwrap_or(OsStr::new("daemon"));
        name.to_string_lossy().into_owned()
    }
}

/// The environment of a child: ours, without what is left out and without what describes our own start, and with these instead.
/// What comes later wins.
pub(crate) fn environment<'a>(
    additions: impl Iterator<Item = &'a (OsString, OsString)>,
    left_out: impl Fn(&OsStr) -> bool,
) -> Vec<(OsString, OsString)> {
    let mut env: Vec<_> = env::vars_os().filter(|(name, _)| !is_reserved(name) && !left_out(name)).collect();
    for (name, value) in additions {
        env.retain(|(other, _)| other != name);
        env.push((name.clone(), value.clone()));
    }
    env
}

/// Whether the protocol owns this variable.
pub(super) fn is_reserved(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"HANDOFF_") || matches!(name, b"LISTEN_FDS" | b"LISTEN_FDNAMES" | b"LISTEN_PID")
}

/// Whether a variable of this name can be set for a child.
pub(crate) fn check_variable(name: &OsStr) -> Result<()> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.iter().any(|byte| matches!(byte, b'=' | 0)) {
        return Err(Error::Invalid(format!("{:?} can not be the name of a variable", name)));
    }
    if is_reserved(name) {
        return Err(Error::Invalid(format!("the variable {} belongs to the protocol", name.display())));
    }
    Ok(())
}
