//! What happens to a service.

use std::rc::Rc;
use std::time::Duration;

use super::status::ListenerStatus;
use crate::supervisor::{ExitStatus, HandoffOutcome};

/// What happened to a service.
#[derive(Clone, Debug)]
pub enum Event {
    /// A process was started.
    Started {
        /// Its pid.
        pid: i32,
        /// Which process of the service it is.
        generation: u64,
    },
    /// The process that was started is ready: it serves.
    Ready {
        /// Its pid.
        pid: i32,
    },
    /// A process that another supervisor has started, and that is gone, was taken over.
    Adopted {
        /// Its pid.
        pid: i32,
        /// Which process of the service it is.
        generation: u64,
    },
    /// A daemon of another supervisor is waited for: in which phase, and for whom, for people.
    Adopting(&'static str, String),
    /// A socket is bound, or was taken over.
    Listening(ListenerStatus),
    /// What an operator should know.
    Warning(String),
    /// It is being stopped: why.
    Stopping(String),
    /// It can not start until another unit is what it is to be, or this one is changed: why.
    Blocked(String),
    /// That is over.
    Unblocked,
    /// It is no more in the configuration, and nothing of it runs. Nothing more is said of it.
    Removed,
    /// It can not be what it should be until an operator acts: why.
    Broken(String),
    /// A start or a handoff has come to this phase; with what it waits for there, for people.
    Phase(&'static str, Option<String>),
    /// A step of a handoff progresses, in the application's own unit.
    Progress {
        /// How much of it is done.
        done: u64,
        /// Of how much.
        total: u64,
    },
    /// How an `upgrade` or a `rollback` ended: whoever waits for it may go.
    Outcome(&'static str, Rc<HandoffOutcome>),
    /// It ended otherwise than the outcome of the same id said; who waits now waits for another one.
    Corrected(&'static str, Rc<HandoffOutcome>),
    /// The daemon ended, or could not be started, and will be started again.
    Restarting {
        /// What happened.
        text: String,
        /// When.
        after: Duration,
        /// How it ended; none: it could not be started, or that is not known.
        status: Option<ExitStatus>,
        /// What ended it.
        cause: RestartCause,
    },
    /// A program has died in its probation, or was found to be bad: for people.
    ProbationFailed {
        /// Which, and whether that is remembered.
        text: String,
    },
    /// What the daemon wrote. It is in [`Service::log`](super::Service::log) already, as lines.
    Output {
        /// What; it may be empty, if a line ended with its process.
        bytes: Vec<u8>,
        /// Bytes before these that came faster than they could be read.
        dropped: u64,
    },
    /// The output can not be written to files, or can be again: for people.
    Log(String),
    /// The daemon ended for good, and others that it has left are still to end: for people.
    Ending {
        /// How it ended, and who is left.
        text: String,
    },
    /// The service ended for good.
    Ended(Ended),
}

/// Why a process is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum RestartCause {
    /// It has exited.
    Exit,
    /// A signal has killed it.
    Signal,
    /// It was not well.
    Health,
    /// It did not say that it is alive.
    Watchdog,
    /// It could not be started, or was not ready in time.
    Start,
    /// Nobody knows how it ended.
    Unknown,
}

impl RestartCause {
    /// Of a process that has ended by itself.
    pub(super) fn of(status: Option<ExitStatus>) -> Self {
        match status {
            Some(ExitStatus { code: Some(_), .. }) => Self::Exit,
            Some(ExitStatus { signal: Some(_), .. }) => Self::Signal,
            Some(_) | None => Self::Unknown,
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Health => "health",
            Self::Watchdog => "watchdog",
            Self::Start => "start",
            Self::Unknown => "unknown",
        }
    }
}

/// How a service ended for good.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ended {
    /// The status of its last process; none if it is unknown or there was none.
    pub status: Option<ExitStatus>,
    /// Why its program could not be started (errno(3)).
    pub errno: Option<i32>,
    /// For people.
    pub text: String,
}
