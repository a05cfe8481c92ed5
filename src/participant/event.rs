//! What the application is asked to do, and whether it has answered.

use crate::error::{Error, Result};
use crate::protocol::HandoffId;
use crate::sys::clock::monotonic_ns;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

/// What the application is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Stop accepting, finish, make acknowledged writes durable. Answer: done or failed.
    Drain,
    /// Flush and close the writers. Answer: sealed or failed. The lock is released after it.
    Seal,
    /// The lock is held again: reopen, take listeners again, accept. Answer: done or failed.
    Resume,
    /// The data belongs to the successor: exit without writing. No answer.
    Replaced,
    /// The probation of the handoff that this process came by is over: the process before it is dead, or never serves again, and the
    /// format on disk may be changed. It comes only if that handoff had a probation. No answer.
    Confirmed,
    /// The successor serves on probation, and this process is its reserve: close the connections that were given to it, without a
    /// shutdown(2), which both would feel, and stay sealed. [`Self::Replaced`] or [`Self::Resume`] follows. No answer.
    Parked,
    /// Overlap mode: connections that the process before this one gave wait for [`super::Participant::next_connection`]. It comes once
    /// for what has come, and again if the application takes only some. No answer.
    Connections,
    /// [`super::Participant::stop`] was called: shut down. No answer.
    Stopped,
}

/// An event, which the application answers by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What to do.
    pub kind: EventKind,
    /// For the answer.
    pub id: u64,
    /// When it is late: absolute `CLOCK_MONOTONIC` nanoseconds; `u64::MAX` for never.
    pub deadline_ns: u64,
    /// Becomes readable when the answer is not wanted any more. Borrowed: valid while the event is open.
    pub cancel_fd: RawFd,
    /// The handoff, the same in every log of it; 0 outside a handoff.
    pub handoff_id: u64,
    /// A drain, in overlap mode: the successor serves. It can not be taken back, and its end is the end of this process.
    /// A resume: the successor had committed, and has died. What was given to it may be half used: close these connections.
    pub after_commit: bool,
}

impl Event {
    /// An event that needs no answer.
    pub(super) fn notice(kind: EventKind, handoff: HandoffId) -> Self {
        Self { kind, id: 0, deadline_ns: u64::MAX, cancel_fd: -1, handoff_id: handoff.0, after_commit: false }
    }
}

/// At most one event is under way.
#[derive(Debug)]
pub(super) struct EventSlot {
    last_id: u64,
    /// The machine wants it, the application has not heard of it.
    pending: Option<Event>,
    /// The application has heard of it, and has not answered.
    open: Option<Event>,
    /// The application has heard of a drain, and so must hear of the resume.
    disturbed: bool,
    /// The event that the application heard of last was cancelled.
    cancelled: bool,
    /// When the application heard of the drain.
    drain_began_ns: u64,
    cancel: Arc<EventFd>,
}

impl EventSlot {
    pub(super) fn new() -> io::Result<Self> {
        let cancel = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self {
            last_id: 0,
            pending: None,
            open: None,
            disturbed: false,
            cancelled: false,
            drain_began_ns: 0,
            cancel: Arc::new(cancel),
        })
    }

    pub(super) fn ask(&mut self, kind: EventKind, deadline_ns: u64, handoff: HandoffId, after_commit: bool) {
        self.last_id += 1;
        let cancel_fd = self.cancel.as_fd().as_raw_fd();
        let (id, handoff_id) = (self.last_id, handoff.0);
        self.pending = Some(Event { kind, id, deadline_ns, cancel_fd, handoff_id, after_commit });
    }

    /// The answer is not wanted any more. `Err` of the eventfd can only be that it is readable already.
    pub(super) fn cancel(&mut self) {
        self.pending = None;
        if self.open.take().is_some() {
            self.cancelled = true;
            let _ = self.cancel.write(1);
        }
    }

    /// For those who wait for it without the mutex.
    pub(super) fn cancellation(&self) -> Arc<EventFd> {
        Arc::clone(&self.cancel)
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// A resume that nobody needs, because the drain never reached the application.
    pub(super) fn skip_resume(&mut self) -> bool {
        let skip = !self.disturbed && self.pending.is_some_and(|event| event.kind == EventKind::Resume);
        if skip {
            self.pending = None;
        }
        skip
    }

    /// Hands the event to the application.
    pub(super) fn deliver(&mut self) -> Option<Event> {
        let event = self.pending.take()?;
        self.cancelled = false;
        // Not before: whoever still works on a cancelled event must see it.
        let _ = self.cancel.read(); // nothing to read is fine
        match event.kind {
            EventKind::Drain => {
                self.disturbed = true;
                self.drain_began_ns = monotonic_ns();
            }
            EventKind::Resume => self.disturbed = false,
            _ => {}
        }
        self.open = Some(event);
        Some(event)
    }

    /// When accepting stopped: when the application says, or when it heard of the drain, but not before that.
    pub(super) fn accept_stopped_ns(&self, said_ns: Option<u64>) -> u64 {
        said_ns.map_or(self.drain_began_ns, |said_ns| said_ns.max(self.drain_began_ns))
    }

    /// The event of this id, if its answer is still wanted.
    pub(super) fn look(&self, id: u64) -> Result<Event> {
        self.open.filter(|event| event.id == id && monotonic_ns() <= event.deadline_ns).ok_or(Error::Stale)
    }

    /// The drain or seal that is open: in it connections and state may be given.
    pub(super) fn giving(&self) -> Result<Event> {
        match self.open {
            Some(event) if matches!(event.kind, EventKind::Drain | EventKind::Seal) => self.look(event.id),
            None if self.cancelled => Err(Error::Stale),
            _ => Err(Error::State("connections and state are given inside of a drain or a seal".into())),
        }
    }

    /// Takes the answer of the event of this id.
    pub(super) fn answer(&mut self, id: u64) -> Result<Event> {
        let event = self.look(id)?;
        self.open = None;
        Ok(event)
    }

    /// Takes the failure of the event of this id, which its being late may have caused.
    pub(super) fn give_up(&mut self, id: u64) -> Result<Event> {
        self.open.take_if(|event| event.id == id).ok_or(Error::Stale)
    }

    /// Milliseconds until the event is late, rounded up; 0 if it is over.
    pub(super) fn remaining_ms(&self, id: u64) -> u64 {
        match self.open.filter(|event| event.id == id) {
            Some(event) if event.deadline_ns == u64::MAX => u64::MAX,
            Some(event) => event.deadline_ns.saturating_sub(monotonic_ns()).div_ceil(1_000_000),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_stops_with_the_drain_unless_the_application_went_on() {
        let mut slot = EventSlot::new().unwrap();
        let before_ns = monotonic_ns();
        slot.ask(EventKind::Drain, u64::MAX, HandoffId(1), false);
        slot.deliver().unwrap();
        let began_ns = slot.accept_stopped_ns(None);
        assert!((before_ns..=monotonic_ns()).contains(&began_ns));
        assert_eq!(slot.accept_stopped_ns(Some(began_ns + 5)), began_ns + 5);
        assert_eq!(slot.accept_stopped_ns(Some(1)), began_ns);
    }

    #[test]
    fn a_late_event_can_fail_but_not_succeed() {
        let mut slot = EventSlot::new().unwrap();
        slot.ask(EventKind::Seal, monotonic_ns() - 1, HandoffId(1), false);
        let event = slot.deliver().unwrap();
        assert!(matches!(slot.answer(event.id), Err(Error::Stale)));
        assert!(matches!(slot.give_up(event.id + 1), Err(Error::Stale)));
        assert_eq!(slot.give_up(event.id).unwrap(), event);
        assert!(matches!(slot.give_up(event.id), Err(Error::Stale)));
    }

    fn is_cancelled(slot: &EventSlot) -> bool {
        crate::sys::fd::poll_now(slot.cancellation().as_fd(), nix::poll::PollFlags::POLLIN).unwrap()
            == nix::poll::PollFlags::POLLIN
    }

    #[test]
    fn a_cancelled_event_shows_until_the_application_comes_for_the_next() {
        let mut slot = EventSlot::new().unwrap();
        slot.ask(EventKind::Drain, u64::MAX, HandoffId(1), false);
        slot.deliver().unwrap();
        assert!(!is_cancelled(&slot));
        slot.cancel();
        // The resume may be wanted in the same instant: the hook that drains has not looked yet.
        slot.ask(EventKind::Resume, u64::MAX, HandoffId(1), false);
        assert!(is_cancelled(&slot));
        slot.deliver().unwrap();
        assert!(!is_cancelled(&slot));
    }
}
