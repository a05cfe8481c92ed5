//! State and connections that move. Declared, and not there yet: every call says so.
#![allow(unused_variables)] // the names are the header's

use super::handle::{Class, Handoff, call};
use super::structs::handoff_connection;
use crate::error::Error;
use std::ffi::{c_char, c_int, c_void};

/// # Safety
/// As [`call`].
unsafe fn not_yet(h: *const Handoff, class: Class, name: &'static str) -> c_int {
    let text = "not there yet: this version of the library moves no state and no connections";
    // SAFETY: the caller's promise.
    unsafe { call(h, class, name, |_| Err(Error::State(text.into()))) }
}

/// [event] Gives the successor a copy of a blob, in sealed memory. Not there yet: HANDOFF_ESTATE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_put_state(
    h: *mut Handoff,
    key: *const c_char,
    data: *const c_void,
    size: usize,
) -> c_int {
    // SAFETY: by contract.
    unsafe { not_yet(h, Class::Any, "handoff_put_state") }
}

/// [event] Gives the successor a memfd or a file, of any size, without a copy, and NOT sealed: keep it unchanged until
/// RESUME or REPLACED. Not there yet: HANDOFF_ESTATE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_put_state_fd(h: *mut Handoff, key: *const c_char, fd: c_int) -> c_int {
    // SAFETY: by contract.
    unsafe { not_yet(h, Class::Any, "handoff_put_state_fd") }
}

/// [owner] After begin: a blob, borrowed, mapped until handoff_free. Not there yet: HANDOFF_ESTATE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_get_state(
    h: *mut Handoff,
    key: *const c_char,
    data: *mut *const c_void,
    size: *mut usize,
) -> c_int {
    // SAFETY: by contract.
    unsafe { not_yet(h, Class::Owner, "handoff_get_state") }
}

/// [owner] After begin: a memfd or file, yours, writable once announce_ready returned. Not there yet: HANDOFF_ESTATE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_take_state_fd(h: *mut Handoff, key: *const c_char) -> c_int {
    // SAFETY: by contract.
    unsafe { not_yet(h, Class::Owner, "handoff_take_state_fd") }
}

/// [event] Sends a duplicate of a connection, with up to 60 KiB of state; keep yours, untouched, until RESUME or REPLACED.
/// Not there yet: HANDOFF_ESTATE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_put_connection(
    h: *mut Handoff,
    fd: c_int,
    name: *const c_char,
    state: *const c_void,
    size: usize,
) -> c_int {
    // SAFETY: by contract.
    unsafe { not_yet(h, Class::Any, "handoff_put_connection") }
}

/// [owner] After announce_ready returned 0: 1 = *c is filled, 0 = no more. Not there yet: HANDOFF_ESTATE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_next_connection(h: *mut Handoff, c: *mut handoff_connection, size: usize) -> c_int {
    // SAFETY: by contract.
    unsafe { not_yet(h, Class::Owner, "handoff_next_connection") }
}
