//! The numbers of the header.
#![allow(non_camel_case_types)] // C's names

/// The ABI that this header describes; compare with handoff_abi().
pub const HANDOFF_ABI: u32 = 1;

/// What a call returns when it did not fail.
#[repr(C)]
pub enum handoff_results {
    /// It is done.
    HANDOFF_OK = 0,
    /// detect_role: nobody is to be replaced. resume_from_journal: nobody is left.
    HANDOFF_COLD_START = 1,
    /// detect_role: this process was started to replace another one.
    HANDOFF_SUCCESSOR = 2,
    /// serve: the data is not yours any more: _exit, write nothing.
    HANDOFF_REPLACED = 3,
    /// serve: handoff_stop was called; shut down as you always did.
    HANDOFF_STOPPED = 4,
    /// The timeout ran out; call the same function again.
    HANDOFF_PENDING = 5,
}

/// Error codes. A number is never used again for something else.
#[repr(C)]
pub enum handoff_errors {
    /// An argument or a setting makes no sense.
    HANDOFF_EINVAL = -1,
    /// No memory.
    HANDOFF_ENOMEM = -2,
    /// A system call failed.
    HANDOFF_ESYSTEM = -3,
    /// Another thread is inside a call of class [owner], or a hook calls one.
    HANDOFF_EBUSY = -4,
    /// Not in this phase, or not in this version of the library.
    HANDOFF_ESTATE = -5,
    /// Called in a forked child: the handle belongs to the parent.
    HANDOFF_EFORKED = -6,
    /// The library panicked, which is a bug in it; the handle can only be freed.
    HANDOFF_EPANIC = -7,
    /// The handoff was aborted: exit. perform_handoff: cancelled before it began.
    HANDOFF_EABORTED = -8,
    /// The event is over: answered, cancelled or late. The call did nothing.
    HANDOFF_ESTALE = -9,
    /// Somebody else may write the data; handoff_errmsg names the process.
    HANDOFF_ELOCKED = -10,
    /// The data must not be written now.
    HANDOFF_ESEALED = -11,
    /// No listener at all was given to this process: bind your own.
    HANDOFF_ENOTGIVEN = -12,
    /// The other side refuses.
    HANDOFF_EREFUSED = -13,
    /// No protocol version in common.
    HANDOFF_EVERSION = -14,
    /// The other side broke the protocol.
    HANDOFF_EPROTOCOL = -15,
    /// More than fits.
    HANDOFF_ETOOBIG = -16,
    /// Twice the same name or key.
    HANDOFF_EDUPLICATE = -17,
    /// A limit of the process or of the system.
    HANDOFF_ELIMIT = -18,
    /// handoff_stop was called.
    HANDOFF_ESTOPPED = -19,
    /// This process cannot take over again: exit.
    HANDOFF_ERESUME = -20,
    /// Listeners were given, but none of this name.
    HANDOFF_ENONAME = -21,
}

/// handoff_phase. The data may be written in BEGUN, SERVING, DRAINING and SEALING.
#[repr(C)]
#[allow(missing_docs)] // the names say it
pub enum handoff_phases {
    HANDOFF_PHASE_STARTING = 0,
    HANDOFF_PHASE_BEGUN = 1,
    HANDOFF_PHASE_SERVING = 2,
    HANDOFF_PHASE_DRAINING = 3,
    HANDOFF_PHASE_SEALING = 4,
    HANDOFF_PHASE_SEALED = 5,
    HANDOFF_PHASE_RESUMING = 6,
    HANDOFF_PHASE_REPLACED = 7,
}

/// handoff_event.kind. A kind that is not here is a newer library's: ignore it. It never wants an answer.
#[repr(C)]
pub enum handoff_events {
    /// Stop accepting, finish, make acknowledged writes durable. Answer: done or failed. Take a listener out of your epoll before you
    /// close it: an epoll watches what the successor has, too, and would go on to wake you.
    HANDOFF_EVENT_DRAIN = 1,
    /// Flush and close the writers. Answer: sealed or failed; the lock is released after it.
    HANDOFF_EVENT_SEAL = 2,
    /// The lock is yours again, or still: reopen, take listeners again, accept. What the drain or the seal would have closed
    /// may be open, since either may have been given up. Answer: done or failed.
    HANDOFF_EVENT_RESUME = 3,
    /// Overlap mode: the incumbent, which drains, has given connections: call handoff_next_connection until it returns 0. It comes
    /// once for those that have come, and again if only some are taken; also in a drain of this process's own, which can give
    /// them on. No answer.
    HANDOFF_EVENT_CONNECTIONS = 4,
    /// As the result of serve. No answer.
    HANDOFF_EVENT_REPLACED = 5,
    /// As the result of serve. No answer.
    HANDOFF_EVENT_STOPPED = 6,
    /// The probation of the handoff that this process came by is over: nobody will take over from it, and the format on disk may
    /// be changed. Only after a handoff with HANDOFF_OPT_PROBATION_MS. No answer.
    HANDOFF_EVENT_CONFIRMED = 7,
    /// The successor serves on probation, and this process is its reserve: close the connections that you gave, without shutdown(2),
    /// or their clients see no end of them when the successor hangs up. Stay sealed: REPLACED follows, or, if the successor dies,
    /// RESUME. Only in a handoff with HANDOFF_OPT_PROBATION_MS. No answer.
    HANDOFF_EVENT_PARKED = 8,
}

/// handoff_event.flags
#[repr(C)]
pub enum handoff_event_flags {
    /// DRAIN, in overlap mode: the successor serves. This drain cannot be taken back; its end, also by its deadline, is the end of
    /// this process. RESUME: the successor had committed, and has died. Close the connections that were given to it, since it may
    /// have read and written them; memory that it was given may be half written.
    HANDOFF_EVENT_AFTER_COMMIT = 1,
}

/// Options. S = string, I = integer, + = may be given many times. Those below 20 are for handoff_detect_role; of them
/// handoff_supervisor_new takes BUILD_ID, and whatever takes a spawn CONTROL_PATH and DATA_DIR (default: none), as the daemon
/// should find them. The others are for a spawn. Times are in milliseconds, from 1 to 2147483647.
#[repr(C)]
pub enum handoff_options {
    /// S  default $HANDOFF_CONTROL; none: no control socket, the daemon cannot be replaced.
    HANDOFF_OPT_CONTROL_PATH = 1,
    /// S  default $HANDOFF_DATA_DIR; none: lock and gate beside the control path; no control path either: none.
    HANDOFF_OPT_DATA_DIR = 2,
    /// S  which build this is, for people, at most 256 bytes; default: the ELF build id of the executable.
    HANDOFF_OPT_BUILD_ID = 3,
    /// I  HANDOFF_MODE_EXCLUSIVE (default) or HANDOFF_MODE_OVERLAP. Not both: the one needs the lock, and the other must not
    /// have it.
    HANDOFF_OPT_MODES = 4,
    /// I  HANDOFF_FORKS_COUNT (default) or HANDOFF_FORKS_IGNORE, see handoff_sealed.
    HANDOFF_OPT_FORKS = 5,
    /// I  1 (default): one thread, alive only during a handoff, heartbeats and hears an abort; 0: none.
    HANDOFF_OPT_HELPER_THREAD = 6,
    /// I  1: accept a data directory on NFS and the like, whose locks may not keep other hosts out; 0 (default): refuse.
    HANDOFF_OPT_NETWORK_DATA_DIR = 7,
    /// I  1: a handoff to a successor that takes neither connections nor state is refused before the drain; 0 (default): it
    /// goes on, and what would give them returns HANDOFF_EREFUSED.
    HANDOFF_OPT_TRANSFER = 8,
    /// S+ spawn: argv, in order, the program's name first.
    HANDOFF_OPT_ARG = 20,
    /// S+ spawn: NAME=value, beside this process's own environment; not LISTEN_* and HANDOFF_*.
    HANDOFF_OPT_ENV = 21,
    /// S  spawn: path to execute, default argv[0]; without a slash it is searched in PATH.
    HANDOFF_OPT_BINARY = 22,
    /// I  spawn: the whole handoff, or a cold start until it is UNDECIDED; default 300000.
    HANDOFF_OPT_DEADLINE_MS = 23,
    /// I  spawn: the drain, default 60000.
    HANDOFF_OPT_DRAIN_GRACE_MS = 24,
    /// I  spawn: park the incumbent that long after commit, default 0. If the successor dies in this time, the incumbent takes over,
    /// by itself; perform_handoff has returned COMMITTED by then. The next perform_handoff ends it.
    HANDOFF_OPT_PROBATION_MS = 25,
    /// I  spawn: if the incumbent dies before it has sealed: 0 its own program starts cold (default), 1 the successor is promoted.
    HANDOFF_OPT_INCUMBENT_DEATH = 26,
    /// I  spawn: until a process says Hello, default 10000. One that starts cold and never does is one without the library: it
    /// is taken to serve then.
    HANDOFF_OPT_HELLO_MS = 27,
    /// I  spawn: from Begin to Ready, default 60000, and 1 s of slack; a hung application is not alive because its library is.
    HANDOFF_OPT_READY_MS = 28,
}

/// HANDOFF_OPT_MODES
#[repr(C)]
pub enum handoff_modes {
    /// Incumbent and successor must not both hold the data.
    HANDOFF_MODE_EXCLUSIVE = 1,
    /// They may: the successor accepts before the incumbent stops, so that somebody accepts at every instant. The incumbent hears
    /// nothing of the handoff until then; its only event is a drain with HANDOFF_EVENT_AFTER_COMMIT, and whatever its answer
    /// is, HANDOFF_REPLACED follows. There is no seal, no resume, and no lock, so handoff_write_begin lets everybody in: two that write
    /// the same data must agree on that among themselves.
    HANDOFF_MODE_OVERLAP = 2,
}

/// HANDOFF_OPT_FORKS
#[repr(C)]
pub enum handoff_forks {
    /// The seal waits for forked children that have neither exec'ed nor exited.
    HANDOFF_FORKS_COUNT = 0,
    /// It does not: they never write the data.
    HANDOFF_FORKS_IGNORE = 1,
}

/// handoff_readiness.flags
#[repr(C)]
pub enum handoff_ready_flags {
    /// This process could not serve; detail says why.
    HANDOFF_READY_UNHEALTHY = 1,
    /// It will change the format on disk, so that the incumbent could not take over any more.
    HANDOFF_READY_FORMAT_CHANGES = 2,
}

/// handoff_outcome.result
#[repr(C)]
pub enum handoff_outcomes {
    /// The successor serves.
    HANDOFF_OUTCOME_COMMITTED = 1,
    /// The incumbent serves.
    HANDOFF_OUTCOME_ROLLED_BACK = 2,
    /// It was committed, the successor died, the incumbent serves again.
    HANDOFF_OUTCOME_REVERTED = 3,
    /// Nobody was left (or nobody was there yet): a new process was started.
    HANDOFF_OUTCOME_STARTED_COLD = 4,
    /// Nothing was disturbed: busy, incompatible, bad input.
    HANDOFF_OUTCOME_REFUSED = 5,
    /// Not known at the deadline; the next call goes on with it. Of a cold start: it does not serve yet.
    HANDOFF_OUTCOME_UNDECIDED = 6,
    /// Nobody serves: the process that was to start cold could not be started, or has died.
    HANDOFF_OUTCOME_FAILED = 7,
    /// resume_from_journal: no handoff was open, and the daemon that serves was adopted.
    HANDOFF_OUTCOME_ADOPTED = 8,
}

/// Levels of a log line.
#[repr(C)]
#[allow(missing_docs)] // the names say it
pub enum handoff_log_levels {
    HANDOFF_LOG_ERROR = 1,
    HANDOFF_LOG_WARN = 2,
    HANDOFF_LOG_INFO = 3,
    HANDOFF_LOG_DEBUG = 4,
    HANDOFF_LOG_TRACE = 5,
}

/// Numbers never change, and are never used again for something else; ffi-tests/c/layout.c says the same.
const _: () = {
    assert!(HANDOFF_ABI == 1);
    assert!(handoff_results::HANDOFF_OK as i32 == 0);
    assert!(handoff_results::HANDOFF_COLD_START as i32 == 1);
    assert!(handoff_results::HANDOFF_SUCCESSOR as i32 == 2);
    assert!(handoff_results::HANDOFF_REPLACED as i32 == 3);
    assert!(handoff_results::HANDOFF_STOPPED as i32 == 4);
    assert!(handoff_results::HANDOFF_PENDING as i32 == 5);
    assert!(handoff_errors::HANDOFF_EINVAL as i32 == -1);
    assert!(handoff_errors::HANDOFF_ENOMEM as i32 == -2);
    assert!(handoff_errors::HANDOFF_ESYSTEM as i32 == -3);
    assert!(handoff_errors::HANDOFF_EBUSY as i32 == -4);
    assert!(handoff_errors::HANDOFF_ESTATE as i32 == -5);
    assert!(handoff_errors::HANDOFF_EFORKED as i32 == -6);
    assert!(handoff_errors::HANDOFF_EPANIC as i32 == -7);
    assert!(handoff_errors::HANDOFF_EABORTED as i32 == -8);
    assert!(handoff_errors::HANDOFF_ESTALE as i32 == -9);
    assert!(handoff_errors::HANDOFF_ELOCKED as i32 == -10);
    assert!(handoff_errors::HANDOFF_ESEALED as i32 == -11);
    assert!(handoff_errors::HANDOFF_ENOTGIVEN as i32 == -12);
    assert!(handoff_errors::HANDOFF_EREFUSED as i32 == -13);
    assert!(handoff_errors::HANDOFF_EVERSION as i32 == -14);
    assert!(handoff_errors::HANDOFF_EPROTOCOL as i32 == -15);
    assert!(handoff_errors::HANDOFF_ETOOBIG as i32 == -16);
    assert!(handoff_errors::HANDOFF_EDUPLICATE as i32 == -17);
    assert!(handoff_errors::HANDOFF_ELIMIT as i32 == -18);
    assert!(handoff_errors::HANDOFF_ESTOPPED as i32 == -19);
    assert!(handoff_errors::HANDOFF_ERESUME as i32 == -20);
    assert!(handoff_errors::HANDOFF_ENONAME as i32 == -21);
    assert!(handoff_phases::HANDOFF_PHASE_STARTING as i32 == 0);
    assert!(handoff_phases::HANDOFF_PHASE_BEGUN as i32 == 1);
    assert!(handoff_phases::HANDOFF_PHASE_SERVING as i32 == 2);
    assert!(handoff_phases::HANDOFF_PHASE_DRAINING as i32 == 3);
    assert!(handoff_phases::HANDOFF_PHASE_SEALING as i32 == 4);
    assert!(handoff_phases::HANDOFF_PHASE_SEALED as i32 == 5);
    assert!(handoff_phases::HANDOFF_PHASE_RESUMING as i32 == 6);
    assert!(handoff_phases::HANDOFF_PHASE_REPLACED as i32 == 7);
    assert!(handoff_events::HANDOFF_EVENT_DRAIN as i32 == 1);
    assert!(handoff_events::HANDOFF_EVENT_SEAL as i32 == 2);
    assert!(handoff_events::HANDOFF_EVENT_RESUME as i32 == 3);
    assert!(handoff_events::HANDOFF_EVENT_CONNECTIONS as i32 == 4);
    assert!(handoff_events::HANDOFF_EVENT_REPLACED as i32 == 5);
    assert!(handoff_events::HANDOFF_EVENT_STOPPED as i32 == 6);
    assert!(handoff_events::HANDOFF_EVENT_CONFIRMED as i32 == 7);
    assert!(handoff_events::HANDOFF_EVENT_PARKED as i32 == 8);
    assert!(handoff_event_flags::HANDOFF_EVENT_AFTER_COMMIT as i32 == 1);
    assert!(handoff_options::HANDOFF_OPT_CONTROL_PATH as i32 == 1);
    assert!(handoff_options::HANDOFF_OPT_DATA_DIR as i32 == 2);
    assert!(handoff_options::HANDOFF_OPT_BUILD_ID as i32 == 3);
    assert!(handoff_options::HANDOFF_OPT_MODES as i32 == 4);
    assert!(handoff_options::HANDOFF_OPT_FORKS as i32 == 5);
    assert!(handoff_options::HANDOFF_OPT_HELPER_THREAD as i32 == 6);
    assert!(handoff_options::HANDOFF_OPT_NETWORK_DATA_DIR as i32 == 7);
    assert!(handoff_options::HANDOFF_OPT_TRANSFER as i32 == 8);
    assert!(handoff_options::HANDOFF_OPT_ARG as i32 == 20);
    assert!(handoff_options::HANDOFF_OPT_ENV as i32 == 21);
    assert!(handoff_options::HANDOFF_OPT_BINARY as i32 == 22);
    assert!(handoff_options::HANDOFF_OPT_DEADLINE_MS as i32 == 23);
    assert!(handoff_options::HANDOFF_OPT_DRAIN_GRACE_MS as i32 == 24);
    assert!(handoff_options::HANDOFF_OPT_PROBATION_MS as i32 == 25);
    assert!(handoff_options::HANDOFF_OPT_INCUMBENT_DEATH as i32 == 26);
    assert!(handoff_options::HANDOFF_OPT_HELLO_MS as i32 == 27);
    assert!(handoff_options::HANDOFF_OPT_READY_MS as i32 == 28);
    assert!(handoff_modes::HANDOFF_MODE_EXCLUSIVE as i32 == 1);
    assert!(handoff_modes::HANDOFF_MODE_OVERLAP as i32 == 2);
    assert!(handoff_forks::HANDOFF_FORKS_COUNT as i32 == 0);
    assert!(handoff_forks::HANDOFF_FORKS_IGNORE as i32 == 1);
    assert!(handoff_ready_flags::HANDOFF_READY_UNHEALTHY as i32 == 1);
    assert!(handoff_ready_flags::HANDOFF_READY_FORMAT_CHANGES as i32 == 2);
    assert!(handoff_outcomes::HANDOFF_OUTCOME_COMMITTED as i32 == 1);
    assert!(handoff_outcomes::HANDOFF_OUTCOME_ROLLED_BACK as i32 == 2);
    assert!(handoff_outcomes::HANDOFF_OUTCOME_REVERTED as i32 == 3);
    assert!(handoff_outcomes::HANDOFF_OUTCOME_STARTED_COLD as i32 == 4);
    assert!(handoff_outcomes::HANDOFF_OUTCOME_REFUSED as i32 == 5);
    assert!(handoff_outcomes::HANDOFF_OUTCOME_UNDECIDED as i32 == 6);
    assert!(handoff_outcomes::HANDOFF_OUTCOME_FAILED as i32 == 7);
    assert!(handoff_outcomes::HANDOFF_OUTCOME_ADOPTED as i32 == 8);
    assert!(handoff_log_levels::HANDOFF_LOG_ERROR as i32 == 1);
    assert!(handoff_log_levels::HANDOFF_LOG_WARN as i32 == 2);
    assert!(handoff_log_levels::HANDOFF_LOG_INFO as i32 == 3);
    assert!(handoff_log_levels::HANDOFF_LOG_DEBUG as i32 == 4);
    assert!(handoff_log_levels::HANDOFF_LOG_TRACE as i32 == 5);
};
