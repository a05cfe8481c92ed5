//! A daemon's part in its own replacement, with its order checked at run time. The C ABI is a shell over this; the typed
//! API in [`super::role`] lets the compiler check the order instead.

use super::config::Config;
use super::control::Control;
use super::core::{Core, End, Machine, nanos};
use super::data_lock::DataDirLock;
use super::drainable::DrainReport;
use super::event::{Event, EventKind};
use super::listeners::InheritedListeners;
use super::shared::{Help, Shared};
use crate::error::{Error, Result};
use crate::limits::{LOCK_PATIENCE, LOCK_RETRY, REVISIONS_MAX};
use crate::protocol::message::Readiness;
use crate::protocol::{incumbent, successor};
use crate::sys::clock::monotonic_ns;
use crate::sys::env;
use crate::sys::fork::{Witness, watch_forks};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Whether a call that may time out is through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is.
    Done,
    /// The timeout ran out: call the same function again.
    Pending,
}

/// One per process: its role, listeners, session and lock.
///
/// Methods that need the *owner* may be called from any thread, by one at a time; overlap gives [`Error::Busy`].
/// In a forked child everything but dropping gives [`Error::Forked`].
#[derive(Debug)]
pub struct Participant {
    pub(super) shared: Arc<Shared>,
    listeners: InheritedListeners,
    help: Mutex<Help>,
    /// Sees children that are about to exec or exit; none if they do not count.
    witness: Mutex<Option<Witness>>,
    successor: bool,
}

impl Participant {
    /// Reads, and consumes, what the supervisor left in the environment: `LISTEN_FDS`, `LISTEN_FDNAMES`, `LISTEN_PID`
    /// (the convention of sd_listen_fds(3)), `HANDOFF_SOCK_FD`, `HANDOFF_ROLE`, `HANDOFF_CONTROL`, `HANDOFF_DATA_DIR`. Call it
    /// before other threads use the environment. A second call finds nothing: a cold start without a supervisor.
    ///
    /// # Errors
    /// A variable or a descriptor is not what it should be; the data directory can not be used.
    pub fn detect(config: &Config) -> Result<Self> {
        watch_forks().map_err(Error::system("pthread_atfork"))?;
        let inherited = env::take().map_err(|error| Error::Invalid(error.to_string()))?;
        let control = config.control_path.clone().or(inherited.control);
        let data_dir = config.data_dir.clone().or(inherited.data_dir);
        let lock = DataDirLock::locate(data_dir.as_deref(), control.as_deref(), config.network_data_dir)?;
        let successor = inherited.role_is_successor;
        if successor && inherited.session.is_none() {
            return Err(Error::Invalid("HANDOFF_ROLE=successor, but HANDOFF_SOCK_FD is not set".into()));
        }
        let core = Core::new(inherited.session, successor, lock, Control::new(control), config.build_id_or_default())?;
        let witness = match config.ignore_forks {
            true => None,
            false => Some(Witness::new().map_err(Error::system("pipe"))?),
        };
        let participant = Self {
            shared: Arc::new(Shared::new(core, config.before_wait.clone())?),
            listeners: InheritedListeners(inherited.listeners),
            help: Mutex::new(Help::new(config.no_helper_thread)),
            witness: Mutex::new(witness),
            successor,
        };
        participant.leave()?;
        Ok(participant)
    }

    /// Whether this process was started to replace another one.
    pub fn is_successor(&self) -> bool {
        self.successor
    }

    /// The listeners that were given to this process.
    pub fn listeners(&self) -> &InheritedListeners {
        &self.listeners
    }

    /// The number of [`super::Phase`]; a hint, not a fence. Async-signal-safe.
    pub fn phase(&self) -> u8 {
        self.shared.phase()
    }

    /// Asks to stop: every call that waits comes back. Async-signal-safe.
    ///
    /// Before the seal a handoff is aborted; sealed, it goes on, since only then it is known who owns the data.
    ///
    /// # Errors
    /// Called in a forked child.
    pub fn stop(&self) -> Result<()> {
        self.shared.check_fork()?;
        self.shared.stop();
        Ok(())
    }

    // ---- starting (owner)

    /// Waits until the supervisor has accepted this process. Without a predecessor there is nothing to wait for. (owner)
    ///
    /// # Errors
    /// [`Error::Aborted`], with its reason: exit.
    pub fn wait_for_ack(&self) -> Result<()> {
        let _owned = self.enter()?;
        let result = loop {
            let (accepted, end) = self.shared.with(|core| {
                core.pump();
                (core.successor().is_none_or(|machine| machine.terms().is_some()), core.end.clone())
            })?;
            match end {
                Some(End::Aborted(reason)) => break Err(Error::Aborted(reason)),
                _ if accepted => break Ok(()),
                _ => self.shared.sleep(None)?,
            }
        };
        self.leave()?;
        result
    }

    /// Says that everything is loaded that does not need the data. Without a predecessor it does nothing. (owner)
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Forked`].
    pub fn warmed(&self) -> Result<()> {
        let _owned = self.enter()?;
        self.shared.with(|core| {
            core.pump();
            core.feed_successor(successor::Input::Warmed);
        })?;
        self.leave()
    }

    /// Waits until the data may be opened: then the lock is held. Says [`Participant::warmed`] if that was not said. (owner)
    ///
    /// # Errors
    /// [`Error::Aborted`]: exit. [`Error::Locked`], with the holder. [`Error::Stopped`].
    pub fn wait_for_begin(&self, timeout: Option<Duration>) -> Result<Progress> {
        let _owned = self.enter()?;
        let until = timeout.map(|timeout| Instant::now() + timeout);
        let patience = self.shared.with(|core| {
            core.feed_successor(successor::Input::Warmed);
            *core.patience.get_or_insert_with(|| Instant::now() + LOCK_PATIENCE)
        })?;
        let result = loop {
            let (begun, retry) = self.shared.with(|core| {
                core.turn();
                core.begin_state(patience)
            })?;
            match begun {
                Err(error) => break Err(error),
                Ok(true) => break Ok(Progress::Done),
                Ok(false) if self.shared.is_stopping() => break Err(Error::Stopped),
                Ok(false) => {}
            }
            if !self.sleep(until, retry)? {
                break Ok(Progress::Pending);
            }
        };
        self.leave()?;
        result
    }

    /// Says that this process could serve, and waits for the commit. When it is through, the process serves: it may
    /// accept and write, and the control path is in its place. (owner)
    ///
    /// The arguments of the first call count, if it had to be called again.
    ///
    /// # Errors
    /// [`Error::Aborted`]: exit, touching nothing. [`Error::Stopped`]. The control path can not be bound.
    pub fn announce_ready(&self, readiness: &Readiness, timeout: Option<Duration>) -> Result<Progress> {
        if readiness.revisions.len() > REVISIONS_MAX {
            return Err(Error::TooBig(format!("at most {REVISIONS_MAX} revisions")));
        }
        let _owned = self.enter()?;
        let until = timeout.map(|timeout| Instant::now() + timeout);
        let announced = self.shared.with(|core| core.announce(readiness))?;
        let result = match announced {
            Err(error) => Err(error),
            Ok(()) => loop {
                let state = self.shared.with(|core| {
                    core.turn();
                    core.commit_state()
                })?;
                match state {
                    Err(error) => break Err(error),
                    Ok(true) => break Ok(Progress::Done),
                    Ok(false) if !self.sleep(until, None)? => break Ok(Progress::Pending),
                    Ok(false) => {}
                }
            },
        };
        self.leave()?;
        match result {
            Err(Error::Aborted(_)) if self.shared.is_stopping() => Err(Error::Stopped),
            result => result,
        }
    }

    // ---- serving (owner)

    /// Readable when [`Participant::dispatch`] has something to do, in every phase.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.shared.poll_fd()
    }

    /// Readable when the answer to the open event is not wanted any more.
    pub fn cancel_fd(&self) -> BorrowedFd<'_> {
        self.shared.cancel_fd()
    }

    /// The next event, if there is one. The application answers it by its id. (owner)
    ///
    /// # Errors
    /// [`Error::Resume`]: this process can not take over again; exit. [`Error::Aborted`]: exit.
    pub fn dispatch(&self) -> Result<Option<Event>> {
        let _owned = self.enter()?;
        let event = self.next_event();
        self.leave()?;
        event
    }

    /// Waits for the next event. (owner)
    ///
    /// # Errors
    /// As [`Participant::dispatch`].
    pub fn wait_event(&self) -> Result<Event> {
        let _owned = self.enter()?;
        self.shared.with(|core| core.check_ready())??;
        let event = loop {
            match self.next_event() {
                Ok(Some(event)) => break Ok(event),
                Ok(None) => self.shared.sleep(None)?,
                Err(error) => break Err(error),
            }
        };
        self.leave()?;
        event
    }

    fn next_event(&self) -> Result<Option<Event>> {
        let stopping = self.shared.is_stopping();
        let in_handoff = self.shared.with(|core| {
            core.tell_served();
            core.turn();
            core.in_handoff()
        })?;
        // Before the application hears of a drain: its pause must not pay for the thread.
        self.lock_help().adjust(&self.shared, in_handoff);
        self.shared.with(|core| core.next_event(stopping))?
    }

    // ---- answers (any thread, while the event is open)

    /// A drain or a resume has succeeded. `connections_open` are those that a drain left open.
    ///
    /// # Errors
    /// [`Error::Stale`]: the event is over, and nothing was done. [`Error::State`]: a seal wants [`Participant::sealed`].
    pub fn done(&self, event: u64, connections_open: u32) -> Result<()> {
        self.drained(event, &DrainReport { connections_open, ..DrainReport::default() })
    }

    /// [`Participant::done`], for a drain that can say more.
    ///
    /// # Errors
    /// As [`Participant::done`].
    pub fn drained(&self, event: u64, report: &DrainReport) -> Result<()> {
        let DrainReport { connections_open, accept_stopped } = *report;
        let stopped_ns = accept_stopped.map(|at| monotonic_ns().saturating_sub(nanos(at.elapsed())));
        self.answer(event, |core, event| {
            let input = match event.kind {
                EventKind::Drain => {
                    let accept_stopped_ns = core.events.accept_stopped_ns(stopped_ns);
                    incumbent::Input::Drained { connections_open, accept_stopped_ns }
                }
                EventKind::Resume => incumbent::Input::Resumed,
                _ => return Err(Error::State("a seal is answered with sealed".into())),
            };
            core.events.answer(event.id)?;
            core.feed_incumbent(input);
            Ok(())
        })
    }

    /// All writers are closed, at these revisions, one per shard. Waits for writers that are still inside
    /// [`Participant::write_begin`] and for forked children; then the lock is released.
    ///
    /// # Errors
    /// [`Error::Stale`]: the event is over, nothing was released. [`Error::State`]: writers or children are still there at
    /// the event's deadline: the seal has failed.
    pub fn sealed(&self, event: u64, revisions: &[u64]) -> Result<()> {
        if revisions.len() > REVISIONS_MAX {
            return Err(Error::TooBig(format!("at most {REVISIONS_MAX} revisions")));
        }
        self.answer(event, |_, event| match event.kind {
            EventKind::Seal => Ok(()),
            _ => Err(Error::State("only a seal is answered with sealed".into())),
        })?;
        self.shared.fence().close();
        if let Err(why) = self.wait_for_writers(event) {
            self.shared.fence().open();
            self.failed(event, &why.to_string())?;
            return Err(why);
        }
        self.answer(event, |core, event| {
            core.events.answer(event.id)?;
            core.feed_incumbent(incumbent::Input::Sealed(revisions.to_vec()));
            Ok(())
        })
    }

    /// The event could not be done.
    ///
    /// # Errors
    /// [`Error::Stale`]: the event is over.
    pub fn failed(&self, event: u64, why: &str) -> Result<()> {
        self.answer(event, |core, event| {
            core.events.answer(event.id)?;
            core.feed_incumbent(incumbent::Input::HookFailed(why.into()));
            Ok(())
        })
    }

    /// How far the event is, for people.
    ///
    /// # Errors
    /// [`Error::Stale`]: the answer is not wanted any more.
    pub fn progress(&self, event: u64, done: u64, total: u64) -> Result<()> {
        self.answer(event, |core, _| {
            core.feed_incumbent(incumbent::Input::Progress(done, total));
            Ok(())
        })
    }

    /// Milliseconds until the event is late, rounded up; 0 if it is late, cancelled or over.
    ///
    /// # Errors
    /// Called in a forked child.
    pub fn remaining_ms(&self, event: u64) -> Result<u64> {
        self.shared.check_fork()?;
        self.shared.with(|core| core.events.remaining_ms(event))
    }

    fn answer<T>(&self, id: u64, f: impl FnOnce(&mut Core, Event) -> Result<T>) -> Result<T> {
        self.shared.check_fork()?;
        self.shared.with(|core| core.events.look(id).and_then(|event| f(core, event)))?
    }

    // ---- writers (any thread)

    /// Enters the fence: until [`Participant::write_end`] the seal waits.
    ///
    /// # Errors
    /// [`Error::Sealed`]: the data must not be written now.
    pub fn write_begin(&self) -> Result<()> {
        self.shared.check_fork()?;
        self.shared.fence().begin()
    }

    /// Leaves the fence.
    ///
    /// # Errors
    /// Without a begin.
    pub fn write_end(&self) -> Result<()> {
        self.shared.check_fork()?;
        self.shared.fence().end()
    }

    /// Waits for the last writer, then for forked children that have neither exec'ed nor exited.
    fn wait_for_writers(&self, event: u64) -> Result<()> {
        let left = || self.remaining_ms(event).unwrap_or(0);
        loop {
            let inside = self.shared.fence().wait_empty(Duration::from_millis(left().min(100)));
            match (inside, left()) {
                (0, _) => break,
                (_, 0) => return Err(Error::State(format!("{inside} writers did not leave write_begin in time"))),
                _ => {}
            }
        }
        let mut slot = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut witness) = slot.take() else { return Ok(()) };
        witness.close_own_write_end();
        while !witness.all_gone() && left() > 0 {
            let timeout = PollTimeout::try_from(left().min(100)).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut [PollFd::new(witness.as_fd(), PollFlags::empty())], timeout);
        }
        // Who they are is asked only for the error: it takes a walk through all of /proc, in the middle of the pause.
        let living = (!witness.all_gone()).then(|| witness.living());
        *slot = Some(Witness::new().map_err(Error::system("pipe"))?); // for the children of a resume
        let Some(living) = living else { return Ok(()) };
        Err(Error::State(format!("forked children have neither exec'ed nor exited, and may still write: {living}")))
    }

    // ---- who attends

    fn enter(&self) -> Result<super::shared::Owned<'_>> {
        let owned = self.shared.own()?;
        self.lock_help().owner_enters();
        Ok(owned)
    }

    fn leave(&self) -> Result<()> {
        let in_handoff = self.shared.with(|core| core.in_handoff())?;
        let mut help = self.lock_help();
        help.adjust(&self.shared, in_handoff);
        help.owner_leaves();
        Ok(())
    }

    fn lock_help(&self) -> std::sync::MutexGuard<'_, Help> {
        self.help.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until there is work, `retry` or the timeout; false if that has run out.
    fn sleep(&self, until: Option<Instant>, retry: Option<Duration>) -> Result<bool> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(false);
        }
        let timeout = [left, retry].into_iter().flatten().min();
        self.shared.sleep(timeout)?;
        Ok(true)
    }
}

impl Core {
    /// Whether the lock is held and the data may be opened; and when to look again.
    fn begin_state(&mut self, patience: Instant) -> (Result<bool>, Option<Duration>) {
        if let Some(End::Aborted(reason)) = &self.end {
            let locked = self.successor().is_some() && reason.contains(" is locked by ");
            let error = if locked { Error::Locked(reason.clone()) } else { Error::Aborted(reason.clone()) };
            return (Err(error), None);
        }
        match &self.machine {
            Machine::Successor(machine) => {
                let begun = matches!(machine.phase(), successor::Phase::Opening | successor::Phase::AwaitCommitted);
                let retry = (!self.tasks.is_empty()).then_some(LOCK_RETRY);
                (Ok(begun), retry)
            }
            Machine::Incumbent(_) if self.cold_begun => (Ok(true), None),
            Machine::Incumbent(_) => match self.lock.as_mut().map_or(Ok(true), DataDirLock::try_take) {
                Ok(true) => {
                    self.cold_begun = true;
                    self.fence.open();
                    (Ok(true), None)
                }
                Ok(false) if Instant::now() < patience => (Ok(false), Some(LOCK_RETRY)),
                Ok(false) => (Err(Error::Locked(self.lock.as_ref().map_or(String::new(), |lock| lock.blame()))), None),
                Err(error) => (Err(error), None),
            },
        }
    }

    /// The first call of announce_ready: binds the control path under its temporary name, then says Ready.
    fn announce(&mut self, readiness: &Readiness) -> Result<()> {
        self.pump();
        let cold = self.successor().is_none();
        let too_early = || Error::State("announce_ready needs wait_for_begin first".into());
        if cold {
            if !self.cold_begun || self.cold_ready || self.incumbent_phase() != Some(incumbent::Phase::Starting) {
                return Err(too_early());
            }
            self.control.check_free()?;
            self.control.prepare()?;
            self.publish_control();
            self.feed_incumbent(incumbent::Input::Ready(readiness.clone()));
            self.cold_ready = true;
            return Ok(());
        }
        match self.successor().map(|machine| *machine.phase()) {
            Some(successor::Phase::Opening) => {}
            Some(successor::Phase::AwaitCommitted | successor::Phase::Committing) => return Ok(()), // called again
            _ if self.end.is_some() => return Ok(()), // commit_state says why
            _ => return Err(too_early()),
        }
        let bound = self.control.prepare();
        let readiness = match &bound {
            Ok(()) => readiness.clone(),
            Err(error) => Readiness { unhealthy: true, detail: error.to_string(), ..Readiness::default() },
        };
        self.feed_successor(successor::Input::Opened(readiness));
        bound
    }

    /// Whether this process serves.
    fn commit_state(&self) -> Result<bool> {
        match &self.end {
            Some(End::Aborted(reason)) => Err(Error::Aborted(reason.clone())),
            _ => Ok(self.has_won() || self.cold_ready),
        }
    }

    /// The application has come back to serve: now everybody may know.
    fn tell_served(&mut self) {
        if self.served {
            return;
        }
        if self.has_won() {
            self.served = true;
            self.become_incumbent();
        } else if self.cold_ready {
            self.served = true;
            let (now_ns, control) = (monotonic_ns(), self.published.clone());
            self.feed_incumbent(incumbent::Input::Served { now_ns, control });
            if let (Some(lock), Some(machine)) = (&self.lock, self.incumbent()) {
                lock.record(machine.generation());
            }
        }
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        let forked = self.shared.is_forked();
        if forked {
            // The helper thread is the parent's; a lock may be held by a thread that is not here.
            std::mem::forget(self.help.get_mut().map(std::mem::take));
            return self.shared.forget();
        }
        // A successor that goes away must not be waited for.
        let _ = self.shared.with(|core| core.feed_successor(successor::Input::Stop));
        self.lock_help().adjust(&self.shared, false);
    }
}
