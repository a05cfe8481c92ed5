//! Configuration: opaque, with numbered, typed options.

use super::enums::{handoff_forks, handoff_modes, handoff_options};
use super::kind::{Mark, Marked, known};
use super::log::{Callback, UserData};
use super::structs::{handoff_destroy_fn, handoff_log_fn};
use super::text::{os, required};
use crate::error::{Error, Result};
use crate::participant::Config;
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const CONTROL_PATH: i32 = handoff_options::HANDOFF_OPT_CONTROL_PATH as i32;
const DATA_DIR: i32 = handoff_options::HANDOFF_OPT_DATA_DIR as i32;
const BUILD_ID: i32 = handoff_options::HANDOFF_OPT_BUILD_ID as i32;
const MODES: i32 = handoff_options::HANDOFF_OPT_MODES as i32;
const FORKS: i32 = handoff_options::HANDOFF_OPT_FORKS as i32;
const HELPER_THREAD: i32 = handoff_options::HANDOFF_OPT_HELPER_THREAD as i32;
const NETWORK_DATA_DIR: i32 = handoff_options::HANDOFF_OPT_NETWORK_DATA_DIR as i32;
const ARG: i32 = handoff_options::HANDOFF_OPT_ARG as i32;
const BINARY: i32 = handoff_options::HANDOFF_OPT_BINARY as i32;
const DEADLINE_MS: i32 = handoff_options::HANDOFF_OPT_DEADLINE_MS as i32;
const READY_MS: i32 = handoff_options::HANDOFF_OPT_READY_MS as i32;
const EXCLUSIVE: i64 = handoff_modes::HANDOFF_MODE_EXCLUSIVE as i64;
const OVERLAP: i64 = handoff_modes::HANDOFF_MODE_OVERLAP as i64;
const BOTH: i64 = EXCLUSIVE | OVERLAP;
const IGNORE: i64 = handoff_forks::HANDOFF_FORKS_IGNORE as i64;

/// Options; copied by whoever takes it.
#[derive(Clone, Default)]
#[cfg_attr(unix, repr(C))] // said so that cbindgen does not see it: the struct is opaque for C
pub struct HandoffConfig {
    mark: Mark<CONFIG>,
    pub(super) config: Config,
    pub(super) log: Option<Arc<Callback>>,
}

const CONFIG: u64 = u64::from_be_bytes(*b"config\xff\xff");

// SAFETY: in C's order, and the mark comes first.
unsafe impl Marked for HandoffConfig {
    const KIND: u64 = CONFIG;
}

/// All options at their defaults. NULL: no memory. A configuration belongs to one thread at a time.
#[unsafe(no_mangle)]
pub extern "C" fn handoff_config_new() -> *mut HandoffConfig {
    Box::into_raw(Box::default())
}

/// Sets a string option; copies. EINVAL: unknown to this library, or of the other kind.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_config_set_str(c: *mut HandoffConfig, option: i32, value: *const c_char) -> c_int {
    // SAFETY: NULL, or what the contract says.
    unsafe { change(c, |c| c.set_str(option, required(value, "value")?)) }
}

/// Sets an integer option. EINVAL: unknown to this library, of the other kind, or a value that it does not have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_config_set_int(c: *mut HandoffConfig, option: i32, value: i64) -> c_int {
    // SAFETY: NULL, or what the contract says.
    unsafe { change(c, |c| c.set_int(option, value)) }
}

/// Where log lines of handles that are made with c go. They come only on a calling thread, never on the helper's; what
/// the helper has to say waits for the next call. All levels come: filter by level. Without one there is no log. fn must
/// not be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_set_log(
    c: *mut HandoffConfig,
    r#fn: handoff_log_fn,
    user: *mut c_void,
    destroy: handoff_destroy_fn,
) -> c_int {
    let callback = Callback::new(r#fn, UserData::new(user, destroy)); // dropped, and so destroyed, on every error
    let set = |c: &mut HandoffConfig| {
        if r#fn.is_none() {
            return Err(Error::Invalid("fn is NULL".into()));
        }
        c.log = Some(Arc::new(callback));
        Ok(())
    };
    // SAFETY: NULL, or what the contract says.
    unsafe { change(c, set) }
}

/// NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_config_free(c: *mut HandoffConfig) {
    // SAFETY: NULL, or what C has a pointer to.
    if unsafe { known(c) }.is_some() {
        // SAFETY: made by handoff_config_new, and not freed yet, by contract.
        drop(unsafe { Box::from_raw(c) });
    }
}

/// # Safety
/// `c` is NULL, or a configuration that nobody else uses now.
unsafe fn change(c: *mut HandoffConfig, f: impl FnOnce(&mut HandoffConfig) -> Result<()>) -> c_int {
    // SAFETY: the caller's promise.
    if unsafe { known(c) }.is_none() {
        return Error::Invalid(String::new()).code();
    }
    // SAFETY: the caller's promise; it is a configuration.
    let config = unsafe { &mut *c };
    match catch_unwind(AssertUnwindSafe(|| f(config))) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => error.code(),
        Err(_) => Error::Panicked.code(),
    }
}

impl HandoffConfig {
    fn set_str(&mut self, option: i32, value: &[u8]) -> Result<()> {
        let config = self.config.clone();
        self.config = match option {
            CONTROL_PATH | DATA_DIR if value.is_empty() => return Err(Error::Invalid("an empty path".into())),
            CONTROL_PATH => config.control_path(os(value)),
            DATA_DIR => config.data_dir(os(value)),
            BUILD_ID => config.build_id(value)?,
            ARG..=BINARY => return Err(no_supervisor()),
            _ => return Err(unknown()),
        };
        Ok(())
    }

    fn set_int(&mut self, option: i32, value: i64) -> Result<()> {
        let config = self.config.clone();
        self.config = match (option, value) {
            (MODES, EXCLUSIVE) => config,
            (MODES, OVERLAP | BOTH) => return Err(Error::State("overlap mode is not there yet".into())),
            (FORKS, 0 | 1) => config.ignore_forks(value == IGNORE),
            (HELPER_THREAD, 0 | 1) => config.helper_thread(value == 1),
            (NETWORK_DATA_DIR, 0 | 1) => config.network_data_dir(value == 1),
            (DEADLINE_MS..=READY_MS, _) => return Err(no_supervisor()),
            _ => return Err(unknown()),
        };
        Ok(())
    }
}

fn unknown() -> Error {
    Error::Invalid("an unknown option, or a value that it does not have".into())
}

/// A supervisor inside a program is declared, but not built.
pub(super) fn no_supervisor() -> Error {
    Error::State("a supervisor inside a program is not there yet: this version of the library has none".into())
}
