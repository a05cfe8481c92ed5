//! Configuration: opaque, with numbered, typed options.

use super::enums::{handoff_forks, handoff_modes, handoff_options};
use super::kind::{Mark, Marked, known};
use super::log::{Callback, UserData};
use super::structs::{handoff_destroy_fn, handoff_log_fn};
use super::text::{os, required};
use crate::error::{Error, Result};
use crate::participant::{Config, Mode};
use crate::supervisor::{OnIncumbentDeath, SpawnSpec};
use std::ffi::{OsString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

const CONTROL_PATH: i32 = handoff_options::HANDOFF_OPT_CONTROL_PATH as i32;
const DATA_DIR: i32 = handoff_options::HANDOFF_OPT_DATA_DIR as i32;
const BUILD_ID: i32 = handoff_options::HANDOFF_OPT_BUILD_ID as i32;
const MODES: i32 = handoff_options::HANDOFF_OPT_MODES as i32;
const FORKS: i32 = handoff_options::HANDOFF_OPT_FORKS as i32;
const HELPER_THREAD: i32 = handoff_options::HANDOFF_OPT_HELPER_THREAD as i32;
const NETWORK_DATA_DIR: i32 = handoff_options::HANDOFF_OPT_NETWORK_DATA_DIR as i32;
const TRANSFER: i32 = handoff_options::HANDOFF_OPT_TRANSFER as i32;
const ARG: i32 = handoff_options::HANDOFF_OPT_ARG as i32;
const ENV: i32 = handoff_options::HANDOFF_OPT_ENV as i32;
const BINARY: i32 = handoff_options::HANDOFF_OPT_BINARY as i32;
const DEADLINE_MS: i32 = handoff_options::HANDOFF_OPT_DEADLINE_MS as i32;
const DRAIN_GRACE_MS: i32 = handoff_options::HANDOFF_OPT_DRAIN_GRACE_MS as i32;
const PROBATION_MS: i32 = handoff_options::HANDOFF_OPT_PROBATION_MS as i32;
const INCUMBENT_DEATH: i32 = handoff_options::HANDOFF_OPT_INCUMBENT_DEATH as i32;
const HELLO_MS: i32 = handoff_options::HANDOFF_OPT_HELLO_MS as i32;
const READY_MS: i32 = handoff_options::HANDOFF_OPT_READY_MS as i32;
const EXCLUSIVE: i64 = handoff_modes::HANDOFF_MODE_EXCLUSIVE as i64;
const OVERLAP: i64 = handoff_modes::HANDOFF_MODE_OVERLAP as i64;
const BOTH: i64 = EXCLUSIVE | OVERLAP;
const IGNORE: i64 = handoff_forks::HANDOFF_FORKS_IGNORE as i64;

/// Milliseconds at most: 24 days.
const TIME_MS_MAX: i64 = i32::MAX as i64;

/// Options; copied by whoever takes it.
#[derive(Clone)]
#[cfg_attr(unix, repr(C))] // said so that cbindgen does not see it: the struct is opaque for C
pub struct HandoffConfig {
    mark: Mark<CONFIG>,
    /// For a daemon.
    pub(super) config: Config,
    /// For what a supervisor starts.
    spawn: SpawnSpec,
    build_id: Vec<u8>,
    pub(super) log: Option<Arc<Callback>>,
    /// The options that were set, a bit for each.
    set: u64,
}

const CONFIG: u64 = u64::from_be_bytes(*b"config\xff\xff");

// SAFETY: in C's order, and the mark comes first.
unsafe impl Marked for HandoffConfig {
    const KIND: u64 = CONFIG;
}

impl Default for HandoffConfig {
    fn default() -> Self {
        let mark = Mark::default();
        Self { mark, config: Config::default(), spawn: no_program(), build_id: Vec::new(), log: None, set: 0 }
    }
}

/// All options at their defaults. NULL: no memory. A configuration belongs to one thread at a time. Which options it may have
/// depends on who takes it: handoff_options has them in groups.
#[unsafe(no_mangle)]
pub extern "C" fn handoff_config_new() -> *mut HandoffConfig {
    Box::into_raw(Box::default())
}

/// Sets a string option; copies. EINVAL: unknown to this library, of the other kind, or a value that it can not have.
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
        if value.is_empty() && matches!(option, CONTROL_PATH | DATA_DIR | BINARY) {
            return Err(Error::Invalid("an empty path".into()));
        }
        let config = self.config.clone();
        match option {
            CONTROL_PATH => {
                self.config = config.control_path(os(value));
                self.spawn(|spawn| spawn.control_path(os(value)));
            }
            DATA_DIR => {
                self.config = config.data_dir(os(value));
                self.spawn(|spawn| spawn.data_dir(os(value)));
            }
            BUILD_ID => {
                self.config = config.build_id(value)?;
                self.build_id = value.to_vec();
            }
            ARG => self.spawn(|spawn| spawn.arg(os(value))),
            ENV => {
                let end = value.iter().position(|byte| *byte == b'=').filter(|end| *end > 0);
                let end = end.ok_or_else(|| Error::Invalid("a variable is NAME=value".into()))?;
                self.spawn(|spawn| spawn.env(os(&value[..end]), os(&value[end + 1..])));
            }
            BINARY => self.spawn(|spawn| spawn.binary(os(value))),
            _ => return Err(unknown()),
        }
        self.set |= 1 << option;
        Ok(())
    }

    fn set_int(&mut self, option: i32, value: i64) -> Result<()> {
        let config = self.config.clone();
        let time = Duration::from_millis(value.unsigned_abs());
        match (option, value) {
            (MODES, EXCLUSIVE) => self.config = config.mode(Mode::Exclusive),
            (MODES, OVERLAP) => self.config = config.mode(Mode::Overlap),
            (MODES, BOTH) => return Err(Error::Invalid("one mode needs the lock, the other must not have it".into())),
            (FORKS, 0 | 1) => self.config = config.ignore_forks(value == IGNORE),
            (HELPER_THREAD, 0 | 1) => self.config = config.helper_thread(value == 1),
            (NETWORK_DATA_DIR, 0 | 1) => self.config = config.network_data_dir(value == 1),
            (TRANSFER, 0 | 1) => self.config = config.require_transfer(value == 1),
            (PROBATION_MS, 0..=TIME_MS_MAX) => self.spawn(|spawn| spawn.probation(time)),
            (INCUMBENT_DEATH, 0) => self.spawn(|spawn| spawn.on_incumbent_death(OnIncumbentDeath::StartCold)),
            (INCUMBENT_DEATH, 1) => self.spawn(|spawn| spawn.on_incumbent_death(OnIncumbentDeath::Promote)),
            (DEADLINE_MS, 1..=TIME_MS_MAX) => self.spawn(|spawn| spawn.deadline(time)),
            (DRAIN_GRACE_MS, 1..=TIME_MS_MAX) => self.spawn(|spawn| spawn.drain_grace(time)),
            (HELLO_MS, 1..=TIME_MS_MAX) => self.spawn(|spawn| spawn.hello_timeout(time)),
            (READY_MS, 1..=TIME_MS_MAX) => self.spawn(|spawn| spawn.ready_timeout(time)),
            _ => return Err(unknown()),
        }
        self.set |= 1 << option;
        Ok(())
    }

    fn spawn(&mut self, change: impl FnOnce(SpawnSpec) -> SpawnSpec) {
        self.spawn = change(std::mem::replace(&mut self.spawn, no_program()));
    }

    /// For handoff_detect_role.
    pub(super) fn for_daemon(&self) -> Result<()> {
        self.only("a daemon", |option| option < ARG)
    }

    /// For handoff_supervisor_new: the build.
    pub(super) fn for_supervisor(self) -> Result<Vec<u8>> {
        self.only("a supervisor itself", |option| option == BUILD_ID)?;
        Ok(self.build_id)
    }

    /// For what a supervisor starts.
    pub(super) fn for_spawn(&self) -> Result<&SpawnSpec> {
        let what = "what a supervisor starts";
        self.only(what, |option| option >= ARG || matches!(option, CONTROL_PATH | DATA_DIR))?;
        if self.log.is_some() {
            return Err(Error::Invalid("the log belongs to the supervisor: give it to handoff_supervisor_new".into()));
        }
        if self.set & 1 << ARG == 0 {
            return Err(Error::Invalid(format!("{what} has no argv: set HANDOFF_OPT_ARG, the name first")));
        }
        Ok(&self.spawn)
    }

    /// An option that nobody looks at is a mistake.
    fn only(&self, what: &str, allowed: impl Fn(i32) -> bool) -> Result<()> {
        let strange = (0..64).find(|option| self.set & 1 << option != 0 && !allowed(*option));
        let refuse = |option| Err(Error::Invalid(format!("option {option} is not one of {what}, see handoff_options")));
        strange.map_or(Ok(()), refuse)
    }
}

fn no_program() -> SpawnSpec {
    SpawnSpec::new(Vec::<OsString>::new())
}

fn unknown() -> Error {
    Error::Invalid("an unknown option, or a value that it does not have".into())
}
