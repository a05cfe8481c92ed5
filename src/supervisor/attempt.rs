//! What was asked for, and when each step of it came.

use super::outcome::HandoffOutcome;
use super::process::Process;
use super::spec::SpawnSpec;
use crate::protocol::Message;
use crate::protocol::supervisor::Verdict;
use crate::protocol::transfer::Totals;
use crate::sys::clock::{monotonic_ns, nanoseconds};
use std::sync::Arc;

/// A handoff or a cold start, until the next one.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Attempt {
    /// Zero for a cold start.
    pub(super) id: u64,
    #[serde(with = "crate::sys::inherit::shared")]
    pub(super) spec: Arc<SpawnSpec>,
    pub(super) started_ns: u64,
    /// A program could not be executed.
    pub(super) errno: Option<i32>,
    pub(super) spawn_ns: u64,
    warmed_ns: u64,
    prepare_ns: u64,
    drained_ns: u64,
    accept_stopped_ns: u64,
    seal_ns: u64,
    sealed_ns: u64,
    begin_ns: u64,
    ready_ns: u64,
    committed_ns: u64,
    /// When a process of the service died last.
    died_ns: u64,
    /// What the successor took.
    taken: Totals,
}

impl Attempt {
    pub(super) fn new(id: u64, spec: Arc<SpawnSpec>, started_ns: u64) -> Self {
        Self {
            id,
            spec,
            started_ns,
            errno: None,
            spawn_ns: 0,
            warmed_ns: 0,
            prepare_ns: 0,
            drained_ns: 0,
            accept_stopped_ns: 0,
            seal_ns: 0,
            sealed_ns: 0,
            begin_ns: 0,
            ready_ns: 0,
            committed_ns: 0,
            died_ns: 0,
            taken: Totals::default(),
        }
    }

    pub(super) fn deadline_ns(&self) -> u64 {
        self.started_ns.saturating_add(nanoseconds(self.spec.deadline))
    }

    /// A message was sent, or has come.
    pub(super) fn note(&mut self, message: &Message) {
        if message.id().0 != self.id || self.id == 0 {
            return;
        }
        let step = match message {
            Message::Warmed(_) => &mut self.warmed_ns,
            Message::PrepareHandoff(_) => &mut self.prepare_ns,
            Message::Drained(drained) => {
                self.accept_stopped_ns = drained.accept_stopped_ns;
                &mut self.drained_ns
            }
            Message::SealRequest(_) => &mut self.seal_ns,
            Message::SealComplete(_) => &mut self.sealed_ns,
            Message::Begin(_) => &mut self.begin_ns,
            Message::Ready(ready) => {
                self.taken = ready.taken;
                &mut self.ready_ns
            }
            Message::Serving(serving) => {
                self.committed_ns = serving.committed_ns;
                return;
            }
            _ => return,
        };
        *step = monotonic_ns();
    }

    /// A successor that does not link the library is ready: its initialisation began with its start.
    pub(super) fn note_ready(&mut self) {
        (self.begin_ns, self.ready_ns) = (self.spawn_ns, monotonic_ns());
    }

    pub(super) fn note_death(&mut self) {
        self.died_ns = monotonic_ns();
    }

    /// For how long nobody accepted. Whoever serves after an undo does so from now on.
    fn pause_ns(&self, verdict: Verdict) -> u64 {
        match verdict {
            Verdict::Committed => between(self.accept_stopped_ns, self.committed_ns),
            Verdict::RolledBack => between(self.accept_stopped_ns, monotonic_ns()),
            Verdict::Reverted => between(self.died_ns, monotonic_ns()),
            _ => 0,
        }
    }

    /// What the caller hears. `server` is the process that serves now.
    pub(super) fn outcome(&self, verdict: Verdict, reason: String, server: Option<&Process>) -> HandoffOutcome {
        let moved = if verdict == Verdict::Committed { self.taken } else { Totals::default() };
        HandoffOutcome {
            id: self.id,
            verdict,
            reason,
            generation: server.map_or(0, |server| server.generation),
            pid: server.map_or(0, |server| server.pid),
            pidfd: server.and_then(|server| server.pidfd.try_clone().ok()).map(Into::into),
            warm_ns: between(self.spawn_ns, self.warmed_ns),
            drain_ns: between(self.prepare_ns, self.drained_ns),
            seal_ns: between(self.seal_ns, self.sealed_ns),
            ready_ns: between(self.begin_ns, self.ready_ns),
            pause_ns: self.pause_ns(verdict),
            total_ns: between(self.started_ns, monotonic_ns()),
            transferred_connections: moved.connections,
            transferred_state_bytes: moved.state_bytes,
            errno: self.errno,
        }
    }
}

/// Zero if one of the two never came. The daemons' own times are not trusted to be in order.
fn between(from_ns: u64, to_ns: u64) -> u64 {
    if from_ns == 0 { 0 } else { to_ns.saturating_sub(from_ns) }
}
