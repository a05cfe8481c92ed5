//! What a supervisor tells of its service.

use super::{Executable, ExitStatus, HandoffOutcome, Stream};

/// What happened; see [`super::Supervisor::turn`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A handoff or a cold start has come to this phase (the names of `handoff status`).
    Phase(&'static str),
    /// The drain, the seal or the successor's initialisation progresses, in the application's own unit.
    Progress {
        /// How much of it is done.
        done: u64,
        /// Of how much.
        total: u64,
    },
    /// How it ended. A second outcome of the same id corrects the first: after [`super::Verdict::Undecided`], or
    /// [`super::Verdict::Reverted`] after [`super::Verdict::Committed`].
    Outcome(HandoffOutcome),
    /// The process that served, or started cold, has died, and no handoff was under way that deals with it: nobody serves
    /// now. Whether to [`super::Supervisor::start`] again is the caller's decision. After a cold start that failed it follows
    /// the [`Event::Outcome`].
    Exited {
        /// Its pid.
        pid: i32,
        /// Which process of the service it was.
        generation: u64,
        /// How it ended; the program that started it reaps it. None if the kernel does not tell (`SIGCHLD` ignored).
        status: Option<ExitStatus>,
        /// The same for people, with its last lines of stderr if captured.
        text: String,
    },
    /// A process has died in its probation, by itself or because it was condemned; what follows is an [`Event::Outcome`].
    ProbationFailed {
        /// What it was started from, if that could be kept open.
        program: Option<Executable>,
        /// How it ended.
        text: String,
    },
    /// What a process wrote, see [`super::SpawnSpec::capture_stderr`]. Bytes, not lines. What was not fetched when the supervisor
    /// is killed comes again from the next one; so does a line, or a part of [`crate::limits::LINE_BYTES_MAX`] of a long
    /// one, of which the end was not there yet.
    Output {
        /// The same for all that comes from this process and the children that it leaves.
        key: u64,
        /// Who wrote it.
        pid: i32,
        /// Which process of the service it is; 0 if it never served.
        generation: u64,
        /// Where.
        stream: Stream,
        /// What; empty if there is nothing but what follows.
        bytes: Vec<u8>,
        /// Bytes before these that were left out: they came faster than they were read. What follows begins with a line.
        dropped: u64,
        /// The process is gone: nothing more comes from this stream of it.
        last: bool,
    },
}
