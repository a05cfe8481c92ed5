//! A process that serves, and can be replaced.

use super::drainable::{Deadline, Drainable, HookError};
use super::event::{Event, EventKind};
use super::handle::Participant;
use super::listeners::InheritedListeners;
use super::trace;
use crate::error::{Error, Result};
use crate::protocol::HandoffId;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Why [`Incumbent::serve`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The successor serves: exit, writing nothing.
    Replaced,
    /// [`Stopper::stop`] was called: shut down as always.
    Stopped,
}

/// A process that serves.
#[derive(Debug)]
pub struct Incumbent(Arc<Participant>);

/// Ends [`Incumbent::serve`] from another thread, or from a signal handler.
#[derive(Clone, Debug)]
pub struct Stopper(pub(super) Arc<Participant>);

impl Stopper {
    /// Asks to stop. Async-signal-safe.
    pub fn stop(&self) {
        let _ = self.0.stop(); // refused only in a forked child, which does not serve
    }
}

/// A pass through the fence that the seal waits for.
#[derive(Debug)]
pub struct WriteGuard<'a>(&'a Participant);

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        let _ = self.0.write_end(); // the guard is the begin
    }
}

/// Lets writers of other threads pass the fence.
#[derive(Clone, Debug)]
pub struct Writers(pub(super) Arc<Participant>);

impl Writers {
    /// The data may be written until the guard is dropped.
    ///
    /// # Errors
    /// [`Error::Sealed`]: not now.
    pub fn begin(&self) -> Result<WriteGuard<'_>> {
        self.0.write_begin()?;
        Ok(WriteGuard(&self.0))
    }
}

impl Incumbent {
    pub(super) fn new(participant: Arc<Participant>) -> Self {
        Self(participant)
    }

    /// The listeners: a resume takes them again.
    pub fn listeners(&self) -> &InheritedListeners {
        self.0.listeners()
    }

    /// Ends [`Incumbent::serve`] from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.0))
    }

    /// For writers of other threads.
    pub fn writers(&self) -> Writers {
        Writers(Arc::clone(&self.0))
    }

    /// Takes part in handoffs until this process is replaced or stopped. The application accepts on other threads.
    ///
    /// # Errors
    /// [`Error::Resume`]: this process can not go on; exit.
    pub fn serve(&self, application: &mut impl Drainable) -> Result<Served> {
        loop {
            let event = self.0.wait_event()?;
            match event.kind {
                EventKind::Replaced => return Ok(Served::Replaced),
                EventKind::Stopped => return Ok(Served::Stopped),
                EventKind::Confirmed => application.confirmed(),
                EventKind::Parked => application.parked(),
                EventKind::Connections => application.connections(),
                _ => self.run(event, application),
            }
        }
    }

    fn run(&self, event: Event, application: &mut impl Drainable) {
        let deadline =
            Deadline { deadline_ns: event.deadline_ns, cancel: self.0.cancel_fd(), after_commit: event.after_commit };
        let answered = match event.kind {
            EventKind::Drain => self.drain(event, &deadline, application),
            EventKind::Seal => application.seal(&deadline).map(|report| self.0.sealed(event.id, &report.revisions)),
            _ if event.after_commit => application.resume_after_commit().map(|()| self.0.done(event.id, 0)),
            _ => application.resume_after_abort().map(|()| self.0.done(event.id, 0)),
        };
        self.settle(event, answered);
    }

    /// Twice, if connections have come meanwhile from the process before, which are to be given on: no more come after that.
    fn drain(
        &self,
        event: Event,
        deadline: &Deadline<'_>,
        application: &mut impl Drainable,
    ) -> std::result::Result<Result<()>, HookError> {
        match self.0.drained(event.id, &application.drain(deadline)?) {
            Err(Error::State(_)) if event.after_commit => {
                application.connections();
                Ok(self.0.drained(event.id, &application.drain(deadline)?))
            }
            answered => Ok(answered),
        }
    }

    fn settle(&self, event: Event, answered: std::result::Result<Result<()>, HookError>) {
        let outcome = match answered {
            Ok(answered) => answered,
            Err(error) => self.0.failed(event.id, &error.to_string()),
        };
        let handoff = Some(HandoffId(event.handoff_id));
        match outcome {
            Ok(()) | Err(Error::Stale) => {} // what follows is on its way
            // Nobody is asked again: the event is over. One that was answered stays so.
            Err(Error::State(why)) => {
                trace::failed(handoff, &why, "the answer was refused");
                let _ = self.0.failed(event.id, &why);
            }
            Err(error) => trace::failed(handoff, &error, "the answer was refused"),
        }
    }
}

impl std::os::fd::AsFd for Incumbent {
    /// Readable when [`Incumbent::serve`] has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.poll_fd()
    }
}
