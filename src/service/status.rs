//! What a service looks like from outside.

use std::rc::Rc;

use serde::{Serialize, Serializer};

use crate::supervisor::HandoffOutcome;

/// A service: what is, what is wanted, and why.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// `starting`, `running`, `upgrading`, `waiting` (for its next start), `stopping`, `stopped` or `failed`.
    pub state: &'static str,
    /// `running` or `stopped`.
    pub want: &'static str,
    /// Why it is not what it should be, or what made it what it is.
    pub why: String,
    /// The phase of the handoff or the start that is under way; `idle` if none is.
    pub phase: &'static str,
    /// The process that serves or starts.
    pub pid: Option<i32>,
    /// Which process of the service it is: 1, 2, 3, …
    pub generation: u64,
    /// The program that runs, and that is started again after a crash.
    pub program: String,
    /// Its sockets.
    pub listeners: Vec<ListenerStatus>,
    /// It has said Hello: it can be replaced. While it starts, that is not known yet.
    pub linked: bool,
    /// While it is `waiting`: how long until its next start.
    pub next_start_ms: Option<u64>,
    /// How often it was started again after it ended by itself.
    pub restarts: u64,
    /// The process before it, which takes over if it dies: in a probation.
    pub parked_pid: Option<i32>,
    /// For how much longer.
    pub probation_left_ms: Option<u64>,
    /// How the last handoff ended that was not refused.
    #[serde(serialize_with = "outcome")]
    pub last_handoff: Option<Rc<HandoffOutcome>>,
}

/// A socket of a service.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Where it is bound, with the port that the kernel chose.
    pub address: String,
}

fn outcome<S: Serializer>(outcome: &Option<Rc<HandoffOutcome>>, serializer: S) -> Result<S::Ok, S::Error> {
    outcome.as_deref().serialize(serializer)
}
