//! The handle, and the one guard that every call of it, or of a supervisor, passes: null, fork, panic, overlap, log.

use super::hooks::Hooks;
use super::kind::{Mark, Marked, known};
use super::log::Log;
use super::options::HandoffConfig;
use super::payload::Lent;
use super::text::{c_string, copy_out};
use crate::error::{Error, Result};
use crate::participant::Participant;
use std::cell::Cell;
use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::dispatcher::{Dispatch, with_default};

/// One per process: its role, listeners, control socket, lock.
#[cfg_attr(unix, repr(C))] // said so that cbindgen does not see it: the struct is opaque for C
pub struct Handoff {
    mark: Mark<HANDLE>,
    pub(super) participant: Participant,
    pub(super) hooks: Hooks,
    pub(super) names: Vec<CString>,
    pub(super) lent: Lent,
    guard: Guard,
}

const HANDLE: u64 = u64::from_be_bytes(*b"handoff\xff");

// SAFETY: in C's order, and the mark comes first.
unsafe impl Marked for Handoff {
    const KIND: u64 = HANDLE;
}

/// What every kind of handle has.
pub(super) struct Guard {
    /// Of the last call that failed.
    detail: Mutex<String>,
    /// A call has panicked.
    poisoned: AtomicBool,
    /// Calls under way, and the flags below.
    usage: AtomicU32,
    log: Arc<Log>,
    dispatch: Dispatch,
}

/// A kind of handle.
pub(super) trait Guarded: Marked {
    fn guard(&self) -> &Guard;

    /// What it is doing, for the text of an error.
    fn phase(&self) -> String;

    /// Whether this is the process that made the handle.
    fn check_fork(&self) -> Result<()>;

    /// Whether the handle may be used by this process, and at all.
    fn check(&self) -> Result<()> {
        self.check_fork()?;
        if self.guard().poisoned.load(Ordering::Acquire) { Err(Error::Panicked) } else { Ok(()) }
    }

    /// Every text names the call and the phase: whoever reads it does not have the program at hand.
    fn fail(&self, name: &str, error: &Error) -> c_int {
        let guard = self.guard();
        // Also when the panic was that of another thread, which left the mutex poisoned.
        if matches!(error, Error::Panicked) {
            guard.poisoned.store(true, Ordering::Release);
        }
        // In a child another thread may have held the lock.
        if !matches!(error, Error::Forked) {
            let text = format!("{name}: {error}, in phase {}", self.phase());
            *guard.detail.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
        error.code()
    }
}

/// A call of class \[owner\] is under way.
const OWNED: u32 = 1 << 30;
/// The handle was freed; whoever leaves it last drops it.
const FREED: u32 = 1 << 31;

thread_local! {
    /// Calls under way on this thread.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Who may call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// One thread at a time, not from inside a hook.
    Owner,
    /// Any thread at any time.
    Any,
}

/// Runs the call `name`: its value, or the code of its error, whose text is kept for `handoff_errmsg`.
///
/// # Safety
/// `h` is NULL, or what C has a pointer to; a handle is not dropped before this returns, but from inside.
pub(super) unsafe fn call<H: Guarded>(
    h: *const H,
    class: Class,
    name: &'static str,
    f: impl FnOnce(&H) -> Result<c_int>,
) -> c_int {
    let mut f = Some(f);
    // SAFETY: the caller's promise.
    unsafe { guarded(h, class, name, &mut |handle| f.take().map_or(Err(no_handle()), |f| f(handle))) }
}

/// The same for all functions of a kind of handle: compiled once for each of them, it would be a kilobyte each time.
///
/// # Safety
/// As [`call`].
unsafe fn guarded<H: Guarded>(
    h: *const H,
    class: Class,
    name: &'static str,
    f: &mut dyn FnMut(&H) -> Result<c_int>,
) -> c_int {
    // SAFETY: the caller's promise.
    let Some(handle) = (unsafe { known(h) }) else { return no_handle().code() };
    if let Err(error) = handle.check() {
        return error.code();
    }
    let guard = handle.guard();
    if let Err(error) = guard.enter(class) {
        return handle.fail(name, &error);
    }
    let result = with_default(&guard.dispatch, || catch_unwind(AssertUnwindSafe(|| f(handle))));
    let code = match result.unwrap_or(Err(Error::Panicked)) {
        Ok(value) => value,
        Err(error) => handle.fail(name, &error),
    };
    if handle.check_fork().is_ok() {
        guard.log.deliver();
    }
    // SAFETY: this call entered, and does not use the handle any more.
    unsafe { leave(h, class) };
    code
}

/// Runs a call that must be quick, or async-signal-safe: no log, no text of an error, no thread-local variable.
///
/// # Safety
/// As [`call`].
pub(super) unsafe fn peek<H: Guarded>(h: *const H, f: impl FnOnce(&H) -> Result<c_int>) -> c_int {
    // SAFETY: the caller's promise.
    let Some(handle) = (unsafe { known(h) }) else { return no_handle().code() };
    let result = handle.check().and_then(|()| {
        catch_unwind(AssertUnwindSafe(|| f(handle))).unwrap_or_else(|_| {
            handle.guard().poisoned.store(true, Ordering::Release);
            Err(Error::Panicked)
        })
    });
    result.unwrap_or_else(|error| error.code())
}

fn no_handle() -> Error {
    Error::Invalid(String::new())
}

/// Makes a handle with `f`: its code, and the handle in its place; or the code of an error, and its detail in `err`.
///
/// # Safety
/// `c` is NULL or a configuration, `place` NULL or room for a pointer, `err` NULL or `err_size` bytes.
pub(super) unsafe fn make<H>(
    c: *const HandoffConfig,
    place: *mut *mut H,
    err: *mut c_char,
    err_size: usize,
    f: impl FnOnce(HandoffConfig, Guard) -> Result<(H, c_int)>,
) -> c_int {
    // SAFETY: the caller's promise.
    let known = unsafe { known(c) };
    let config = known.cloned().unwrap_or_default();
    let log = Log::new(config.log.clone());
    let guard = Guard::new(&log);
    let dispatch = guard.dispatch.clone();
    let made = with_default(&dispatch, || {
        catch_unwind(AssertUnwindSafe(|| match () {
            () if place.is_null() => Err(Error::Invalid("there is no place for the handle".into())),
            () if known.is_none() && !c.is_null() => Err(Error::Invalid("this is not a configuration".into())),
            () => f(config, guard),
        }))
    });
    log.deliver();
    match made.unwrap_or(Err(Error::Panicked)) {
        Ok((handle, code)) => {
            // SAFETY: not NULL, so room for a pointer, by the caller's promise.
            unsafe { place.write(Box::into_raw(Box::new(handle))) };
            code
        }
        Err(error) => {
            // SAFETY: the caller's promise.
            unsafe { copy_out(&error.to_string(), err, err_size) };
            error.code()
        }
    }
}

impl Handoff {
    pub(super) fn new(participant: Participant, guard: Guard) -> Self {
        let names = participant.listeners().names().map(c_string).collect();
        Self { mark: Mark::default(), participant, hooks: Hooks::default(), names, lent: Lent::default(), guard }
    }
}

impl Guarded for Handoff {
    fn guard(&self) -> &Guard {
        &self.guard
    }

    fn phase(&self) -> String {
        self.participant.phase_name().to_owned()
    }

    fn check_fork(&self) -> Result<()> {
        self.participant.check_fork()
    }
}

impl Guard {
    fn new(log: &Arc<Log>) -> Self {
        Self {
            detail: Mutex::default(),
            poisoned: AtomicBool::new(false),
            usage: AtomicU32::new(0),
            log: Arc::clone(log),
            dispatch: log.dispatch(),
        }
    }

    pub(super) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Whether the application has freed the handle, from inside of this call.
    pub(super) fn is_freed(&self) -> bool {
        self.usage.load(Ordering::Acquire) & FREED != 0
    }

    pub(super) fn detail(&self) -> String {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn enter(&self, class: Class) -> Result<()> {
        let entered = self.usage.fetch_update(Ordering::AcqRel, Ordering::Acquire, |usage| match class {
            Class::Owner if usage & (OWNED | FREED) == 0 => Some((usage | OWNED) + 1),
            Class::Any if usage & FREED == 0 => Some(usage + 1),
            _ => None,
        });
        match entered {
            Ok(_) => {
                DEPTH.set(DEPTH.get() + 1);
                Ok(())
            }
            Err(usage) if usage & FREED != 0 => Err(Error::State("the handle was freed".into())),
            Err(_) => Err(Error::Busy("another call of class [owner] is under way, or this one is from inside a hook")),
        }
    }
}

/// # Safety
/// The call entered with the same class, and nobody uses a reference of this call any more.
unsafe fn leave<H: Guarded>(h: *const H, class: Class) {
    DEPTH.set(DEPTH.get() - 1);
    let mine = if class == Class::Owner { OWNED + 1 } else { 1 };
    // SAFETY: this call still counts, so the handle is there.
    let before = unsafe { &*h }.guard().usage.fetch_sub(mine, Ordering::AcqRel);
    if before - mine == FREED {
        // SAFETY: freed by the application, and this was the last call.
        unsafe { destroy(h) };
    }
}

/// What `handoff_free` does: at once, or when the last call under way returns.
///
/// # Safety
/// `h` is NULL, or what C has a pointer to, and not freed yet.
pub(super) unsafe fn free<H: Guarded>(h: *mut H) {
    // SAFETY: the caller's promise.
    let Some(handle) = (unsafe { known(h) }) else { return };
    let before = handle.guard().usage.fetch_or(FREED, Ordering::AcqRel);
    // A child has only the thread that forked; the calls of the others never return here.
    let alone = before == 0 || (handle.check_fork().is_err() && DEPTH.get() == 0);
    if before & FREED == 0 && alone {
        // SAFETY: no call is under way, and none may begin.
        unsafe { destroy(h) };
    }
}

/// # Safety
/// Nobody uses the handle, now or later.
unsafe fn destroy<H: Guarded>(h: *const H) {
    // SAFETY: made by Box::into_raw in `make`, and given up by everybody.
    let handle = unsafe { Box::from_raw(h.cast_mut()) };
    let (log, dispatch) = (Arc::clone(&handle.guard().log), handle.guard().dispatch.clone());
    // In a child another thread may have held the log's lock.
    let forked = handle.check_fork().is_err();
    let dispatch = if forked { Dispatch::none() } else { dispatch };
    let _ = with_default(&dispatch, || catch_unwind(AssertUnwindSafe(|| drop(handle))));
    if !forked {
        log.deliver();
    }
}

#[cfg(test)]
mod tests;
