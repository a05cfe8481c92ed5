//! What a service is doing.

use super::process::Process;
use super::unlinked::WAITING;
use super::{Mode, Said, Supervisor};
use crate::protocol::supervisor::Phase;

/// What the service is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The name of the machine's phase: "idle", "starting", "warming", "draining", …
    pub phase: &'static str,
    /// The process that serves, or starts cold; None if there is none.
    pub pid: Option<i32>,
    /// Which process of the service it is.
    pub generation: u64,
    /// It has said Hello, and can be talked to.
    pub linked: bool,
    /// How it can be replaced, if it has said Hello.
    pub mode: Option<Mode>,
    /// It has said that it serves.
    pub serving: bool,
    /// The handoff that is under way.
    pub handoff_id: Option<u64>,
    /// N, while a handoff is under way.
    pub successor_pid: Option<i32>,
    /// What the process that serves has said to `NOTIFY_SOCKET`.
    pub said: Said,
    /// The reserve of the process that serves, in a probation.
    pub parked_pid: Option<i32>,
    /// When the probation ends: absolute `CLOCK_MONOTONIC` nanoseconds.
    pub probation_end_ns: Option<u64>,
    /// Those that were replaced in overlap mode, and serve their last clients.
    pub draining: Vec<Draining>,
}

/// A process that was replaced in overlap mode, and serves its last clients. Times are absolute `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    /// Its pid.
    pub pid: i32,
    /// Which process of the service it was; 0 if it was undone, as it was not ready in time, and may have accepted clients.
    pub generation: u64,
    /// When it was replaced.
    pub since_ns: u64,
    /// When it must be done; then it is ended.
    pub deadline_ns: u64,
}

impl Supervisor {
    /// What the service is doing. Never waits.
    pub fn status(&self) -> Status {
        let engine = &self.engine;
        let pid = |process: &Option<Process>| process.as_ref().map(|process| process.pid);
        Status {
            phase: if engine.waits_for_readiness() { WAITING } else { engine.machine.phase().name() },
            pid: pid(self.server()),
            generation: self.server().as_ref().map_or(0, |process| process.generation),
            linked: engine.machine.incumbent_is_linked(),
            mode: engine.machine.incumbent_mode(),
            serving: engine.machine.incumbent_serves(),
            handoff_id: engine.handoff_id(),
            said: self.server().as_ref().map(|process| process.said.clone()).unwrap_or_default(),
            successor_pid: pid(&engine.processes.successor),
            parked_pid: pid(&engine.processes.parked),
            probation_end_ns: self.in_probation().then_some(engine.probation.end_ns),
            draining: engine.draining(),
        }
    }

    /// The process that serves, or starts cold. After a commit that is N, also while O is still on its way out.
    pub(super) fn server(&self) -> &Option<Process> {
        let processes = &self.engine.processes;
        match self.engine.machine.phase() {
            Phase::Retiring if processes.successor.is_some() => &processes.successor,
            _ => &processes.incumbent,
        }
    }
}
