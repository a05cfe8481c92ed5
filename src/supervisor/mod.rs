//! The driver of S: holds the listeners of one service, starts its processes and replaces them.
//!
//! [`Supervisor`] has two forms of use. [`Supervisor::perform_handoff`] blocks until the outcome. A program with a loop of
//! its own calls [`Supervisor::start`], polls the supervisor's descriptor for reading and calls [`Supervisor::turn`] when
//! it is readable; nothing but the start of a process (a clone and an exec) ever waits there.

mod actions;
mod attempt;
mod awaited;
mod blocking;
mod cancel;
mod engine;
mod executable;
mod health;
mod journal;
mod leaving;
mod listeners;
mod notify;
mod outcome;
mod output;
mod probation;
mod process;
mod rendezvous;
mod resume;
mod spec;
mod start;
mod trace;
mod unlinked;

pub use crate::protocol::message::Mode;
pub use crate::protocol::supervisor::{OnIncumbentDeath, Verdict};
pub use crate::sys::pidfd::ExitStatus;
#[cfg(feature = "program")]
pub(crate) use awaited::Awaited;
pub use cancel::Canceller;
pub use executable::Executable;
pub use health::{Health, HealthAddress};
pub use notify::Said;
pub use outcome::{HandoffOutcome, verdict_name};
pub use spec::SpawnSpec;
pub use unlinked::ReadySign;

use crate::error::{Error, Result};
use crate::protocol::supervisor::{Input, Phase};
use crate::sys::limits::raise_nofile;
use engine::Engine;
use journal::Journal;
use nix::sys::signal::Signal;
use notify::Notify;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use unlinked::WAITING;

/// What happened; see [`Supervisor::turn`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A handoff or a cold start has come to this phase (the names of `handoff status`).
    Phase(&'static str),
    /// The drain, the seal or the successor's initialisation progresses, in the application's own unit.
    Progress {
        /// How much of it is done.
        done: u64,
        /// Of how much.
        total: u64,
    },
    /// How it ended. A second outcome of the same id corrects the first: after [`Verdict::Undecided`], or
    /// [`Verdict::Reverted`] after [`Verdict::Committed`].
    Outcome(HandoffOutcome),
    /// The process that served, or started cold, has died, and no handoff was under way that deals with it: nobody serves
    /// now. Whether to [`Supervisor::start`] again is the caller's decision. After a cold start that failed it follows
    /// the [`Event::Outcome`].
    Exited {
        /// Its pid.
        pid: i32,
        /// Which process of the service it was.
        generation: u64,
        /// How it ended; the program that started it reaps it. None if the kernel does not tell (`SIGCHLD` ignored).
        status: Option<ExitStatus>,
        /// The same for people, with its last lines of stderr if captured.
        text: String,
    },
    /// A process has died in its probation, by itself or because it was condemned; what follows is an [`Event::Outcome`].
    ProbationFailed {
        /// What it was started from, if that could be kept open.
        program: Option<Executable>,
        /// How it ended.
        text: String,
    },
    /// What a process wrote, see [`SpawnSpec::capture_stderr`]. Bytes, not lines.
    Stderr {
        /// Who wrote it.
        pid: i32,
        /// What.
        bytes: Vec<u8>,
    },
}

/// What the service is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The name of the machine's phase: "idle", "starting", "warming", "draining", …
    pub phase: &'static str,
    /// The process that serves, or starts cold; None if there is none.
    pub pid: Option<i32>,
    /// Which process of the service it is.
    pub generation: u64,
    /// It has said Hello, and can be talked to.
    pub linked: bool,
    /// How it can be replaced, if it has said Hello.
    pub mode: Option<Mode>,
    /// It has said that it serves.
    pub serving: bool,
    /// The handoff that is under way.
    pub handoff_id: Option<u64>,
    /// N, while a handoff is under way.
    pub successor_pid: Option<i32>,
    /// What the process that serves has said to `NOTIFY_SOCKET`.
    pub said: Said,
    /// The reserve of the process that serves, in a probation.
    pub parked_pid: Option<i32>,
    /// When the probation ends: absolute `CLOCK_MONOTONIC` nanoseconds.
    pub probation_end_ns: Option<u64>,
    /// Those that were replaced in overlap mode, and serve their last clients.
    pub draining: Vec<Draining>,
}

/// A process that was replaced in overlap mode, and serves its last clients. Times are absolute `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    /// Its pid.
    pub pid: i32,
    /// Which process of the service it was; 0 if it was undone, as it was not ready in time, and may have accepted clients.
    pub generation: u64,
    /// When it was replaced.
    pub since_ns: u64,
    /// When it must be done; then it is ended.
    pub deadline_ns: u64,
}

/// The process that this journal names and that lives, whether it has a supervisor or not.
#[cfg(feature = "program")]
pub(crate) fn alive_in_journal(path: PathBuf) -> Option<i32> {
    Journal::new(path).read().ok().flatten()?.alive().map(|process| process.pid)
}

/// S, for one service. Not more than one handoff is under way at a time.
///
/// Dropping it leaves the daemon that serves alone; it lives on, as does one that starts cold. A successor that has not
/// committed is revoked, killed and reaped first, and the incumbent, which sees the end of its session, resumes by itself.
#[derive(Debug)]
pub struct Supervisor {
    engine: Engine,
}

impl Supervisor {
    /// A supervisor without listeners, journal or process.
    ///
    /// Raises the soft limit on open descriptors (`RLIMIT_NOFILE`) of this process to the hard one, because listeners are
    /// inherited as well as sent. Children inherit the raised limit.
    ///
    /// # Errors
    /// [`Error::System`]: no epoll, timer or inotify instance.
    pub fn new() -> Result<Self> {
        // More is not possible: then the start of a process says so, if it is too few.
        let _ = raise_nofile();
        Ok(Self { engine: Engine::new()? })
    }

    /// Names the service, for files and logs. Default: the journal's name without its extension, or the program's.
    ///
    /// # Errors
    /// [`Error::Invalid`]: empty, or with a slash or a control character.
    pub fn with_name(mut self, name: &str) -> Result<Self> {
        if name.is_empty() || name.chars().any(|c| c == '/' || c.is_control()) {
            return Err(Error::Invalid(format!(
                "{name:?} can not be the name of a service: it becomes part of file names"
            )));
        }
        self.engine.name = Some(name.to_owned());
        Ok(self)
    }

    /// Holds a socket that each process of the service inherits under `name` (`LISTEN_FDNAMES`), in the order of these
    /// calls. Its `O_NONBLOCK` is left as it is. A socket that listens gets [`crate::limits::LISTEN_BACKLOG`] as its backlog
    /// in each handoff and after it, which repairs what a daemon did to it; of more than
    /// [`crate::limits::REPAIRED_IN_PAUSE_MAX`], only after it.
    ///
    /// # Errors
    /// [`Error::Invalid`]: a name that is empty or has a colon or a control character, or a
    /// descriptor that is no socket. [`Error::TooBig`]: a name that is too long. [`Error::Duplicate`]: the name is taken.
    /// [`Error::Limit`]: too many.
    pub fn with_listener(mut self, name: &str, fd: impl Into<OwnedFd>) -> Result<Self> {
        self.add_listener(name, fd.into())?;
        Ok(self)
    }

    /// The same for sockets that share an address (`SO_REUSEPORT`, socket(7)): each process inherits them all, under the same
    /// name. The kernel gives each of them a part of the clients, so each must be served.
    ///
    /// # Errors
    /// As [`Self::with_listener`].
    pub fn with_listener_group(mut self, name: &str, fds: Vec<OwnedFd>) -> Result<Self> {
        self.engine.listeners.add_group(name, fds)?;
        Ok(self)
    }

    /// Whether there may be one more listener, of this name.
    pub(crate) fn check_listener(&self, name: &str) -> Result<()> {
        self.engine.listeners.check(name)
    }

    pub(crate) fn add_listener(&mut self, name: &str, fd: OwnedFd) -> Result<()> {
        self.engine.listeners.add(name, fd)
    }

    /// Writes down in this file what runs, so that a supervisor that comes after a crash can find it. Its directory should
    /// be on a tmpfs and must exist; the decision pages are created beside it. Nothing is ever fsync'ed.
    #[must_use]
    pub fn with_journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.engine.journal = Some(Journal::new(path.into()));
        self
    }

    /// The same, before anything is started.
    pub(crate) fn set_journal(&mut self, path: PathBuf) -> Result<()> {
        if self.engine.machine.generation() != 0 || self.engine.processes.incumbent.is_some() {
            return Err(Error::State("the journal comes before the first process".into()));
        }
        self.engine.journal = Some(Journal::new(path));
        Ok(())
    }

    /// Binds `NOTIFY_SOCKET` (sd_notify(3)) for the processes of the service at this path, when the first one is started or
    /// adopted. Its directory must exist, and be closed to others.
    #[must_use]
    pub fn with_notify(mut self, path: impl Into<PathBuf>) -> Self {
        self.engine.unlinked.notify = Notify::at(path.into());
        self
    }

    /// Which build this supervisor is, for the journal.
    #[must_use]
    pub fn with_build_id(mut self, build_id: impl Into<Vec<u8>>) -> Self {
        self.engine.build_id = build_id.into();
        self
    }

    /// Begins what [`Self::perform_handoff`] does, and returns: a cold start if no process runs, a handoff otherwise. The
    /// outcome comes as [`Event::Outcome`], also that of a program that can not be executed.
    ///
    /// # Errors
    /// [`Error::Busy`]: a handoff or a start is under way, or the incumbent of the last one has not
    /// retired yet; nothing was disturbed.
    pub fn start(&mut self, spec: &SpawnSpec) -> Result<()> {
        self.engine.turn(Some(Duration::ZERO))?;
        self.engine.begin(Arc::new(spec.clone()))
    }

    /// Starts the program of the last process that served again, without a predecessor.
    ///
    /// # Errors
    /// [`Error::State`]: a process runs, or none ever did. [`Error::Busy`] as with
    /// [`Self::start`].
    pub fn restart_cold(&mut self) -> Result<()> {
        self.engine.turn(Some(Duration::ZERO))?;
        if let Some(process) = &self.engine.processes.incumbent {
            return Err(Error::State(format!("process {} of this service runs: stop it first", process.pid)));
        }
        let Some(spec) = self.engine.serving_spec.clone() else {
            return Err(Error::State("no process of this service ever ran".into()));
        };
        self.engine.begin_cold(spec)
    }

    /// Gives up the handoff that is under way, if the successor has not won the decision word yet; its outcome tells.
    /// Without one it does nothing.
    pub fn cancel(&mut self, reason: &str) {
        self.engine.feed(Input::Cancel(reason.to_owned()));
        self.engine.wake();
    }

    /// What does the same while another thread waits in [`Self::perform_handoff`] or [`Self::resume_from_journal`].
    pub fn canceller(&self) -> Canceller {
        self.engine.canceller.clone()
    }

    /// Before the caller stops the daemon for good: gives up the handoff that is under way, as [`Self::cancel`], or ends its
    /// probation, as [`Self::end_probation`], and from now on no process is started, also if nobody is left to take over.
    pub fn close(&mut self, reason: &str) {
        self.engine.closing = true;
        self.cancel(reason);
        self.end_probation();
    }

    /// Waits until something happens, `timeout` at most (None: no limit), deals with it, and returns the events. They may
    /// be none.
    ///
    /// # Errors
    /// [`Error::System`]: epoll failed.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<Vec<Event>> {
        let timeout = if self.engine.events.is_empty() { timeout } else { Some(Duration::ZERO) };
        self.engine.turn(timeout)?;
        Ok(std::mem::take(&mut self.engine.events).into())
    }

    /// When [`Self::turn`] must be called at the latest, in absolute `CLOCK_MONOTONIC` nanoseconds. The descriptor becomes
    /// readable then, too.
    pub fn next_due(&self) -> Option<u64> {
        self.engine.timers.earliest()
    }

    /// What the service is doing. Never waits.
    pub fn status(&self) -> Status {
        let engine = &self.engine;
        let pid = |process: &Option<process::Process>| process.as_ref().map(|process| process.pid);
        Status {
            phase: if engine.waits_for_readiness() { WAITING } else { engine.machine.phase().name() },
            pid: pid(self.server()),
            generation: self.server().as_ref().map_or(0, |process| process.generation),
            linked: engine.machine.incumbent_is_linked(),
            mode: engine.machine.incumbent_mode(),
            serving: engine.machine.incumbent_serves(),
            handoff_id: engine.handoff_id(),
            said: self.server().as_ref().map(|process| process.said.clone()).unwrap_or_default(),
            successor_pid: pid(&engine.processes.successor),
            parked_pid: pid(&engine.processes.parked),
            probation_end_ns: self.in_probation().then_some(engine.probation.end_ns),
            draining: engine.draining(),
        }
    }

    /// The process that serves, or starts cold. After a commit that is N, also while O is still on its way out.
    fn server(&self) -> &Option<process::Process> {
        let processes = &self.engine.processes;
        match self.engine.machine.phase() {
            Phase::Retiring if processes.successor.is_some() => &processes.successor,
            _ => &processes.incumbent,
        }
    }

    /// Whether [`Self::start`] could begin a handoff: the daemon has said Hello and serves, and nothing is under way.
    pub fn supports_handoff(&self) -> bool {
        let machine = &self.engine.machine;
        machine.phase() == Phase::Idle && machine.incumbent_is_linked() && machine.incumbent_serves()
    }

    /// The pidfd of the process that serves, or starts cold.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.server().as_ref().map(|process| process.pidfd.as_fd())
    }

    /// Sends a signal to the process that serves, through its pidfd.
    ///
    /// # Errors
    /// [`Error::Invalid`]: no such signal. [`Error::State`]: no process runs.
    /// [`Error::System`]: not permitted.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let signal = Signal::try_from(signal).map_err(|_| Error::Invalid(format!("there is no signal {signal}")))?;
        match self.server() {
            Some(process) => process.signal(signal),
            None => Err(Error::State("no process of this service runs".into())),
        }
    }

    /// The same to the successor, and to the reserve, if there is one.
    #[cfg(feature = "program")]
    pub(crate) fn signal_others(&self, signal: Signal) {
        let processes = &self.engine.processes;
        for process in processes.successor.iter().chain(&processes.parked) {
            let _ = process.signal(signal);
        }
    }

    /// SIGKILL to the reserve, if there is one.
    #[cfg(feature = "program")]
    pub(crate) fn kill_reserve(&self) {
        if let Some(process) = &self.engine.processes.parked {
            let _ = process.signal(Signal::SIGKILL); // it may just have ended
        }
    }

    /// Writes the journal anew, with the listeners as they are now.
    #[cfg(feature = "program")]
    pub(crate) fn record(&mut self) {
        self.engine.record();
    }

    /// After the end of the service: removes the journal, which has no meaning any more, unless a process that it tells of is left.
    #[cfg(feature = "program")]
    pub(crate) fn remove_journal(&mut self) {
        let nobody_is_left = self.engine.processes.iter().next().is_none();
        self.engine.journal.iter().filter(|_| nobody_is_left).for_each(Journal::remove);
    }

    /// What the process that serves, or served last, was started from, if that is not its `argv[0]`.
    pub fn program(&self) -> Option<&Path> {
        let server = self.server().as_ref().map(|process| &process.spec).or(self.engine.serving_spec.as_ref());
        server.and_then(|spec| spec.binary.as_deref())
    }

    /// Does not hand this listener to further processes. The one that serves keeps it.
    pub fn remove_listener(&mut self, name: &str) {
        self.engine.listeners.remove(name);
    }

    /// The names of the listeners and their descriptors, in order.
    pub fn listeners(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.engine.listeners.iter()
    }
}

impl AsFd for Supervisor {
    /// Readable when [`Supervisor::turn`] has work.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.engine.epoll.0.as_fd()
    }
}
