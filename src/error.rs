//! One error type, with one mapping to the codes of the C ABI.

use std::io;

/// What went wrong: what was tried, on what, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument or a setting makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried, and on what.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another thread is inside a call of the same class, or a hook calls back.
    #[error("busy: {0}")]
    Busy(&'static str),
    /// Not in this phase, or not built yet.
    #[error("{0}")]
    State(String),
    /// Called in a forked child.
    #[error("this is a forked child: the handle belongs to its parent")]
    Forked,
    /// A panic was caught at the C boundary; the handle is of no use any more.
    #[error("the library panicked; this handle can only be freed")]
    Panicked,
    /// The handoff was aborted: exit.
    #[error("the handoff was aborted: {0}")]
    Aborted(String),
    /// The event was answered, cancelled or is late.
    #[error("the event is over: it was answered, cancelled, or its deadline has passed")]
    Stale,
    /// Somebody else may write the data.
    #[error("{0}")]
    Locked(String),
    /// The data is sealed: it must not be written.
    #[error("the data is sealed")]
    Sealed,
    /// No listener at all was given.
    #[error("no listener was given to this process: bind one")]
    NotGiven,
    /// Listeners were given, but none of this name.
    #[error("{0}")]
    NoName(String),
    /// The other side refuses.
    #[error("refused: {0}")]
    Refused(String),
    /// No version in common.
    #[error("{0}")]
    Version(String),
    /// What came is not of this protocol.
    #[error("{0}")]
    Protocol(String),
    /// More than fits.
    #[error("{0}")]
    TooBig(String),
    /// Twice the same name or key.
    #[error("{0}")]
    Duplicate(String),
    /// A limit of the process or the system.
    #[error("{0}")]
    Limit(String),
    /// The application asked to stop.
    #[error("stopped")]
    Stopped,
    /// The incumbent can not take over again.
    #[error("{0}")]
    Resume(String),
}

/// What a call of this library gives.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The code of the C ABI, from `handoff.h`. A number is never used again for something else.
    pub fn code(&self) -> i32 {
        match self {
            Self::Invalid(_) => -1,
            Self::System { .. } => -3,
            Self::Busy(_) => -4,
            Self::State(_) => -5,
            Self::Forked => -6,
            Self::Panicked => -7,
            Self::Aborted(_) => -8,
            Self::Stale => -9,
            Self::Locked(_) => -10,
            Self::Sealed => -11,
            Self::NotGiven => -12,
            Self::Refused(_) => -13,
            Self::Version(_) => -14,
            Self::Protocol(_) => -15,
            Self::TooBig(_) => -16,
            Self::Duplicate(_) => -17,
            Self::Limit(_) => -18,
            Self::Stopped => -19,
            Self::Resume(_) => -20,
            Self::NoName(_) => -21,
        }
    }

    /// Descriptors, of which `what` says what they are, can not be had in a process: this one, or one that it tells so.
    pub(crate) fn no_room(what: &str, process: &str) -> Self {
        Self::Limit(format!(
            "{what} did not fit into {process}: its RLIMIT_NOFILE is reached (ulimit -Hn, LimitNOFILE=)"
        ))
    }

    /// For `map_err`: names what was tried.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}
