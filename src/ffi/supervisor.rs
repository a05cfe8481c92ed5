//! A supervisor inside a program.

use super::enums::{handoff_outcomes, handoff_results};
use super::handle::{Class, Guard, Guarded, call, free, make, peek};
use super::kind::{Mark, Marked, known};
use super::library::handoff_strerror;
use super::options::HandoffConfig;
use super::serve::keeping_errno;
use super::structs::handoff_outcome;
use super::text::{c_string, copy_out, os, required};
use crate::error::{Error, Result};
use crate::supervisor::{Canceller, HandoffOutcome, SpawnSpec, Supervisor, Verdict};
use crate::sys::fd::duplicate;
use crate::sys::fork;
use std::ffi::{CString, c_char, c_int};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// A supervisor inside a program: the listeners of one service, and its processes.
#[cfg_attr(unix, repr(C))] // said so that cbindgen does not see it: the struct is opaque for C
pub struct HandoffSupervisor {
    mark: Mark<SUPERVISOR>,
    /// Only a call of class \[owner\] takes it, so nobody waits for it.
    supervisor: Arc<Mutex<Supervisor>>,
    canceller: Canceller,
    /// What handoff_supervisor_errmsg gave away.
    told: Mutex<CString>,
    epoch: u32,
    guard: Guard,
}

const SUPERVISOR: u64 = u64::from_be_bytes(*b"superv\xff\xff");

// SAFETY: in C's order, and the mark comes first.
unsafe impl Marked for HandoffSupervisor {
    const KIND: u64 = SUPERVISOR;
}

/// Makes a supervisor, without listeners and processes; c may be NULL, and has HANDOFF_OPT_BUILD_ID, for the journal, and
/// handoff_set_log at most: anything else is HANDOFF_EINVAL, as what belongs to a program is given to perform_handoff. An
/// error copies its detail to err, which may be NULL.
///
/// Raises the soft RLIMIT_NOFILE of this process to the hard one, since it holds listeners and sessions. The processes that
/// it starts get the soft limit of before, unless their listeners take half of it or more.
///
/// It works only inside of its calls, on their threads; between them the service needs nobody. So a process that was
/// replaced stays a zombie until the next call, and is ended there if it has not exited. It needs no SIGCHLD: a program
/// may ignore that, or wait for any child, as it likes; then an exit status may be unknown. A program may have several.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_supervisor_new(
    c: *const HandoffConfig,
    s: *mut *mut HandoffSupervisor,
    err: *mut c_char,
    err_size: usize,
) -> c_int {
    let new = |config: HandoffConfig, guard: Guard| {
        let supervisor = Supervisor::new()?.with_build_id(config.for_supervisor()?);
        let canceller = supervisor.canceller();
        let (supervisor, told) = (Arc::new(Mutex::new(supervisor)), Mutex::default());
        Ok((HandoffSupervisor { mark: Mark::default(), supervisor, canceller, told, epoch: fork::epoch(), guard }, 0))
    };
    // SAFETY: by contract.
    unsafe { make(c, s, err, err_size, new) }
}

/// [owner] A socket that each process gets under this name (handoff_take_listener), in the order of these calls, at most
/// 4096. Duplicates fd; yours may be closed. Make it non-blocking before: its mode is left as it is. Once a process runs,
/// the next one gets it.
///
/// HANDOFF_EDUPLICATE: there is one of this name, from an earlier call, or from the daemon that was adopted. The name is
/// looked at first, so with fd -1 this asks whether a listener must still be bound. HANDOFF_EINVAL: an empty name, one with
/// ':', a control character or no UTF-8, or fd is no socket; HANDOFF_ETOOBIG: a name of more than 255 bytes; HANDOFF_ELIMIT;
/// HANDOFF_ESYSTEM: no descriptor left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_supervisor_add_listener(
    s: *mut HandoffSupervisor,
    name: *const c_char,
    fd: c_int,
) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(s, Class::Owner, "handoff_supervisor_add_listener", |s| {
            let name = std::str::from_utf8(required(name, "name")?)
                .map_err(|_| Error::Invalid("the name of a listener is UTF-8".into()))?;
            let mut supervisor = s.lock();
            supervisor.check_listener(name)?;
            supervisor.add_listener(name, duplicate(fd).map_err(|error| unusable(fd, error))?).map(|()| 0)
        })
    }
}

/// [owner] Where the supervisor writes what one that comes after it must know. Before anything else but listeners;
/// HANDOFF_ESTATE later. Without a journal a daemon that outlives this program is still found at its control path, but a
/// handoff that was open is ended by its processes alone.
///
/// The directory must exist, and should be on a tmpfs, since nothing is fsync'ed; it belongs to this user alone, as
/// what stands there is believed. Beside it are path.new and, named as the file without its extension, the pages of
/// handoffs: two services need two names. HANDOFF_EINVAL: NULL or empty; whether it can be written shows at the first start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_supervisor_set_journal(s: *mut HandoffSupervisor, path: *const c_char) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(s, Class::Owner, "handoff_supervisor_set_journal", |s| {
            let path = PathBuf::from(os(required(path, "path")?));
            match path.file_name() {
                Some(_) => s.lock().set_journal(path).map(|()| 0),
                None => Err(Error::Invalid(format!("{:?} can not be the name of a file", path))),
            }
        })
    }
}

/// [owner] Starts the program of spawn, to replace the process that serves; or cold, if there is none: the first time,
/// and when the last one has died. Blocks until the outcome is known. HANDOFF_OK: *o is filled, whatever the outcome is:
/// look at o->result.
///
/// spawn has HANDOFF_OPT_ARG, and may have the other options for spawn, HANDOFF_OPT_CONTROL_PATH and HANDOFF_OPT_DATA_DIR;
/// it is copied. The paths are the daemon's, and the same for all of its processes; without a control path it can be replaced,
/// but not adopted. Each process leads a session of its own, has no signal blocked and none ignored, /dev/null as stdin, and
/// this process's other streams, user, limits, directory and environment, without LISTEN_* and HANDOFF_*.
///
/// size is sizeof *o. o->pidfd is yours: close it. It becomes readable when the process dies, which this supervisor learns
/// in its next call: then call this again, and another one is started on the same listeners. Clients wait in their backlog
/// meanwhile.
///
/// It waits first for what the call before has left: until a process that was replaced has let go of the data, which for a
/// cold start is its exit (it is asked to after 10 s, and killed after 20 s), and, up to the deadline of spawn, for the end of
/// what was HANDOFF_OUTCOME_UNDECIDED. One that was replaced in overlap mode and serves its last clients is not waited for: it has
/// its drain grace, then it is asked to exit, and killed 10 s later. Log lines come while it waits.
///
/// HANDOFF_EINVAL: o is NULL or size too small; spawn is NULL, has no HANDOFF_OPT_ARG, or an option or a log that does not
/// belong to it. HANDOFF_EBUSY: the last one is still undecided; nothing was disturbed. HANDOFF_EABORTED: cancelled before it
/// began. HANDOFF_ESTATE: resume_from_journal has failed. HANDOFF_ESYSTEM. A program that can not be executed is no
/// error: HANDOFF_OUTCOME_REFUSED, or _FAILED if nobody served.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_supervisor_perform_handoff(
    s: *mut HandoffSupervisor,
    spawn: *const HandoffConfig,
    o: *mut handoff_outcome,
    size: usize,
) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(s, Class::Owner, "handoff_supervisor_perform_handoff", |s| {
            check_room(o, size)?;
            let spec = for_spawn(spawn)?;
            let outcome = s.lock().perform_attended(&spec, &mut || s.attend())?;
            fill(o, size, outcome.into());
            Ok(0)
        })
    }
}

/// [owner] Goes on where another supervisor of this service has stopped, which is gone: ends the handoff that was open, and
/// adopts the daemon that serves, with its listeners. The first call of all but set_journal, as the daemon has its
/// listeners' addresses: bind those of which add_listener says after it that they are not there. Blocks, for some seconds
/// if a daemon lives that does not answer, and for a minute at most.
///
/// spawn is as for perform_handoff, since a journal has only the processes in it: the paths say where the daemon is found,
/// the rest what it is replaced by if it has to be. size is sizeof *o.
///
/// That the other one is gone is for the caller to see to: the daemon would be taken from one that lives.
///
/// HANDOFF_OK: a daemon of this service lives, and *o tells which and how the open handoff ended; HANDOFF_OUTCOME_ADOPTED if
/// there was none. One whose outcome was told is open until the next call of whoever told it: it has the same handoff_id. o->pidfd is yours. HANDOFF_COLD_START: nobody is left, and o is as it was: add the listeners, and call
/// perform_handoff. HANDOFF_ELOCKED: a daemon lives and can not be adopted, or cancel ended the wait; nothing was disturbed,
/// errmsg names it, and this supervisor can only be freed. HANDOFF_ESTATE: it is not the first call. HANDOFF_EINVAL as
/// perform_handoff. HANDOFF_ESYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_supervisor_resume_from_journal(
    s: *mut HandoffSupervisor,
    spawn: *const HandoffConfig,
    o: *mut handoff_outcome,
    size: usize,
) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(s, Class::Owner, "handoff_supervisor_resume_from_journal", |s| {
            check_room(o, size)?;
            let spec = for_spawn(spawn)?;
            let mut supervisor = s.lock();
            let outcome = supervisor.resume_attended(&spec, &mut || s.attend())?;
            let Some(pid) = supervisor.status().pid else { return Ok(handoff_results::HANDOFF_COLD_START as c_int) };
            fill(o, size, outcome.map_or_else(|| adopted(&supervisor, pid), handoff_outcome::from));
            Ok(0)
        })
    }
}

/// [signal] Gives up the handoff that perform_handoff waits for, if its successor has not committed yet: the incumbent goes
/// on, and the outcome tells. Of a cold start it ends the wait only: HANDOFF_OUTCOME_UNDECIDED. It ends the wait of
/// resume_from_journal, too, after a second. Without a call under way it does nothing, also not to the next. Leaves errno as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_supervisor_cancel(s: *mut HandoffSupervisor) -> c_int {
    let cancel = |s: &HandoffSupervisor| {
        s.canceller.cancel();
        Ok(0)
    };
    // SAFETY: by contract.
    keeping_errno(|| unsafe { peek(s, cancel) })
}

/// [owner] The detail of the last call of s that failed, "" if none did; never NULL. Borrowed until the next call of this
/// function on s, or until it is freed. A supervisor that is NULL, busy, of the parent, or broken by a panic, gives
/// the static text of its error code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_supervisor_errmsg(s: *const HandoffSupervisor) -> *const c_char {
    let mut text = std::ptr::null();
    let tell = |s: &HandoffSupervisor| {
        let mut told = s.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = c_string(&s.guard.detail());
        text = told.as_ptr();
        Ok(0)
    };
    // SAFETY: by contract.
    let code = unsafe { call(s, Class::Owner, "handoff_supervisor_errmsg", tell) };
    if text.is_null() { handoff_strerror(code) } else { text }
}

/// [owner] Ends the supervisor. The daemon lives on, and serves; the next supervisor adopts it. A successor of an undecided
/// handoff is ended, unless it has committed. NULL is fine. From inside a log callback it is gone when the call that runs it
/// returns. In a forked child it closes the child's copies, but for those of a call that another thread was in, and kills and
/// removes nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_supervisor_free(s: *mut HandoffSupervisor) {
    // SAFETY: NULL or a supervisor that is not freed yet, by contract.
    unsafe { free(s) };
}

impl HandoffSupervisor {
    fn lock(&self) -> MutexGuard<'_, Supervisor> {
        // Poisoned: then no call comes here any more.
        self.supervisor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a call waits: what there is to say until now. A callback may fork, and return in the child.
    fn attend(&self) -> Result<()> {
        self.guard.log().deliver();
        self.check_fork()
    }
}

impl Guarded for HandoffSupervisor {
    fn guard(&self) -> &Guard {
        &self.guard
    }

    fn phase(&self) -> String {
        // Of a call that another thread is in.
        self.supervisor.try_lock().map_or("busy", |supervisor| supervisor.status().phase).to_owned()
    }

    fn check_fork(&self) -> Result<()> {
        if fork::epoch() == self.epoch { Ok(()) } else { Err(Error::Forked) }
    }
}

impl Drop for HandoffSupervisor {
    fn drop(&mut self) {
        // In a child, a thread of the parent may have been in the midst of changing it.
        let torn = || matches!(self.supervisor.try_lock(), Err(TryLockError::WouldBlock));
        if self.check_fork().is_err() && torn() {
            std::mem::forget(Arc::clone(&self.supervisor));
        }
    }
}

fn unusable(fd: c_int, error: std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EBADF) => Error::Invalid(format!("there is no descriptor {fd}")),
        _ => Error::system(format!("cannot duplicate descriptor {fd}"))(error),
    }
}

/// That of the first version.
const OUTCOME_BYTES_MIN: usize = std::mem::offset_of!(handoff_outcome, connections);

fn check_room(o: *const handoff_outcome, size: usize) -> Result<()> {
    if o.is_null() || size < OUTCOME_BYTES_MIN {
        return Err(Error::Invalid("there is no room for an outcome: size is sizeof(handoff_outcome)".into()));
    }
    Ok(())
}

/// As much of it as the program knows.
///
/// # Safety
/// `o` has room for `size` bytes, aligned or not; see [`check_room`].
unsafe fn fill(o: *mut handoff_outcome, size: usize, outcome: handoff_outcome) {
    let size = size.min(size_of::<handoff_outcome>());
    let outcome = handoff_outcome { size: size as u32, ..outcome };
    // SAFETY: not more than it has, and not more than there is room for.
    unsafe { std::ptr::copy_nonoverlapping((&raw const outcome).cast::<u8>(), o.cast::<u8>(), size) };
}

/// A copy: a log callback may free the configuration.
///
/// # Safety
/// NULL, or a configuration that nobody changes now.
unsafe fn for_spawn(spawn: *const HandoffConfig) -> Result<SpawnSpec> {
    // SAFETY: the caller's promise.
    match unsafe { known(spawn) } {
        Some(spawn) => spawn.for_spawn().cloned(),
        None if !spawn.is_null() => Err(Error::Invalid("spawn is not a configuration".into())),
        None => Err(Error::Invalid("spawn is NULL: it says what to start".into())),
    }
}

/// The daemon that serves, and that nothing has happened to.
fn adopted(supervisor: &Supervisor, pid: i32) -> handoff_outcome {
    let pidfd = supervisor.pidfd().and_then(|pidfd| pidfd.try_clone_to_owned().ok());
    handoff_outcome {
        result: handoff_outcomes::HANDOFF_OUTCOME_ADOPTED as i32,
        generation: supervisor.status().generation,
        pid,
        pidfd: raw(pidfd),
        ..handoff_outcome::default()
    }
}

impl From<HandoffOutcome> for handoff_outcome {
    fn from(outcome: HandoffOutcome) -> Self {
        let mut for_c = Self {
            result: number(outcome.verdict) as i32,
            handoff_id: outcome.id,
            generation: outcome.generation,
            pid: outcome.pid,
            pidfd: raw(outcome.pidfd),
            warm_ns: outcome.warm_ns,
            drain_ns: outcome.drain_ns,
            seal_ns: outcome.seal_ns,
            ready_ns: outcome.ready_ns,
            pause_ns: outcome.pause_ns,
            total_ns: outcome.total_ns,
            connections: outcome.transferred_connections,
            state_bytes: outcome.transferred_state_bytes,
            ..Self::default()
        };
        let reason = &mut for_c.reason;
        // SAFETY: it has that many bytes.
        unsafe { copy_out(&outcome.reason, reason.as_mut_ptr(), reason.len()) };
        for_c
    }
}

fn number(verdict: Verdict) -> handoff_outcomes {
    match verdict {
        Verdict::Committed => handoff_outcomes::HANDOFF_OUTCOME_COMMITTED,
        Verdict::RolledBack => handoff_outcomes::HANDOFF_OUTCOME_ROLLED_BACK,
        Verdict::Reverted => handoff_outcomes::HANDOFF_OUTCOME_REVERTED,
        Verdict::StartedCold => handoff_outcomes::HANDOFF_OUTCOME_STARTED_COLD,
        Verdict::Refused => handoff_outcomes::HANDOFF_OUTCOME_REFUSED,
        Verdict::Undecided => handoff_outcomes::HANDOFF_OUTCOME_UNDECIDED,
        Verdict::Failed => handoff_outcomes::HANDOFF_OUTCOME_FAILED,
    }
}

fn raw(pidfd: Option<OwnedFd>) -> i32 {
    pidfd.map_or(-1, OwnedFd::into_raw_fd)
}
