//! A supervisor inside a program. Declared, and not there yet: every call says so.
#![allow(unused_variables)] // the names are the header's

use super::options::{HandoffConfig, no_supervisor};
use super::structs::handoff_outcome;
use super::text::copy_out;
use std::ffi::{c_char, c_int};

/// A supervisor inside a program.
pub struct HandoffSupervisor {
    _private: (),
}

/// Makes a supervisor. Not there yet: HANDOFF_ESTATE, as every function of a supervisor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_supervisor_new(
    c: *const HandoffConfig,
    s: *mut *mut HandoffSupervisor,
    err: *mut c_char,
    err_size: usize,
) -> c_int {
    // SAFETY: NULL or `err_size` bytes, by contract.
    unsafe { copy_out(&no_supervisor().to_string(), err, err_size) };
    no_supervisor().code()
}

/// Duplicates fd; make it non-blocking before.
#[unsafe(no_mangle)]
pub extern "C" fn handoff_supervisor_add_listener(s: *mut HandoffSupervisor, name: *const c_char, fd: c_int) -> c_int {
    no_supervisor().code()
}

/// Where the supervisor writes what a restarted one must know.
#[unsafe(no_mangle)]
pub extern "C" fn handoff_supervisor_set_journal(s: *mut HandoffSupervisor, path: *const c_char) -> c_int {
    no_supervisor().code()
}

/// Blocks until the handoff has its outcome. The first call is a cold start.
#[unsafe(no_mangle)]
pub extern "C" fn handoff_supervisor_perform_handoff(
    s: *mut HandoffSupervisor,
    spawn: *const HandoffConfig,
    o: *mut handoff_outcome,
    size: usize,
) -> c_int {
    no_supervisor().code()
}

/// Adopts what runs.
#[unsafe(no_mangle)]
pub extern "C" fn handoff_supervisor_resume_from_journal(
    s: *mut HandoffSupervisor,
    o: *mut handoff_outcome,
    size: usize,
) -> c_int {
    no_supervisor().code()
}

/// [signal] Aborts the handoff that is under way.
#[unsafe(no_mangle)]
pub extern "C" fn handoff_supervisor_cancel(s: *mut HandoffSupervisor) -> c_int {
    -5 // HANDOFF_ESTATE, without an allocation
}

/// The detail of the last call that failed, until the next one.
#[unsafe(no_mangle)]
pub extern "C" fn handoff_supervisor_errmsg(s: *const HandoffSupervisor) -> *const c_char {
    c"a supervisor inside a program is not there yet: this version of the library has none".as_ptr()
}

/// The daemons live on. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn handoff_supervisor_free(s: *mut HandoffSupervisor) {}
