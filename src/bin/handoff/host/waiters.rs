//! Clients that wait for something: an outcome, units that are up or down, the end.

use std::collections::BTreeMap;
use std::time::Duration;

use handoff::service::fleet::{Goal, Reached};
use handoff::sys::inherit::Word;
use serde_json::{Value, json};

use super::Host;
use crate::control::server::{Call, Client};
use crate::control::{ErrorCode, Request, RpcError};

/// How long the end waits for what a client asks that has connected just before.
const LAST_CALLS: Duration = Duration::from_millis(100);

/// The results that are success.
pub(super) const COMMITTED: &str = "committed";
pub(super) const REVERTED: &str = "reverted";

/// A client that waits.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Waiter {
    pub(super) client: Client,
    pub(super) id: Value,
    pub(super) awaits: Awaits,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) enum Awaits {
    /// How an upgrade or a rollback ends.
    Outcome {
        service: String,
        /// The result that is success.
        #[serde(with = "handoff::sys::inherit::word")]
        wanted: Word,
        /// What it asked for has not begun yet, or had not then.
        waiting: Option<u64>,
    },
    /// That units are as they should be.
    Units(BTreeMap<String, Awaited>),
    /// The end of the supervisor.
    End,
}

/// What is waited for of one unit.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) enum Awaited {
    Goal(Goal),
    /// The outcome of a restart by handoff.
    Outcome,
    /// How it ended.
    Told(Value),
}

impl Awaits {
    fn concerns(&self, name: &str) -> bool {
        match self {
            Self::Outcome { service, .. } => service == name,
            Self::Units(units) => matches!(units.get(name), Some(Awaited::Outcome)),
            Self::End => false,
        }
    }
}

impl Host {
    /// To everybody who waits for an outcome of this service.
    pub(super) fn tell(&mut self, name: &str, method: &str, params: &Value) {
        for waiter in self.waiters.iter().filter(|waiter| waiter.awaits.concerns(name)) {
            self.server.notify(waiter.client, method, params.clone());
        }
    }

    /// A handoff of this service has ended so.
    pub(super) fn answer_outcome_of(&mut self, name: &str, outcome: &Value) {
        let mut rest = Vec::new();
        for mut waiter in std::mem::take(&mut self.waiters) {
            match &mut waiter.awaits {
                Awaits::Outcome { service, wanted, .. } if service == name => {
                    let wanted = *wanted;
                    self.answer_outcome(&waiter, name, wanted, outcome.clone());
                    continue;
                }
                Awaits::Units(units) => {
                    if let Some(awaited @ Awaited::Outcome) = units.get_mut(name) {
                        *awaited = Awaited::Told(outcome.clone());
                    }
                }
                Awaits::Outcome { .. } | Awaits::End => {}
            }
            rest.push(waiter);
        }
        self.waiters = rest;
    }

    pub(super) fn answer_outcome(&mut self, waiter: &Waiter, service: &str, wanted: &str, outcome: Value) {
        let from = self.seen.from(service, &outcome);
        let result = json!({ "service": service, "outcome": outcome, "wanted": wanted, "from": from });
        self.server.answer(waiter.client, &waiter.id, Ok(result));
    }

    /// Nobody waits any more for what a command asked for that has ended. If it has not begun, it never will.
    pub(super) fn forget_gone(&mut self) {
        let (here, gone) =
            std::mem::take(&mut self.waiters).into_iter().partition(|waiter| self.server.has(waiter.client));
        self.waiters = here;
        for waiter in Vec::<Waiter>::from_iter(gone) {
            if let Awaits::Outcome { service, waiting: Some(waiting), .. } = &waiter.awaits {
                self.fleet.give_up(service, *waiting);
            }
        }
        self.held.retain(|call| self.server.has(call.client));
    }

    /// Whose units are as they should be, or will not come to it.
    pub(super) fn answer_reached(&mut self) {
        let mut rest = Vec::new();
        for waiter in std::mem::take(&mut self.waiters) {
            match &waiter.awaits {
                Awaits::Units(units) if !units.iter().any(|(name, awaited)| self.is_open(name, awaited)) => {
                    let answer = self.units_answer(units);
                    self.server.answer(waiter.client, &waiter.id, Ok(answer));
                }
                _ => rest.push(waiter),
            }
        }
        self.waiters = rest;
    }

    fn is_open(&self, name: &str, awaited: &Awaited) -> bool {
        match awaited {
            Awaited::Goal(goal) => self.fleet.reached(name, *goal) == Reached::NotYet,
            Awaited::Outcome => true,
            Awaited::Told(_) => false,
        }
    }

    /// How each unit is; `ok` if that is what was asked for, or may still become so.
    pub(super) fn units_answer(&self, units: &BTreeMap<String, Awaited>) -> Value {
        let all = self.fleet.status_of_all(units.keys());
        let all: BTreeMap<&str, _> = all.iter().map(|status| (status.name.as_str(), status)).collect();
        let entry = |(name, awaited): (&String, &Awaited)| {
            let status = all.get(name.as_str());
            let (ok, why, outcome) = match awaited {
                Awaited::Goal(goal) => match self.fleet.reached(name, *goal) {
                    Reached::No(why) => (false, Some(why), Value::Null),
                    Reached::Yes | Reached::NotYet => (true, None, Value::Null),
                },
                Awaited::Outcome => (true, None, Value::Null),
                Awaited::Told(outcome) => (outcome["result"] == COMMITTED, None, outcome.clone()),
            };
            json!({
                "unit": name,
                "ok": ok,
                "state": status.as_ref().map_or("gone", |status| status.state),
                "pid": status.and_then(|status| status.pid),
                "why": why,
                "outcome": outcome,
            })
        };
        json!({ "units": units.iter().map(entry).collect::<Vec<_>>() })
    }

    /// Of a shutdown, with whoever lives all the same.
    fn stopped(&self) -> Value {
        json!({ "stopped": true, "left": self.fleet.left() })
    }

    /// At the end.
    pub(super) fn answer_last(&mut self) {
        self.answer_reached();
        for waiter in std::mem::take(&mut self.waiters) {
            let answer = match waiter.awaits {
                Awaits::End => Ok(self.stopped()),
                Awaits::Outcome { .. } => {
                    Err(RpcError::new(ErrorCode::Ended, "the service ended before the upgrade had an outcome"))
                }
                Awaits::Units(_) => Err(RpcError::new(ErrorCode::Ended, "the supervisor has ended")),
            };
            self.server.answer(waiter.client, &waiter.id, answer);
        }
    }

    /// After the end, to those who have asked so late: their commands must not fail by a connection that is reset.
    pub(super) fn answer_late(&mut self) {
        for Call { client, id, request } in self.server.last_calls(LAST_CALLS) {
            let answer = match request {
                Request::Shutdown(_) => Ok(self.stopped()),
                _ => Err(RpcError::new(ErrorCode::Ended, "the supervisor has ended")),
            };
            self.server.answer(client, &id, answer);
        }
    }
}
