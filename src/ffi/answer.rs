//! Answers to an event, and looking around.

use super::handle::{Class, Handoff, call, peek};
use super::text::{numbers, required};
use crate::limits::REVISIONS_MAX;
use std::ffi::{c_char, c_int};

/// [event] DRAIN or RESUME succeeded. With HANDOFF_EVENT_AFTER_COMMIT it waits until the successor has all connections that
/// were given to it, at most until the event's deadline. HANDOFF_EREFUSED: the drain is done, but the successor is gone, with as many
/// of them as handoff_errmsg says. HANDOFF_ESTATE: the event is still open, since connections that came to this process are not
/// taken: handoff_next_connection, and give them on; none will follow.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_done(h: *mut Handoff, event_id: u64) -> c_int {
    // SAFETY: by contract.
    unsafe { call(h, Class::Any, "handoff_done", |h| h.participant.done(event_id, 0).map(|()| 0)) }
}

/// [event] SEAL succeeded: all writers are closed, at these revisions, one per shard. Waits for writers that are still
/// between write_begin and write_end, and for forked children that have neither exec'ed nor exited (see
/// HANDOFF_OPT_FORKS), at most until the event's deadline; then the library unlocks. HANDOFF_ESTATE: some are left, which
/// handoff_errmsg names, and the seal has failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_sealed(h: *mut Handoff, event_id: u64, revisions: *const u64, count: usize) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(h, Class::Any, "handoff_sealed", |h| {
            let revisions = numbers(revisions, count, REVISIONS_MAX)?;
            h.participant.sealed(event_id, revisions).map(|()| 0)
        })
    }
}

/// [event] The event could not be done; why is for people, and may be NULL. A hook that returns without an answer has
/// failed, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_failed(h: *mut Handoff, event_id: u64, why: *const c_char) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(h, Class::Any, "handoff_failed", |h| {
            let why = required(why, "why").unwrap_or(b"no reason was given");
            h.participant.failed(event_id, &String::from_utf8_lossy(why)).map(|()| 0)
        })
    }
}

/// [event] How far it is, shown to people. HANDOFF_ESTALE once the event is cancelled or late.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_progress(h: *mut Handoff, event_id: u64, done: u64, total: u64) -> c_int {
    // SAFETY: by contract.
    unsafe { call(h, Class::Any, "handoff_progress", |h| h.participant.progress(event_id, done, total).map(|()| 0)) }
}

/// [signal] HANDOFF_PHASE_*; a hint, not a fence.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_phase(h: *const Handoff) -> c_int {
    // SAFETY: by contract.
    unsafe { peek(h, |h| Ok(h.participant.phase().into())) }
}

/// [any] Milliseconds until the event's deadline, rounded up; INT_MAX: it has none; 0: late, cancelled or over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_remaining_ms(h: *const Handoff, event_id: u64) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(h, Class::Any, "handoff_remaining_ms", |h| {
            let left_ms = h.participant.remaining_ms(event_id)?;
            Ok(c_int::try_from(left_ms).unwrap_or(c_int::MAX))
        })
    }
}

/// [any] The fence that every write of the data passes: HANDOFF_OK, or HANDOFF_ESEALED. The seal waits for every begin to
/// end. A check of the phase before a write is a race; this is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_write_begin(h: *mut Handoff) -> c_int {
    // SAFETY: by contract.
    unsafe { peek(h, |h| h.participant.write_begin().map(|()| 0)) }
}

/// [any] Leaves the fence; HANDOFF_ESTATE: nobody is inside.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_write_end(h: *mut Handoff) -> c_int {
    // SAFETY: by contract.
    unsafe { peek(h, |h| h.participant.write_end().map(|()| 0)) }
}
