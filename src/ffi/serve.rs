//! Serving: hooks, or events in the application's own loop.

use super::enums::handoff_results;
use super::handle::{Class, Guarded, Handoff, call, peek};
use super::hooks::{Hook, name};
use super::log::UserData;
use super::structs::{handoff_destroy_fn, handoff_event, handoff_hook_fn};
use crate::error::{Error, Result};
use crate::participant::{Event, EventKind};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd};

/// [owner] What drains. fn must not be NULL; a second one takes the place of the first. Destroy runs when fn is not needed
/// any more, also when this call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_on_drain(
    h: *mut Handoff,
    r#fn: handoff_hook_fn,
    user: *mut c_void,
    destroy: handoff_destroy_fn,
) -> c_int {
    // SAFETY: by contract.
    unsafe { register(h, "handoff_on_drain", EventKind::Drain, r#fn, UserData::new(user, destroy)) }
}

/// [owner] What seals; as handoff_on_drain.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_on_seal(
    h: *mut Handoff,
    r#fn: handoff_hook_fn,
    user: *mut c_void,
    destroy: handoff_destroy_fn,
) -> c_int {
    // SAFETY: by contract.
    unsafe { register(h, "handoff_on_seal", EventKind::Seal, r#fn, UserData::new(user, destroy)) }
}

/// [owner] What resumes; as handoff_on_drain.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_on_resume(
    h: *mut Handoff,
    r#fn: handoff_hook_fn,
    user: *mut c_void,
    destroy: handoff_destroy_fn,
) -> c_int {
    // SAFETY: by contract.
    unsafe { register(h, "handoff_on_resume", EventKind::Resume, r#fn, UserData::new(user, destroy)) }
}

/// [owner] Overlap mode: what takes the connections that the incumbent gives while it drains, with handoff_next_connection;
/// without an answer. Otherwise as handoff_on_drain.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_on_connections(
    h: *mut Handoff,
    r#fn: handoff_hook_fn,
    user: *mut c_void,
    destroy: handoff_destroy_fn,
) -> c_int {
    // SAFETY: by contract.
    unsafe { register(h, "handoff_on_connections", EventKind::Connections, r#fn, UserData::new(user, destroy)) }
}

/// [owner] What hears HANDOFF_EVENT_PARKED, which has no answer; as handoff_on_drain.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_on_parked(
    h: *mut Handoff,
    r#fn: handoff_hook_fn,
    user: *mut c_void,
    destroy: handoff_destroy_fn,
) -> c_int {
    // SAFETY: by contract.
    unsafe { register(h, "handoff_on_parked", EventKind::Parked, r#fn, UserData::new(user, destroy)) }
}

/// [owner] What hears HANDOFF_EVENT_CONFIRMED, which has no answer; as handoff_on_drain.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_on_confirmed(
    h: *mut Handoff,
    r#fn: handoff_hook_fn,
    user: *mut c_void,
    destroy: handoff_destroy_fn,
) -> c_int {
    // SAFETY: by contract.
    unsafe { register(h, "handoff_on_confirmed", EventKind::Confirmed, r#fn, UserData::new(user, destroy)) }
}

/// What every `handoff_on_*` does. The hook takes the data in any case, so that it is freed also when the call fails.
///
/// # Safety
/// As for the call of this name.
unsafe fn register(
    h: *mut Handoff,
    name: &'static str,
    kind: EventKind,
    function: handoff_hook_fn,
    data: UserData,
) -> c_int {
    let hook = Hook::new(function, data);
    // SAFETY: by contract.
    unsafe { call(h, Class::Owner, name, |h| h.hooks.set(kind, hook)) }
}

/// [owner] Blocks, and runs hooks on this thread; an event without a hook fails, if it wants an answer. HANDOFF_REPLACED: _exit,
/// write nothing; HANDOFF_STOPPED: shut down as you always did; HANDOFF_ERESUME: exit, the data is not yours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_serve(h: *mut Handoff) -> c_int {
    // SAFETY: by contract.
    unsafe { call(h, Class::Owner, "handoff_serve", serve) }
}

fn serve(h: &Handoff) -> Result<c_int> {
    loop {
        let event = h.participant.wait_event()?;
        match (event.kind, h.hooks.get(event.kind)) {
            (EventKind::Replaced, _) => return Ok(handoff_results::HANDOFF_REPLACED as c_int),
            (EventKind::Stopped, _) => return Ok(handoff_results::HANDOFF_STOPPED as c_int),
            (_, Some(hook)) => h.run_hook(&hook, event),
            (EventKind::Parked | EventKind::Confirmed | EventKind::Connections, None) => {}
            (kind, None) => h.fail_event(event, &format!("no {} hook is registered", name(kind))),
        }
        if h.guard().is_freed() {
            return Err(Error::State("the handle was freed by a hook".into()));
        }
    }
}

/// [any] One descriptor, readable (level) when handoff_dispatch has work, in every phase; poll it, do not read it. Borrowed
/// until handoff_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_pollfd(h: *const Handoff) -> c_int {
    // SAFETY: by contract.
    unsafe { peek(h, |h| Ok(h.participant.poll_fd().as_fd().as_raw_fd())) }
}

/// [owner] 1 = *event is filled, as much of it as size has room for, at least the 40 bytes of the first version; 0 =
/// nothing now. Runs the hook instead, if one is set for the event, and returns 0. HANDOFF_EVENT_REPLACED and
/// HANDOFF_EVENT_STOPPED come as events, with or without hooks. Errors as handoff_serve.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_dispatch(h: *mut Handoff, event: *mut handoff_event, size: usize) -> c_int {
    let dispatch = |h: &Handoff| {
        if event.is_null() || size < size_of::<handoff_event>() {
            return Err(Error::Invalid("there is no room for an event".into()));
        }
        let Some(next) = h.participant.dispatch()? else { return Ok(0) };
        match h.hooks.get(next.kind) {
            Some(hook) => h.run_hook(&hook, next),
            // SAFETY: it has room for an event, by contract.
            None => return Ok(unsafe { fill(event, next) }),
        }
        Ok(0)
    };
    // SAFETY: by contract.
    unsafe { call(h, Class::Owner, "handoff_dispatch", dispatch) }
}

/// # Safety
/// `event` has room, aligned or not.
unsafe fn fill(event: *mut handoff_event, next: Event) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { event.write_unaligned(next.into()) };
    1
}

/// [signal] Asks to stop: wakes serve, wait_for_begin and announce_ready. Before the seal a handoff is aborted; sealed, it
/// goes on, and then serve returns REPLACED, or STOPPED after a resume. Leaves errno as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_stop(h: *mut Handoff) -> c_int {
    // SAFETY: by contract.
    keeping_errno(|| unsafe { peek(h, |h| h.participant.stop().map(|()| 0)) })
}

/// A signal handler must leave it as it was.
pub(super) fn keeping_errno(f: impl FnOnce() -> c_int) -> c_int {
    // SAFETY: the address is this thread's errno, and good while the thread runs.
    let errno = unsafe { &mut *libc::__errno_location() };
    let before = *errno;
    let code = f();
    *errno = before;
    code
}
