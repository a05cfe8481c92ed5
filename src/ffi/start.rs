//! The start: the same main for a cold start and a successor.

use super::enums::{handoff_ready_flags, handoff_results};
use super::handle::{Class, Guard, Guarded, Handoff, call, make};
use super::kind::known;
use super::options::HandoffConfig;
use super::structs::handoff_readiness;
use super::text::{numbers, optional};
use crate::error::{Error, Result};
use crate::limits::REVISIONS_MAX;
use crate::participant::{Participant, Progress, Readiness};
use std::ffi::{c_char, c_int};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

/// Makes the handle; c may be NULL. HANDOFF_COLD_START or HANDOFF_SUCCESSOR; an error copies its detail to err, which may
/// be NULL. Consumes the environment that the supervisor made, HANDOFF_DATA_DIR included: copy what you need of it before.
/// It comes first in main, before other threads are there and before descriptors are opened. HANDOFF_EINVAL: c has an option
/// that is for a supervisor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_detect_role(
    c: *const HandoffConfig,
    h: *mut *mut Handoff,
    err: *mut c_char,
    err_size: usize,
) -> c_int {
    let detect = |config: HandoffConfig, guard: Guard| {
        config.for_daemon()?;
        let log = Arc::clone(guard.log());
        let participant = Participant::detect(&config.config.before_wait(move || log.deliver()))?;
        let role = match participant.is_successor() {
            true => handoff_results::HANDOFF_SUCCESSOR,
            false => handoff_results::HANDOFF_COLD_START,
        };
        Ok((Handoff::new(participant, guard), role as c_int))
    };
    // SAFETY: by contract.
    unsafe { make(c, h, err, err_size, detect) }
}

/// [any] The descriptor of the index-th listener of this name: a new duplicate each time, close-on-exec, yours. name NULL
/// = of any name; "x" also finds systemd's "x.socket". HANDOFF_ENOTGIVEN: none at all was given, bind your own;
/// HANDOFF_ENONAME: others were. It is O_NONBLOCK unless the supervisor was told ",blocking": poll before you accept, and do
/// not change the flag, which all processes share.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_take_listener(h: *mut Handoff, name: *const c_char, index: u32) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(h, Class::Any, "handoff_take_listener", |h| {
            let name = optional(name).map(String::from_utf8_lossy);
            Ok(h.participant.listeners().take(name.as_deref(), index as usize)?.into_raw_fd())
        })
    }
}

/// [any] The name of the index-th listener as given (systemd's too), until handoff_free; NULL past the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_listener_name(h: *const Handoff, index: u32) -> *const c_char {
    // SAFETY: NULL or a handle, by contract.
    let name = unsafe { known(h) }.filter(|h| h.check().is_ok()).and_then(|h| h.names.get(index as usize));
    name.map_or(std::ptr::null(), |name| name.as_ptr())
}

/// [owner] Says that everything is loaded that does not need the data. A cold start: no effect.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_warmed(h: *mut Handoff) -> c_int {
    // SAFETY: by contract.
    unsafe { call(h, Class::Owner, "handoff_warmed", |h| h.participant.warmed().map(|()| 0)) }
}

/// [owner] Waits until the data may be opened, and says warmed if you did not; timeout_ms -1 = no limit. HANDOFF_OK with
/// the lock held; HANDOFF_PENDING; HANDOFF_EABORTED: exit; HANDOFF_ELOCKED: another process serves this data;
/// HANDOFF_ESTOPPED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_wait_for_begin(h: *mut Handoff, timeout_ms: c_int) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(h, Class::Owner, "handoff_wait_for_begin", |h| h.participant.wait_for_begin(limit(timeout_ms)).map(code))
    }
}

/// [owner] Says that this process could serve, and waits for the commit; r NULL = healthy, no revisions; timeout_ms -1 =
/// no limit. HANDOFF_OK: committed, serve; HANDOFF_PENDING: call it again, with the same r; HANDOFF_EABORTED: exit,
/// touching nothing; HANDOFF_ESTOPPED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_announce_ready(
    h: *mut Handoff,
    r: *const handoff_readiness,
    timeout_ms: c_int,
) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(h, Class::Owner, "handoff_announce_ready", |h| {
            let readiness = if r.is_null() { Readiness::default() } else { read(r)? };
            h.participant.announce_ready(&readiness, limit(timeout_ms)).map(code)
        })
    }
}

fn limit(timeout_ms: c_int) -> Option<Duration> {
    u64::try_from(timeout_ms).ok().map(Duration::from_millis)
}

fn code(progress: Progress) -> c_int {
    match progress {
        Progress::Done => handoff_results::HANDOFF_OK as c_int,
        Progress::Pending => handoff_results::HANDOFF_PENDING as c_int,
    }
}

/// # Safety
/// As the header has it: `r` has as many bytes as it says, and its pointers are good.
unsafe fn read(r: *const handoff_readiness) -> Result<Readiness> {
    const UNHEALTHY: u32 = handoff_ready_flags::HANDOFF_READY_UNHEALTHY as u32;
    const FORMAT_CHANGES: u32 = handoff_ready_flags::HANDOFF_READY_FORMAT_CHANGES as u32;
    const FLAGS: u32 = UNHEALTHY | FORMAT_CHANGES;
    const KNOWN: usize = size_of::<handoff_readiness>();
    /// More than any version will have: a forgotten size must not make us read on.
    const SIZE_MAX: usize = 4096;
    if !r.is_aligned() {
        return Err(Error::Invalid("the readiness is not aligned".into()));
    }
    // SAFETY: the size is the first member of every version.
    let size = unsafe { (&raw const (*r).size).read() } as usize;
    if !(KNOWN..=SIZE_MAX).contains(&size) {
        return Err(Error::Invalid(format!("readiness.size is {size}: set it to sizeof(handoff_readiness), {KNOWN}")));
    }
    // SAFETY: it has that many bytes, by contract.
    let newer = unsafe { std::slice::from_raw_parts(r.cast::<u8>().add(KNOWN), size - KNOWN) };
    if newer.iter().any(|byte| *byte != 0) {
        return Err(Error::Invalid("the readiness says what this library is too old for".into()));
    }
    // SAFETY: it has that many bytes, by contract.
    let r = unsafe { r.read() };
    if r.flags & !FLAGS != 0 {
        return Err(Error::Invalid(format!("unknown readiness.flags {:#x}", r.flags & !FLAGS)));
    }
    // SAFETY: by contract.
    let (revisions, detail) =
        unsafe { (numbers(r.revisions, r.revision_count, REVISIONS_MAX)?, optional(r.detail).unwrap_or_default()) };
    Ok(Readiness {
        unhealthy: r.flags & UNHEALTHY != 0,
        format_changes: r.flags & FORMAT_CHANGES != 0,
        revisions: revisions.to_vec(),
        detail: String::from_utf8_lossy(detail).into_owned(),
    })
}
