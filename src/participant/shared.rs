//! The driver as all threads see it: one mutex, and what may be touched without it.

use super::config::BeforeWait;
use super::core::{Core, Machine, Task};
use super::event::{Event, EventKind};
use super::fence::WriteFence;
use super::handle::Participant;
use crate::error::{Error, Result};
use crate::protocol::{incumbent, successor};
use crate::sys::fork;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Where this process is, for the application. The data may be written in `Begun`, `Serving`, `Draining` and `Sealing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // the names say it
pub enum Phase {
    Starting = 0,
    Begun = 1,
    Serving = 2,
    Draining = 3,
    Sealing = 4,
    Sealed = 5,
    Resuming = 6,
    Replaced = 7,
}

impl Phase {
    fn of(core: &Core) -> Self {
        use incumbent::Phase as O;
        use successor::Phase as N;
        if core.end.is_some() {
            return Self::Replaced;
        }
        let held = core.lock.as_ref().is_none_or(|lock| lock.is_held());
        match &core.machine {
            Machine::Successor(machine) => match machine.phase() {
                N::Won | N::Serving => Self::Serving,
                N::Opening | N::AwaitCommitted | N::Committing => Self::Begun,
                N::Aborted => Self::Replaced,
                _ => Self::Starting,
            },
            Machine::Incumbent(machine) if machine.serves() => Self::Serving,
            Machine::Incumbent(machine) => match machine.phase() {
                O::Starting if core.cold_begun && core.cold_ready => Self::Serving,
                O::Starting if core.cold_begun => Self::Begun,
                O::Starting => Self::Starting,
                O::Leaving => Self::Draining,
                O::Sealing => Self::Sealing,
                O::Resuming => Self::Resuming,
                O::Replaced | O::Lost => Self::Replaced,
                _ if held => Self::Draining,
                _ => Self::Sealed,
            },
        }
    }
}

/// The driver, shared by the owner's thread, the threads that answer events, and the helper.
#[derive(Debug)]
pub(super) struct Shared {
    core: Mutex<Core>,
    /// The sources, and the wake-up: what the application polls.
    outer: Epoll,
    sources: std::os::fd::OwnedFd,
    /// Readable while the owner's thread has something to do.
    wake: EventFd,
    /// Whether it is; changed under the mutex only.
    awake: AtomicBool,
    stop_fd: EventFd,
    stop: Arc<AtomicBool>,
    phase: AtomicU8,
    /// A call of the owner class is under way.
    owned: AtomicBool,
    fence: Arc<WriteFence>,
    cancel: Arc<EventFd>,
    epoch: u32,
    before_wait: BeforeWait,
}

impl Shared {
    pub(super) fn new(core: Core, before_wait: BeforeWait) -> Result<Self> {
        let system = |error: nix::Error| Error::system("epoll or eventfd")(error.into());
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let (outer, wake, stop_fd) = (
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(system)?,
            EventFd::from_flags(flags).map_err(system)?,
            EventFd::from_flags(flags).map_err(system)?,
        );
        core.watch_stop(stop_fd.as_fd())?;
        outer.add(core.sources(), EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(system)?;
        outer.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, 1)).map_err(system)?;
        let sources = core.sources().try_clone_to_owned().map_err(Error::system("dup"))?;
        let (stop, fence, cancel) = (Arc::clone(&core.stop), Arc::clone(&core.fence), core.events.cancellation());
        Ok(Self {
            core: Mutex::new(core),
            outer,
            sources,
            wake,
            awake: AtomicBool::new(false),
            stop_fd,
            stop,
            phase: AtomicU8::new(0),
            owned: AtomicBool::new(false),
            fence,
            cancel,
            epoch: fork::epoch(),
            before_wait,
        })
    }

    /// In a forked child nothing but dropping is allowed.
    pub(super) fn check_fork(&self) -> Result<()> {
        if self.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }

    pub(super) fn is_forked(&self) -> bool {
        fork::epoch() != self.epoch
    }

    pub(super) fn fence(&self) -> &WriteFence {
        &self.fence
    }

    pub(super) fn phase(&self) -> u8 {
        self.phase.load(Ordering::Acquire)
    }

    pub(super) fn sources(&self) -> BorrowedFd<'_> {
        self.sources.as_fd()
    }

    pub(super) fn poll_fd(&self) -> BorrowedFd<'_> {
        self.outer.0.as_fd()
    }

    pub(super) fn cancel_fd(&self) -> BorrowedFd<'_> {
        self.cancel.as_fd()
    }

    /// Async-signal-safe: one atomic store and one write(2).
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.stop_fd.write(1); // only fails when it is readable already
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Runs `f` under the mutex, and keeps wake-up and phase true.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Core) -> T) -> Result<T> {
        let mut core = self.lock()?;
        let result = f(&mut core);
        self.settle(&core);
        Ok(result)
    }

    fn lock(&self) -> Result<MutexGuard<'_, Core>> {
        self.core.lock().map_err(|_| Error::Panicked)
    }

    fn settle(&self, core: &Core) {
        if self.is_stopping() && core.stop_told {
            let _ = self.stop_fd.read(); // or it would keep the poll awake
        }
        self.phase.store(Phase::of(core) as u8, Ordering::Release);
        let work = core.has_work(self.is_stopping());
        // Neither can fail: the eventfd is readable exactly while `awake` is true.
        match (work, self.awake.swap(work, Ordering::AcqRel)) {
            (true, false) => drop(self.wake.write(1)),
            (false, true) => drop(self.wake.read()),
            _ => {}
        }
    }

    /// In a forked child: the temporary control path is the parent's. A thread of the parent may hold the mutex for ever.
    pub(super) fn forget(self: &Arc<Self>) {
        match self.core.try_lock() {
            Ok(mut core) => core.control.forget(),
            Err(_) => std::mem::forget(Arc::clone(self)),
        }
    }

    /// The helper's turn.
    pub(super) fn attend(&self) {
        let _ = self.with(Core::pump); // poisoned: the owner hears of it
    }

    /// Sleeps until the owner's thread has something to do, or for at most `timeout`.
    pub(super) fn sleep(&self, timeout: Option<Duration>) -> Result<()> {
        if let Some(before_wait) = &self.before_wait.0 {
            before_wait();
        }
        let timeout = match timeout {
            None => PollTimeout::NONE,
            // Rounded up, so that a loop around this does not spin for the last millisecond.
            Some(left) => PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX),
        };
        match poll(&mut [PollFd::new(self.poll_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(Error::system("poll")(error.into())),
        }
    }

    /// Marks a call of the owner class; overlap is an error.
    pub(super) fn own(&self) -> Result<Owned<'_>> {
        self.check_fork()?;
        if self.owned.swap(true, Ordering::AcqRel) {
            return Err(Error::Busy(
                "another call that needs the owner is under way, or this is one from inside a hook",
            ));
        }
        Ok(Owned(self))
    }
}

/// A call of the owner class.
pub(super) struct Owned<'a>(&'a Shared);

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        self.0.owned.store(false, Ordering::Release);
    }
}

impl Participant {
    /// The phase, for people.
    pub(crate) fn phase_name(&self) -> &'static str {
        ["STARTING", "BEGUN", "SERVING", "DRAINING", "SEALING", "SEALED", "RESUMING", "REPLACED"]
            .get(usize::from(self.phase()))
            .unwrap_or(&"unknown")
    }

    /// Whether this is the process that made the handle, and not a forked child of it.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn check_fork(&self) -> Result<()> {
        self.shared.check_fork()
    }
}

impl Core {
    /// Without this, waiting for an event would never end.
    pub(super) fn check_ready(&self) -> Result<()> {
        match self.served || self.cold_ready || self.has_won() || self.end.is_some() {
            true => Ok(()),
            false => Err(Error::State("serving needs announce_ready first".into())),
        }
    }

    /// Everything that is there, then what only the owner's thread may do.
    pub(super) fn turn(&mut self) {
        self.pump();
        for _ in 0..self.tasks.len() {
            match self.tasks.pop_front() {
                Some(Task::TakeLock { sealed, until_ns, .. }) => self.take_lock(sealed, until_ns),
                Some(Task::RetakeLock) => self.retake_lock(),
                Some(Task::Commit(decide)) => self.commit(decide),
                Some(Task::Publish) => self.publish(),
                None => break,
            }
        }
        // A commit asks for what follows it.
        if matches!(self.tasks.front(), Some(Task::Publish)) {
            self.tasks.pop_front();
            self.publish();
        }
    }

    /// Whether the owner's thread has something to do.
    fn has_work(&self, stopping: bool) -> bool {
        let serving = self.incumbent_phase() == Some(incumbent::Phase::Serving);
        let must_tell = !self.served && (self.has_won() || self.cold_ready);
        // A lock that somebody held is tried again after a while, not at once.
        self.tasks.iter().any(|task| !matches!(task, Task::TakeLock { tried: true, .. }))
            || self.events.is_pending()
            || self.end.is_some()
            || !self.notices.is_empty()
            || self.has_gifts_to_tell()
            || must_tell
            || (stopping && (serving || self.successor().is_some()))
    }

    /// Whether a helper is needed.
    pub(super) fn in_handoff(&self) -> bool {
        match &self.machine {
            Machine::Successor(machine) => self.end.is_none() && *machine.phase() != successor::Phase::Serving,
            Machine::Incumbent(_) => (self.link.is_some() || self.donor.is_some()) && self.end.is_none(),
        }
    }

    /// What the application has to hear, once it serves.
    pub(super) fn next_event(&mut self, stopping: bool) -> Result<Option<Event>> {
        use super::core::End;
        let handoff = self.handoff_id();
        match &self.end {
            Some(End::Replaced) => return Ok(Some(Event::notice(EventKind::Replaced, handoff))),
            Some(End::Lost(reason)) => return Err(Error::Resume(reason.clone())),
            Some(End::Aborted(reason)) => return Err(Error::Aborted(reason.clone())),
            None => {}
        }
        if let Some(event) = self.notices.pop_front() {
            return Ok(Some(event));
        }
        // Before a drain, which may give them on.
        if self.has_gifts_to_tell() {
            self.received.told();
            return Ok(Some(Event::notice(EventKind::Connections, handoff)));
        }
        if let Some(event) = self.events.deliver() {
            return Ok(Some(event));
        }
        let idle = self.incumbent_phase() == Some(incumbent::Phase::Serving);
        Ok((stopping && idle).then(|| Event::notice(EventKind::Stopped, handoff)))
    }
}
