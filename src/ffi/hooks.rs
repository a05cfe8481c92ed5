//! The application's hooks.

use super::enums::{handoff_event_flags, handoff_events};
use super::handle::Handoff;
use super::log::{UserData, outside};
use super::structs::{handoff_event, handoff_hook_fn};
use crate::error::{Error, Result};
use crate::participant::{Event, EventKind};
use std::ffi::c_int;
use std::sync::{Arc, Mutex, PoisonError};

/// One registered hook.
pub(super) struct Hook {
    function: handoff_hook_fn,
    data: UserData,
}

/// The hooks of a handle: drain, seal, resume, parked, confirmed, connections.
#[derive(Default)]
pub(super) struct Hooks([Mutex<Option<Arc<Hook>>>; 6]);

impl Hook {
    pub(super) fn new(function: handoff_hook_fn, data: UserData) -> Self {
        Self { function, data }
    }
}

impl Hooks {
    /// Takes the place of an earlier one.
    pub(super) fn set(&self, kind: EventKind, hook: Hook) -> Result<c_int> {
        if hook.function.is_none() {
            return Err(Error::Invalid("the hook is NULL".into()));
        }
        if let Some(slot) = self.slot(kind) {
            let before = slot.lock().unwrap_or_else(PoisonError::into_inner).replace(Arc::new(hook));
            drop(before); // its destroy runs here, with nothing locked
        }
        Ok(0)
    }

    pub(super) fn get(&self, kind: EventKind) -> Option<Arc<Hook>> {
        self.slot(kind)?.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn slot(&self, kind: EventKind) -> Option<&Mutex<Option<Arc<Hook>>>> {
        match kind {
            EventKind::Drain => Some(&self.0[0]),
            EventKind::Seal => Some(&self.0[1]),
            EventKind::Resume => Some(&self.0[2]),
            EventKind::Parked => Some(&self.0[3]),
            EventKind::Confirmed => Some(&self.0[4]),
            EventKind::Connections => Some(&self.0[5]),
            EventKind::Replaced | EventKind::Stopped => None,
        }
    }
}

impl Handoff {
    /// Runs the hook on this thread. Silence is failure; an answer from inside, or a cancelled event, is not silence, and what has
    /// no id has no answer.
    pub(super) fn run_hook(&self, hook: &Hook, event: Event) {
        let Some(function) = hook.function else { return };
        let for_c = handoff_event::from(event);
        let h = std::ptr::from_ref(self).cast_mut();
        let what = format!("the {} hook", name(event.kind));
        // SAFETY: registered with this pointer; the handle and the event outlive the call. The application gets the
        // pointer that it made the handle with; nothing in the library writes through it.
        outside(&what, || unsafe { function(h, &raw const for_c, hook.data.user) });
        self.fail_event(event, &format!("{what} returned without an answer"));
    }

    pub(super) fn fail_event(&self, event: Event, why: &str) {
        // An error: it was answered, or is over, as it should be.
        if self.participant.failed(event.id, why).is_ok() {
            tracing::error!(target: "handoff", handoff_id = event.handoff_id, "{why}");
        }
    }
}

pub(super) fn name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Drain => "drain",
        EventKind::Seal => "seal",
        EventKind::Resume => "resume",
        EventKind::Replaced => "replaced",
        EventKind::Stopped => "stopped",
        EventKind::Confirmed => "confirmed",
        EventKind::Parked => "parked",
        EventKind::Connections => "connections",
    }
}

impl From<Event> for handoff_event {
    fn from(event: Event) -> Self {
        let kind = match event.kind {
            EventKind::Drain => handoff_events::HANDOFF_EVENT_DRAIN,
            EventKind::Seal => handoff_events::HANDOFF_EVENT_SEAL,
            EventKind::Resume => handoff_events::HANDOFF_EVENT_RESUME,
            EventKind::Replaced => handoff_events::HANDOFF_EVENT_REPLACED,
            EventKind::Stopped => handoff_events::HANDOFF_EVENT_STOPPED,
            EventKind::Confirmed => handoff_events::HANDOFF_EVENT_CONFIRMED,
            EventKind::Parked => handoff_events::HANDOFF_EVENT_PARKED,
            EventKind::Connections => handoff_events::HANDOFF_EVENT_CONNECTIONS,
        };
        Self {
            size: size_of::<Self>() as u32,
            kind: kind as u32,
            id: event.id,
            deadline_ns: event.deadline_ns,
            cancel_fd: event.cancel_fd,
            flags: if event.after_commit { handoff_event_flags::HANDOFF_EVENT_AFTER_COMMIT as u32 } else { 0 },
            handoff_id: event.handoff_id,
        }
    }
}
