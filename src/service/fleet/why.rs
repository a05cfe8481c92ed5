//! What is, what is wanted, and why: for people.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Fleet;
use super::order::Because;
use crate::service::graph::{Standing, State, Why};
use crate::service::unit::status::ServiceStatus;

/// One unit on the way to the cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Its name.
    pub unit: String,
    /// As `handoff status` has it.
    pub state: &'static str,
    /// The same.
    pub want: &'static str,
    /// The same.
    pub wanted_by: Option<String>,
    /// The same.
    pub why: String,
    /// Why it failed first.
    pub cause: Option<String>,
    /// The keys in which its process differs from its configuration.
    pub stale: Vec<&'static str>,
}

impl From<ServiceStatus> for Link {
    fn from(status: ServiceStatus) -> Self {
        let ServiceStatus { name: unit, state, want, wanted_by, why, cause, stale, .. } = status;
        Self { unit, state, want, wanted_by, why, cause, stale }
    }
}

/// A unit with what it depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Branch {
    /// Its name.
    pub unit: String,
    /// As `handoff status` has it.
    pub state: &'static str,
    /// How the unit above depends on it: `requires`, `wants` or `after`; none at the top.
    pub edge: Option<&'static str>,
    /// What is waited for: `started`, `healthy` or `completed`; none at the top.
    pub condition: Option<&'static str>,
    /// What is below it is shown elsewhere already.
    pub repeated: bool,
    /// On what it depends.
    pub on: Vec<Branch>,
}

/// What a tree has by now.
#[derive(Debug, Default)]
struct Shown {
    names: BTreeSet<String>,
    states: BTreeMap<String, &'static str>,
}

impl Fleet {
    /// All services, and those that can not be any since they are at fault.
    pub fn status(&self) -> Vec<ServiceStatus> {
        let wanted = self.wanted();
        let services = self.members.keys().map(|name| self.status_with(name, wanted.get(name)));
        let faulty: BTreeSet<&str> = self.faults().iter().filter_map(|fault| fault.unit.as_deref()).collect();
        let mut all: Vec<_> = services.chain(faulty.into_iter().filter_map(|name| self.faulty(name))).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What is at fault: its faults, with their places.
    pub fn fault_of(&self, name: &str) -> Option<String> {
        if self.members.contains_key(name) || self.graph.target(name).is_some() {
            return None;
        }
        let faults = self.faults().iter().filter(|fault| fault.unit.as_deref() == Some(name));
        let faults: Vec<String> = faults.map(ToString::to_string).collect();
        (!faults.is_empty()).then(|| faults.join("; "))
    }

    fn faulty(&self, name: &str) -> Option<ServiceStatus> {
        let why = self.fault_of(name)?;
        Some(ServiceStatus { state: "faulty", want: "running", why, ..ServiceStatus::bare(name) })
    }

    /// These of them.
    pub fn status_of_all<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> Vec<ServiceStatus> {
        let wanted = self.wanted();
        let here = names.into_iter().filter(|name| self.members.contains_key(*name));
        here.map(|name| self.status_with(name, wanted.get(name))).collect()
    }

    /// One service; none if there is none of this name.
    pub fn status_of(&self, name: &str) -> Option<ServiceStatus> {
        match self.members.contains_key(name) {
            true => Some(self.status_with(name, self.why_wanted(name).as_ref())),
            false => self.faulty(name),
        }
    }

    fn status_with(&self, name: &str, because: Option<&Because>) -> ServiceStatus {
        let Some(member) = self.members.get(name) else { return ServiceStatus::bare(name) };
        let mut status = match &*member.service {
            Some(service) => service.status(),
            None => ServiceStatus { listeners: Vec::new(), ..ServiceStatus::bare(name) },
        };
        status.wanted_by = because.map(Because::text);
        status.stale = member.stale();
        status.ephemeral = self.is_ephemeral(name);
        status.want = match because {
            Some(_) if member.unit.oneshot => "done",
            Some(_) => "running",
            None => "stopped",
        };
        match (member.state(), &member.standing) {
            (State::Down, Some(Standing::Waits(..))) => status.state = "waiting",
            (State::Down, Some(Standing::Blocked(..))) => status.state = "blocked",
            (State::Down, _) if because.is_some() => status.state = "starting",
            (State::Down, _) => status.state = "stopped",
            (State::Completed, _) if member.unit.oneshot => status.state = "done",
            (State::Failed, _) => status.state = "failed",
            _ => {}
        }
        match member.state() {
            State::Down if because.is_some() => status.why = self.why_not_started(name),
            State::Down if self.is_stopped(name) => status.why = "stopped by an operator".to_owned(),
            State::Down if member.service.as_ref().is_none_or(|service| service.ended().is_none()) => {
                status.why = "nothing wants it: autostart is false".to_owned();
            }
            State::Failed => status.why = self.why_failed(name),
            State::Starting | State::Started | State::Healthy => {
                let rivals: Vec<&str> = self.rivals_alive(&self.graph, name).collect();
                if !rivals.is_empty() {
                    let text = "; it conflicts with, and runs beside: ";
                    status.why.push_str(&format!("{text}{}, until one of them ends", rivals.join(", ")));
                }
            }
            _ => {}
        }
        status
    }

    pub(super) fn why_failed(&self, name: &str) -> String {
        let Some(member) = self.members.get(name) else { return String::new() };
        let of_service = || member.service.as_ref().map(|service| service.status().why).unwrap_or_default();
        member.trouble.clone().unwrap_or_else(of_service)
    }

    pub(super) fn why_not_started(&self, name: &str) -> String {
        match self.members.get(name).and_then(|member| member.standing.as_ref()) {
            Some(Standing::Waits(on, Some(condition))) => format!("waits until {on} is {}", condition.word()),
            Some(Standing::Waits(on, None)) => format!("waits until {on} has stopped"),
            Some(Standing::Blocked(way, why)) => blocked(way, *why),
            Some(Standing::Now) | None => "it is about to start".to_owned(),
        }
    }

    /// What a unit requires, by whatever way, and that has failed and waits for its next attempt.
    pub(super) fn failing_below<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let (mut seen, mut queue) = (BTreeSet::new(), vec![name]);
        while let Some(name) = queue.pop() {
            for (on, ..) in self.graph.edges_of(name).filter(|(_, kind, _)| *kind == "requires") {
                let Some(member) = self.members.get(on).filter(|_| seen.insert(on)) else { continue };
                if member.is_waiting() {
                    return Some(on);
                }
                queue.extend((member.state() == State::Down).then_some(on));
            }
        }
        None
    }

    pub(super) fn why_it_waits(&self, on: &str) -> String {
        format!(
            "it needs {on}, which has failed: {}; {on} is started again by itself, and then this",
            self.why_failed(on)
        )
    }

    /// The unit, and from there the way to the cause: what it waits for or is blocked by, what that waits for, and so on.
    pub fn why(&self, name: &str) -> Vec<Link> {
        let wanted = self.wanted();
        let mut links: Vec<Link> = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next.take().filter(|name| links.iter().all(|link| link.unit != *name)) {
            let Some(member) = self.members.get(&name) else { break };
            next = match &member.standing {
                Some(Standing::Waits(on, _)) => Some(on.clone()),
                Some(Standing::Blocked(way, _)) => way.first().cloned(),
                _ => None,
            };
            links.push(self.status_with(&name, wanted.get(&name)).into());
        }
        links.extend(self.faulty(name).map(Link::from));
        links
    }

    /// Units with what they depend on; those of `names`, or all on which no other one depends.
    pub fn tree(&self, names: &BTreeSet<String>) -> Vec<Branch> {
        let mut shown = Shown::default();
        shown.states.extend(self.status().into_iter().map(|status| (status.name, status.state)));
        let below: BTreeSet<&str> =
            self.members.keys().flat_map(|name| self.graph.edges_of(name)).map(|(on, ..)| on).collect();
        let is_top =
            |name: &&String| if names.is_empty() { !below.contains(name.as_str()) } else { names.contains(*name) };
        self.members.keys().filter(is_top).map(|name| self.branch(name, None, &mut shown)).collect()
    }

    /// There are no cycles: units in one are at fault.
    fn branch(&self, name: &str, edge: Option<(&'static str, &'static str)>, shown: &mut Shown) -> Branch {
        let repeated = !shown.names.insert(name.to_owned());
        let on: Vec<Branch> = match repeated {
            true => Vec::new(),
            false => {
                let edges = self.graph.edges_of(name);
                edges.map(|(on, kind, condition)| self.branch(on, Some((kind, condition.word())), shown)).collect()
            }
        };
        Branch {
            unit: name.to_owned(),
            state: shown.states.get(name).copied().unwrap_or("stopped"),
            edge: edge.map(|(kind, _)| kind),
            condition: edge.map(|(_, condition)| condition),
            repeated: repeated && self.graph.edges_of(name).next().is_some(),
            on,
        }
    }
}

/// `requires a, which requires b, which has failed`
fn blocked(way: &[String], why: Why) -> String {
    let last = match why {
        Why::Failed => "has failed",
        Why::Ended => "has ended",
        Why::Unwanted => "is stopped",
        Why::Conflicts => "must not run beside it, and runs or starts",
    };
    match (way, why) {
        ([only], Why::Conflicts) => format!("{only} {last}"),
        _ => format!("requires {}, which {last}", way.join(", which requires ")),
    }
}
