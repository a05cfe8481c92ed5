//! A daemon's part in its own replacement, with its order checked at run time. The C ABI is a shell over this; the typed
//! API in [`super::role`] lets the compiler check the order instead.

use super::config::Config;
use super::control::Control;
use super::core::{Core, End};
use super::data_lock::DataDirLock;
use super::event::{Event, EventKind};
use super::helper::Help;
use super::listeners::InheritedListeners;
use super::shared::{Owned, Shared};
use crate::error::{Error, Result};
use crate::limits::{LOCK_PATIENCE, OWN_DESCRIPTORS_MAX, REVISIONS_MAX};
use crate::protocol::message::Readiness;
use crate::protocol::successor;
use crate::sys::env;
use crate::sys::fork::{Witness, watch_forks};
use crate::sys::limits::make_room;
use std::os::fd::BorrowedFd;
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
    listeners: Arc<InheritedListeners>,
    help: Mutex<Help>,
    /// See children that are about to exec or exit: one those that are forked now, unless they do not count or the data
    /// is sealed; the others those that were still there when a seal had to be given up.
    pub(super) witnesses: Mutex<Vec<Witness>>,
    ignore_forks: bool,
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
        let lock = DataDirLock::locate(data_dir.as_deref(), control.as_deref(), config.network_data_dir, config.mode)?;
        let successor = inherited.role_is_successor;
        if successor && inherited.session.is_none() {
            return Err(Error::Invalid(
                "HANDOFF_ROLE=successor, but HANDOFF_SOCK_FD is not set: start this program through its supervisor, or unset HANDOFF_ROLE".into(),
            ));
        }
        let listeners = Arc::new(InheritedListeners(inherited.listeners));
        if listeners.0.len() > OWN_DESCRIPTORS_MAX {
            // While there is no helper thread yet; few listeners leave room enough in any table.
            let _ = make_room(OWN_DESCRIPTORS_MAX as u64);
        }
        let (control, build_id) = (Control::new(control), config.build_id_or_default());
        let mut core =
            Core::new(inherited.session, successor, lock, config.mode, Arc::clone(&listeners), control, build_id)?;
        core.transfer_required = config.transfer_required;
        let participant = Self {
            shared: Arc::new(Shared::new(core, config.before_wait.clone())?),
            listeners,
            help: Mutex::new(Help::new(config.no_helper_thread)),
            witnesses: Mutex::default(),
            ignore_forks: config.ignore_forks,
            successor,
        };
        participant.watch_children()?;
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
        let _inside = self.enter()?;
        loop {
            let (accepted, end) = self.shared.with(|core| {
                core.pump();
                (core.successor().is_none_or(|machine| machine.terms().is_some()), core.end.clone())
            })?;
            match end {
                Some(End::Aborted(reason)) => return Err(Error::Aborted(reason)),
                _ if accepted => return Ok(()),
                _ => self.shared.sleep(None)?,
            }
        }
    }

    /// Says that everything is loaded that does not need the data. Without a predecessor it does nothing. (owner)
    ///
    /// # Errors
    /// The control path can not be bound, or the lock file not opened: exit.
    pub fn warmed(&self) -> Result<()> {
        let _inside = self.enter()?;
        self.shared.with(|core| {
            core.pump();
            core.say_warmed()
        })?
    }

    /// Waits until the data may be opened: then the lock is held. Says [`Participant::warmed`] if that was not said. (owner)
    ///
    /// # Errors
    /// [`Error::Aborted`]: exit. [`Error::Locked`], with the holder. [`Error::Stopped`]. Those of [`Participant::warmed`].
    pub fn wait_for_begin(&self, timeout: Option<Duration>) -> Result<Progress> {
        let _inside = self.enter()?;
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let patience = self.shared.with(|core| {
            core.say_warmed()?;
            Ok(*core.patience.get_or_insert_with(|| Instant::now() + LOCK_PATIENCE))
        })??;
        loop {
            let (begun, retry) = self.shared.with(|core| {
                core.turn();
                core.begin_state(patience)
            })?;
            if begun? {
                return Ok(Progress::Done);
            }
            if self.shared.is_stopping() {
                return Err(Error::Stopped);
            }
            if !self.sleep(until, retry)? {
                return Ok(Progress::Pending);
            }
        }
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
        let _inside = self.enter()?;
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.shared.with(|core| core.announce(readiness))??;
        loop {
            let committed = self.shared.with(|core| {
                core.turn();
                core.commit_state()
            })?;
            match committed {
                Err(Error::Aborted(_)) if self.shared.is_stopping() => return Err(Error::Stopped),
                Err(error) => return Err(error),
                Ok(true) => return Ok(Progress::Done),
                Ok(false) if !self.sleep(until, None)? => return Ok(Progress::Pending),
                Ok(false) => {}
            }
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
        let _inside = self.enter()?;
        self.next_event()
    }

    /// Waits for the next event. (owner)
    ///
    /// # Errors
    /// As [`Participant::dispatch`].
    pub fn wait_event(&self) -> Result<Event> {
        let _inside = self.enter()?;
        self.shared.with(|core| core.check_ready())??;
        loop {
            match self.next_event()? {
                Some(event) => return Ok(event),
                None => self.shared.sleep(None)?,
            }
        }
    }

    fn next_event(&self) -> Result<Option<Event>> {
        let stopping = self.shared.is_stopping();
        let in_handoff = self.shared.with(|core| {
            core.tell_served();
            core.turn();
            core.in_handoff()
        })?;
        // Before the application hears of a drain: its pause must not pay for the thread.
        let helped = self.lock_help().adjust(&self.shared, in_handoff);
        let event = self.shared.with(|core| {
            if let Err(error) = helped {
                core.refuse_drain(&error);
            }
            core.next_event(stopping)
        })??;
        if event.is_some_and(|event| event.kind == EventKind::Resume) {
            self.watch_children()?;
        }
        Ok(event)
    }

    /// Sees the children that are forked from now on, if it does not already.
    fn watch_children(&self) -> Result<()> {
        let mut witnesses = self.witnesses.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.ignore_forks && !witnesses.iter().any(Witness::watches) {
            witnesses.push(Witness::new().map_err(Error::system("pipe"))?);
        }
        Ok(())
    }

    // ---- who attends

    pub(super) fn enter(&self) -> Result<Inside<'_>> {
        let owned = self.shared.own()?;
        self.lock_help().owner_enters();
        Ok(Inside { participant: self, _owned: owned })
    }

    fn leave(&self) -> Result<()> {
        let in_handoff = self.shared.with(|core| core.in_handoff())?;
        let mut help = self.lock_help();
        let helped = help.adjust(&self.shared, in_handoff);
        help.owner_leaves();
        helped
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

/// The owner's thread is inside the library: it attends, and not the helper.
pub(super) struct Inside<'a> {
    participant: &'a Participant,
    _owned: Owned<'a>,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // Poisoned: the next call says so. Without a helper the drain is refused, and a successor was never made.
        let _ = self.participant.leave();
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
        let _ = self.lock_help().adjust(&self.shared, false); // to end it can not fail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_may_be_as_long_as_a_duration_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let participant = Participant::detect(&Config::new().data_dir(dir.path())).unwrap();
        assert_eq!(participant.wait_for_begin(Some(Duration::MAX)).unwrap(), Progress::Done);
        let ready = participant.announce_ready(&Readiness::default(), Some(Duration::MAX));
        assert_eq!(ready.unwrap(), Progress::Done);
    }
}
