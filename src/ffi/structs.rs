//! The structs and callbacks of the header. They grow at the end, and carry their size.
#![allow(non_camel_case_types)] // C's names

use super::handle::Handoff;
use std::ffi::{c_char, c_void};
use std::mem::offset_of;

/// What the application is asked to do. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct handoff_event {
    /// As filled in by the library.
    pub size: u32,
    /// HANDOFF_EVENT_*
    pub kind: u32,
    /// For the answer; an answer that comes too late gets HANDOFF_ESTALE and does nothing.
    pub id: u64,
    /// Absolute, CLOCK_MONOTONIC; UINT64_MAX: none.
    pub deadline_ns: u64,
    /// Borrowed: becomes readable (level) when the event is cancelled or late; -1 if none.
    pub cancel_fd: i32,
    /// HANDOFF_EVENT_AFTER_COMMIT
    pub flags: u32,
    /// The same in every log of this handoff; 0 outside one.
    pub handoff_id: u64,
}

/// Whether, and with what, this process could serve. Zero-initialise, set size.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct handoff_readiness {
    /// sizeof(handoff_readiness)
    pub size: u32,
    /// HANDOFF_READY_*
    pub flags: u32,
    /// Last revision opened, one per shard, exactly as many as were given to handoff_sealed: a lower one, or another number
    /// of them, refuses the commit. Without revisions on both sides a lost write can not be noticed.
    pub revisions: *const u64,
    /// How many.
    pub revision_count: usize,
    /// For people: where it listens, why it is unhealthy. May be NULL.
    pub detail: *const c_char,
}

/// A connection that the incumbent moved. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct handoff_connection {
    /// As filled in by the library.
    pub size: u32,
    /// Yours.
    pub fd: i32,
    /// Borrowed until the next call of next_connection.
    pub name: *const c_char,
    /// The same.
    pub state: *const c_void,
    /// Bytes of state.
    pub state_size: usize,
}

/// How a handoff, a start or an adoption ended. Grows at the end. Times are 0 if it did not come so far.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct handoff_outcome {
    /// As filled in by the library.
    pub size: u32,
    /// HANDOFF_OUTCOME_*
    pub result: i32,
    /// The same in every log of this handoff; 0 for a cold start that nobody's death caused, and without a handoff.
    pub handoff_id: u64,
    /// 1, 2, 3 ...: which process of the service serves now; 0 if none does.
    pub generation: u64,
    /// The process that serves now, or is about to (HANDOFF_OUTCOME_UNDECIDED); 0 if none does. A number may be given to
    /// another process: signal it through pidfd.
    pub pid: i32,
    /// Its pidfd (pidfd_open(2)), yours, close-on-exec; readable once it is dead; -1 if pid is 0, or no descriptor was left.
    pub pidfd: i32,
    /// From the spawn until the successor had loaded what needs no data.
    pub warm_ns: u64,
    /// The drain.
    pub drain_ns: u64,
    /// The seal.
    pub seal_ns: u64,
    /// From begin to ready.
    pub ready_ns: u64,
    /// What a client could feel: from "accept closed" to committed, or until the incumbent served again; of a commit that
    /// was reverted, from the successor's death.
    pub pause_ns: u64,
    /// All, from the call to its outcome.
    pub total_ns: u64,
    /// For people; with a successor's exit status. Empty if all went well.
    pub reason: [c_char; 512],
    /// Connections that moved to the successor, if it serves.
    pub connections: u64,
    /// Bytes of state that moved to it: blobs, and what belongs to connections.
    pub state_bytes: u64,
}

impl Default for handoff_outcome {
    fn default() -> Self {
        Self {
            size: size_of::<Self>() as u32,
            result: 0,
            handoff_id: 0,
            generation: 0,
            pid: 0,
            pidfd: -1,
            warm_ns: 0,
            drain_ns: 0,
            seal_ns: 0,
            ready_ns: 0,
            pause_ns: 0,
            total_ns: 0,
            reason: [0; 512],
            connections: 0,
            state_bytes: 0,
        }
    }
}

/// A hook. It has no result: it answers by a call with event->id, and has failed if it returns without. It must return:
/// no exception, longjmp or pthread_exit may leave it.
pub type handoff_hook_fn =
    Option<unsafe extern "C-unwind" fn(h: *mut Handoff, event: *const handoff_event, user: *mut c_void)>;
/// A log line; level is HANDOFF_LOG_*. Runs only on a thread that is inside a call of the library, one line at a time,
/// and may itself call the library as a hook may.
pub type handoff_log_fn =
    Option<unsafe extern "C-unwind" fn(user: *mut c_void, level: i32, target: *const c_char, text: *const c_char)>;
/// Frees user. Called exactly once, also when the call that took it fails.
pub type handoff_destroy_fn = Option<unsafe extern "C-unwind" fn(user: *mut c_void)>;

const fn size_of_field<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

/// What compiled programs rely on: size and alignment, then each field, its offset and its size. ffi-tests/c/layout.c says
/// the same to compilers of C.
macro_rules! layout {
    ($name:ident: $size:literal, $align:literal; $($field:ident: $offset:literal, $bytes:literal;)+) => {
        const _: () = {
            assert!(size_of::<$name>() == $size && align_of::<$name>() == $align);
            $(assert!(offset_of!($name, $field) == $offset && size_of_field(|s: &$name| &s.$field) == $bytes);)+
        };
    };
}

#[cfg(target_pointer_width = "64")]
layout! {
    handoff_readiness: 32, 8;
    size: 0, 4; flags: 4, 4; revisions: 8, 8; revision_count: 16, 8; detail: 24, 8;
}
layout! {
    handoff_event: 40, 8;
    size: 0, 4; kind: 4, 4; id: 8, 8; deadline_ns: 16, 8; cancel_fd: 24, 4; flags: 28, 4;
    handoff_id: 32, 8;
}
#[cfg(target_pointer_width = "64")]
layout! {
    handoff_connection: 32, 8;
    size: 0, 4; fd: 4, 4; name: 8, 8; state: 16, 8; state_size: 24, 8;
}
layout! {
    handoff_outcome: 608, 8;
    size: 0, 4; result: 4, 4; handoff_id: 8, 8; generation: 16, 8; pid: 24, 4; pidfd: 28, 4;
    warm_ns: 32, 8; drain_ns: 40, 8; seal_ns: 48, 8; ready_ns: 56, 8; pause_ns: 64, 8;
    total_ns: 72, 8; reason: 80, 512;
    connections: 592, 8; state_bytes: 600, 8;
}
