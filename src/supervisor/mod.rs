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
#[cfg(feature = "program")]
mod carry;
#[cfg(feature = "program")]
mod context;
mod engine;
mod event;
mod executable;
mod health;
mod journal;
mod leaving;
mod leftovers;
mod listeners;
mod notify;
mod outcome;
mod output;
mod probation;
mod process;
mod processes;
mod rendezvous;
mod resume;
mod spec;
mod start;
mod status;
mod trace;
#[cfg(feature = "program")]
mod tree;
mod unlinked;

pub use crate::protocol::message::Mode;
pub use crate::protocol::supervisor::{OnIncumbentDeath, Verdict};
pub use crate::sys::pidfd::ExitStatus;
#[cfg(feature = "program")]
pub(crate) use awaited::ADOPTING;
#[cfg(feature = "program")]
pub(crate) use blocking::Resumed;
pub use cancel::Canceller;
#[cfg(feature = "program")]
pub use context::ExecContext;
pub use event::Event;
pub use executable::Executable;
pub use health::{GOOD_STATUSES, Health, HealthAddress};
#[cfg(feature = "program")]
pub(crate) use health::{Probe, Step};
#[cfg(feature = "program")]
pub(crate) use notify::Pulse;
pub use notify::Said;
#[cfg(feature = "program")]
pub(crate) use outcome::carried_outcome;
pub use outcome::{HandoffOutcome, verdict_name};
#[cfg(feature = "program")]
pub(crate) use output::output_watch_anew;
pub use output::{OutputWatch, Stream};
pub use spec::SpawnSpec;
#[cfg(feature = "program")]
pub(crate) use spec::{check_variable, environment};
pub use status::{Draining, Status};
#[cfg(feature = "program")]
pub(crate) use tree::{Dying, Lineage, Tree, end_stragglers};
pub use unlinked::ReadySign;

use crate::error::{Error, Result};
use crate::protocol::supervisor::{Input, Phase};
use crate::sys::limits::raise_nofile;
#[cfg(feature = "program")]
use crate::sys::listing::Listing;
#[cfg(feature = "program")]
use crate::sys::lock::LockPaths;
use engine::Engine;
use journal::Journal;
use nix::sys::signal::Signal;
#[cfg(feature = "program")]
use notify::Notify;
#[cfg(feature = "program")]
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The process that this journal names and that lives, whether it has a supervisor or not.
#[cfg(feature = "program")]
pub(crate) fn alive_in_journal(path: PathBuf) -> Option<i32> {
    Journal::new(path).read().ok().flatten()?.alive().map(|process| process.pid)
}

/// Whether a journal tells of a service of this boot.
#[cfg(feature = "program")]
pub(crate) fn is_in_journal(path: PathBuf) -> bool {
    Journal::new(path).read().is_ok_and(|entry| entry.is_some())
}

/// S, for one service. Not more than one handoff is under way at a time.
///
/// Dropping it leaves the daemon that serves alone; it lives on, as does one that starts cold. A successor that has not
/// committed is revoked, killed and reaped first, and the incumbent, which sees the end of its session, resumes by itself.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Supervisor {
    engine: Engine,
}

impl Supervisor {
    /// A supervisor without listeners, journal or process.
    ///
    /// Raises the soft limit on open descriptors (`RLIMIT_NOFILE`) of this process to the hard one, because listeners are
    /// inherited as well as sent. Children get the soft limit of before, unless their listeners take half of it or more.
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
    #[cfg(feature = "program")]
    #[must_use]
    pub fn with_notify(mut self, path: impl Into<PathBuf>) -> Self {
        self.engine.unlinked.notify = Notify::at(path.into());
        self
    }

    /// Watches captured output by this instance, which the caller polls and drains, beside this supervisor's descriptor; and
    /// then calls [`Self::turn`] if [`Self::next_due`] is over. Default: one of its own.
    #[must_use]
    pub fn with_output_watch(mut self, watch: &OutputWatch) -> Self {
        self.engine.output_watch = Some(watch.clone());
        self
    }

    /// What an earlier supervisor has left is looked up in this listing of the journal's directory, instead of in one of its own.
    #[cfg(feature = "program")]
    #[must_use]
    pub(crate) fn with_listing(mut self, listing: Option<&Arc<Listing>>) -> Self {
        self.engine.listing = listing.cloned();
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

    /// After the end of the service: processes may be started again.
    #[cfg(feature = "program")]
    pub(crate) fn reopen(&mut self) {
        self.engine.closing = false;
    }

    /// As [`Self::with_listener_group`].
    #[cfg(feature = "program")]
    pub(crate) fn add_listener_group(&mut self, name: &str, fds: Vec<OwnedFd>) -> Result<()> {
        self.engine.listeners.add_group(name, fds)
    }

    /// Waits until something happens, `timeout` at most (None: no limit), deals with it, and returns the events. They may
    /// be none.
    ///
    /// # Errors
    /// [`Error::System`]: epoll failed.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<Vec<Event>> {
        self.note_output_taken();
        let waits = !self.engine.events.is_empty() || self.engine.output_waits();
        self.engine.turn(if waits { Some(Duration::ZERO) } else { timeout })?;
        Ok(std::mem::take(&mut self.engine.events).into())
    }

    /// Before a wait of unknown length: the output in all events that were fetched is dealt with, and need not come again if
    /// this supervisor is killed. [`Self::turn`] does the same.
    pub fn note_output_taken(&mut self) {
        if self.engine.events.is_empty() {
            self.engine.keep_output();
        }
    }

    /// When [`Self::turn`] must be called at the latest, in absolute `CLOCK_MONOTONIC` nanoseconds. The descriptor becomes
    /// readable then, too.
    pub fn next_due(&self) -> Option<u64> {
        if self.engine.output_waits() { Some(0) } else { self.engine.timers.earliest() }
    }

    /// Whether [`Self::start`] could begin a handoff: the daemon has said Hello and serves, and nothing is under way.
    pub fn supports_handoff(&self) -> bool {
        let machine = &self.engine.machine;
        machine.phase() == Phase::Idle && machine.incumbent_is_linked() && machine.incumbent_serves()
    }

    /// The process that serves, or starts cold.
    #[cfg(feature = "program")]
    pub(crate) fn pid(&self) -> Option<i32> {
        self.server().as_ref().map(|process| process.pid)
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

    /// What the process that serves, or starts, has said of its life.
    #[cfg(feature = "program")]
    pub(crate) fn pulse(&self) -> Option<Pulse> {
        self.server().as_ref().map(|process| process.pulse)
    }

    /// The process that starts cold is ready, if it is up to the caller to say so ([`ReadySign::Told`]).
    #[cfg(feature = "program")]
    pub(crate) fn tell_ready(&mut self) {
        self.engine.on_told();
        self.engine.wake();
    }

    /// Whether the process that serves, or starts, has still to give its sign that it is ready.
    #[cfg(feature = "program")]
    pub(crate) fn awaits_sign(&self) -> bool {
        self.engine.awaits_sign()
    }

    /// Its time to give it is over. Yes: it was adopted, and may have said it while there was nobody to hear it, so it counts as ready.
    #[cfg(feature = "program")]
    pub(crate) fn settle_for_up(&mut self) -> bool {
        self.engine.settle_for_up()
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

    /// Whether somebody has removed the journal or `NOTIFY_SOCKET`.
    #[cfg(feature = "program")]
    pub(crate) fn has_lost_files(&self) -> bool {
        let engine = &self.engine;
        let has_no_journal = engine.journal.as_ref().is_some_and(|journal| !journal.exists());
        let lives = engine.processes.incumbent.is_some();
        if engine.resuming {
            return engine.has_lost_entry() || lives && engine.unlinked.notify.is_lost();
        }
        lives && (has_no_journal && engine.rendezvous.is_none() || engine.unlinked.notify.is_lost())
    }

    /// The lock or the gate of the daemon that serves, which a successor would need at its path, if it is not there.
    #[cfg(feature = "program")]
    pub(crate) fn lost_lock(&self) -> Option<PathBuf> {
        let status = self.status();
        let process = self
            .engine
            .processes
            .incumbent
            .as_ref()
            .filter(|_| status.linked && self.engine.machine.phase() == Phase::Idle)?;
        let LockPaths { lock, gate, .. } = process.spec.lock_paths()?;
        let needed = [Some(gate), (status.mode == Some(Mode::Exclusive)).then_some(lock)];
        needed.into_iter().flatten().find(|path| fs::symlink_metadata(path).is_err())
    }

    /// Makes the journal and `NOTIFY_SOCKET` anew. Of a handoff that is under way the next step writes the journal.
    #[cfg(feature = "program")]
    pub(crate) fn renew_files(&mut self) {
        let lives = self.engine.processes.incumbent.is_some();
        if self.engine.resuming {
            self.engine.renew_entry();
        } else if lives && self.engine.rendezvous.is_none() {
            self.engine.record();
        }
        if lives {
            self.engine.bind_notify_again();
        }
    }

    /// After the end of the service: removes the journal, which has no meaning any more, unless a process that it tells of is left.
    #[cfg(feature = "program")]
    pub(crate) fn remove_journal(&mut self) {
        let nobody_is_left = self.engine.processes.iter().next().is_none() && !self.has_dying();
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
