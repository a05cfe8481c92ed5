//! What of a service outlives its supervisor, for the one that comes after a crash.

use super::ending::UNKNOWN_END;
use super::event::Ended;
use super::hooks::Moment;
use super::restart::{Policy, Restarts};
use super::{Service, State};
use crate::limits::ADOPTED_READY;
use crate::sys::clock::{monotonic_ns, nanoseconds};

/// How a process ended that nobody saw.
const UNSEEN: &str = "its process ended while there was no supervisor, and how is not known";

/// What was known of a service. Times are those of `CLOCK_MONOTONIC`: it is true of one boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::service) struct Past {
    /// The number of its last process.
    pub(in crate::service) generation: u64,
    restarts: Restarts,
    cause: Option<String>,
    stage: Stage,
    /// When that process was started, in `CLOCK_MONOTONIC` nanoseconds.
    #[serde(default)]
    since_ns: u64,
}

/// What it was doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Stage {
    /// Nothing that is known.
    #[default]
    New,
    /// It was told to stop.
    Rests,
    /// It had a process.
    Runs,
    /// It was waiting for its next start.
    Waits { until_ns: u64, why: String },
    /// It had ended by itself, for good.
    Ended { how: Ended, why: String },
}

impl Service {
    /// For the supervisor after this one.
    pub(in crate::service) fn past(&self) -> Past {
        let why = || self.why.clone();
        let stage = match &self.state {
            State::New | State::Adopting(_) => Stage::New,
            State::Starting if self.hooks.running() == Some(Moment::PreStart) => Stage::New,
            State::Starting | State::Running => Stage::Runs,
            State::Waiting(until_ns) => Stage::Waits { until_ns: *until_ns, why: why() },
            // What it has left is still to end.
            State::Stopping(_) if !self.stopped && self.late.is_none() => match &self.last_end {
                Some(how) => Stage::Ended { how: how.clone(), why: why() },
                None => Stage::Runs,
            },
            State::Stopping(_) | State::Ended(_) if self.stopped => Stage::Rests,
            State::Stopping(_) => Stage::Runs,
            State::Ended(how) => Stage::Ended { how: how.clone(), why: why() },
        };
        let generation = self.supervisor.generation();
        let (restarts, cause) = (self.restarts.clone(), self.cause.clone());
        Past { generation, restarts, cause, stage, since_ns: self.started_ns }
    }

    /// Nobody of it is left. It is what it was, but for what has come meanwhile.
    pub(super) fn go_on_from(&mut self, past: Past) {
        match past.stage {
            Stage::Runs => self.end_unseen(),
            Stage::New if self.supervisor.has_lost() => self.end_unseen(),
            Stage::New | Stage::Rests => {}
            Stage::Waits { until_ns, why } => (self.state, self.why) = (State::Waiting(until_ns), why),
            Stage::Ended { how, why } => (self.state, self.why) = (State::Ended(how), why),
        }
    }

    /// How often it failed before, whoever lives now.
    pub(super) fn remember(&mut self, past: &Past) {
        self.restarts = past.restarts.clone();
        self.restarts.set_rules(self.settings.restart);
        self.cause.clone_from(&past.cause);
    }

    /// When the process was started that was adopted, as far as that is known. What waits for its sign has some time for that in any case.
    pub(super) fn remember_start(&mut self, past: &Past) {
        if past.generation != self.supervisor.status().generation || past.since_ns == 0 {
            return;
        }
        self.started_ns = past.since_ns.min(self.started_ns);
        if let (State::Starting, Some(time)) = (&self.state, self.settings.start_timeout) {
            let late_ns = monotonic_ns().saturating_add(nanoseconds(ADOPTED_READY.min(time)));
            self.started_ns = self.started_ns.max(late_ns.saturating_sub(nanoseconds(time)));
        }
    }

    /// That is no failure, and no end as one wants it, either: what is never started again by itself waits for an operator.
    fn end_unseen(&mut self) {
        let why = match self.settings.restart.policy {
            _ if self.settings.oneshot => UNKNOWN_END,
            Policy::Never => UNSEEN,
            _ => {
                self.note_meanwhile(UNSEEN);
                return;
            }
        };
        self.why = why.to_owned();
        self.state = State::Ended(Ended { status: None, errno: None, text: self.why.clone() });
    }

    /// For the reason of the next start.
    pub(super) fn note_meanwhile(&mut self, what: &str) {
        self.meanwhile = Some(match self.meanwhile.take() {
            Some(before) => format!("{before}; {what}"),
            None => what.to_owned(),
        });
    }
}
