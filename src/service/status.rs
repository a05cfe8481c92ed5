//! What a service looks like from outside.

use std::rc::Rc;

use serde::{Serialize, Serializer};

use crate::supervisor::{Draining, HandoffOutcome};
use crate::sys::clock::monotonic_ns;

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
    /// Processes that were replaced in overlap mode, and serve their last clients.
    pub draining: Vec<DrainingStatus>,
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

/// A process that was replaced in overlap mode, and serves its last clients.
#[derive(Clone, Debug, Serialize)]
pub struct DrainingStatus {
    /// Its pid.
    pub pid: i32,
    /// Which process of the service it was.
    pub generation: u64,
    /// For how long it has been draining.
    pub since_ms: u64,
    /// For how long it still may.
    pub left_ms: u64,
}

impl DrainingStatus {
    pub(super) fn of(draining: &Draining) -> Self {
        let Draining { pid, generation, since_ns, deadline_ns } = *draining;
        let ms = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) / 1_000_000;
        let now_ns = monotonic_ns();
        Self { pid, generation, since_ms: ms(since_ns, now_ns), left_ms: ms(now_ns, deadline_ns) }
    }
}

/// A socket of a service.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Where it is bound, with the port that the kernel chose.
    pub address: String,
    /// How many sockets share the address.
    pub sockets: usize,
}

fn outcome<S: Serializer>(outcome: &Option<Rc<HandoffOutcome>>, serializer: S) -> Result<S::Ok, S::Error> {
    outcome.as_deref().serialize(serializer)
}
