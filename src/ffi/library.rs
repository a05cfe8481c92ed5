//! What a program can ask the library, and the end of a handle.

use super::handle::{Guarded, Handoff, free};
use super::kind::known;
use super::text::copy_out;
use std::ffi::{c_char, c_int};

/// [signal] The version of the library, "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn handoff_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// [signal] The ABI of the library; compare with HANDOFF_ABI.
#[unsafe(no_mangle)]
pub extern "C" fn handoff_abi() -> u32 {
    super::enums::HANDOFF_ABI
}

/// [signal] What a code says, a static text, never NULL. handoff_errmsg knows more.
#[unsafe(no_mangle)]
pub extern "C" fn handoff_strerror(code: c_int) -> *const c_char {
    let text = match code {
        0 => c"done",
        1 => c"cold start",
        2 => c"successor",
        3 => c"replaced: the data belongs to the successor",
        4 => c"stopped",
        5 => c"not yet: call the same function again",
        -1 => c"an argument or a setting makes no sense",
        -2 => c"no memory",
        -3 => c"a system call failed",
        -4 => c"another call that needs the owner is under way, or this one is from inside a hook",
        -5 => c"not in this phase, or not in this version of the library",
        -6 => c"this is a forked child: the handle belongs to its parent",
        -7 => c"the library panicked; the handle can only be freed",
        -8 => c"the handoff was aborted",
        -9 => c"the event is over: it was answered, cancelled, or its deadline has passed",
        -10 => c"somebody else may write the data",
        -11 => c"the data is sealed: it must not be written now",
        -12 => c"no listener was given to this process: bind one",
        -13 => c"the other side refuses",
        -14 => c"no protocol version in common",
        -15 => c"the other side broke the protocol",
        -16 => c"more than fits",
        -17 => c"twice the same name or key",
        -18 => c"a limit of the process or of the system",
        -19 => c"asked to stop",
        -20 => c"this process cannot take over again",
        -21 => c"no listener of this name was given",
        _ => c"an unknown code",
    };
    text.as_ptr()
}

/// [any] Copies the detail of the last call that failed, on whatever thread: "<call>: <what was tried, on what, and what to
/// do>, in phase <PHASE>". What does not fit is cut off at the end.
/// Calls of class [signal], handoff_write_begin and handoff_write_end leave it as it is. Returns buf, which always ends
/// with NUL; "" if buf is NULL or size is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_errmsg(h: *const Handoff, buf: *mut c_char, size: usize) -> *const c_char {
    // SAFETY: NULL or a handle, by contract.
    let text = match unsafe { known(h) } {
        None if h.is_null() => "the handle is NULL".to_owned(),
        None => "this is not a handle".to_owned(),
        Some(handle) => match handle.check_fork() {
            Err(error) => error.to_string(),
            Ok(()) => handle.guard().detail(),
        },
    };
    // SAFETY: NULL or `size` bytes, by contract.
    unsafe { copy_out(&text, buf, size) };
    if buf.is_null() || size == 0 { c"".as_ptr() } else { buf }
}

/// [owner] Ends everything: the lock is released, and the hooks' destroy functions run. NULL is fine. From inside a hook
/// or a log callback the handle is gone when the call that runs it returns; until then every call says HANDOFF_ESTATE.
/// In a forked child it closes the child's copies, and the parent keeps its lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_free(h: *mut Handoff) {
    // SAFETY: NULL or a handle that is not freed yet, by contract.
    unsafe { free(h) };
}
