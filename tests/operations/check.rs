//! Compares what the supervisor says, what /proc has, and what must be.

use crate::model::{Model, Must};
use crate::plan::Kind;
use crate::support::fleet::{Actor, Fleet, listening};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What was found when nothing was under way.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The main process of each unit that runs.
    pub pids: BTreeMap<String, i32>,
    /// How often each unit was started.
    pub starts: BTreeMap<String, usize>,
    /// The inodes of the socket of each unit that listens.
    pub sockets: BTreeMap<String, u64>,
}

/// What outlives an operation: who was what.
#[derive(Default)]
pub struct Past {
    pub found: Found,
    /// Which process had this number of its unit.
    pub generations: BTreeMap<(String, u64), i32>,
    /// Processes that are older than the supervisor.
    pub adopted: BTreeSet<i32>,
}

/// What one look shows: what was found, and all that is not as it must be.
pub struct Look<'a> {
    fleet: &'a Fleet,
    model: &'a Model,
    actors: Vec<Actor>,
    pub units: Vec<Value>,
    pub found: Found,
    pub wrong: Vec<String>,
}

/// Of the file, when the process was started.
fn edition(pid: i32) -> Option<usize> {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut entries = environ.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(b"EDITION="))?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

impl<'a> Look<'a> {
    pub fn take(fleet: &'a Fleet, model: &'a Model) -> Self {
        let (units, actors) = (fleet.status().unwrap_or_default(), fleet.actors());
        let mut look = Self { fleet, model, actors, units, found: Found::default(), wrong: Vec::new() };
        look.names();
        look.processes();
        look.states();
        for start in std::fs::read_to_string(fleet.path("starts")).unwrap_or_default().lines() {
            let unit = start.split(' ').next().unwrap_or_default();
            *look.found.starts.entry(unit.to_owned()).or_default() += 1;
        }
        look
    }

    fn names(&mut self) {
        let said: BTreeSet<&str> = self.units.iter().filter_map(|unit| unit["name"].as_str()).collect();
        let wanted: BTreeSet<&str> = self.model.units.keys().map(String::as_str).collect();
        if said != wanted {
            let (more, less) = (said.difference(&wanted), wanted.difference(&said));
            self.wrong.push(format!("status has {more:?}, and not {less:?}"));
        }
    }

    /// Each process belongs to a unit that runs; one is the main one, and the supervisor's child.
    fn processes(&mut self) {
        let status: BTreeMap<&str, &Value> =
            self.units.iter().filter_map(|unit| Some((unit["name"].as_str()?, unit))).collect();
        for actor in &self.actors {
            let Some(unit) = status.get(actor.unit.as_str()) else {
                self.wrong.push(format!("{actor:?} belongs to no unit"));
                continue;
            };
            if !matches!(unit["state"].as_str(), Some("running")) {
                self.wrong.push(format!("{} is {}, and there is {actor:?}", actor.unit, unit["state"]));
            } else if !actor.helper && unit["pid"] != actor.pid {
                self.wrong.push(format!("{} has pid {}, and there is {actor:?}", actor.unit, unit["pid"]));
            }
        }
        for (name, unit) in &self.model.units {
            let most: usize = ["helpers=", "orphans="]
                .iter()
                .filter_map(|word| unit.words.split(*word).nth(1)?.split(' ').next()?.parse::<usize>().ok())
                .sum();
            let count = self.actors.iter().filter(|actor| actor.helper && actor.unit == *name).count();
            if count > most {
                self.wrong.push(format!("{name} has {count} helpers instead of {most}: some of a process before"));
            }
        }
        for (name, unit) in status.iter().filter(|(_, unit)| unit["state"] == "running") {
            let main = self.actors.iter().find(|actor| !actor.helper && unit["pid"] == actor.pid);
            match main {
                Some(main) => drop(self.found.pids.insert((*name).to_owned(), main.pid)),
                None => self.wrong.push(format!("{name} runs as {}, which is no process of it", unit["pid"])),
            }
        }
    }

    fn states(&mut self) {
        let wanted = self.model.wanted();
        let musts = self.model.musts();
        for unit in &self.units {
            let Some(name) = unit["name"].as_str().filter(|name| musts.contains_key(*name)) else { continue };
            let state = unit["state"].as_str().unwrap_or_default();
            let mut wrong = |what: String| self.wrong.push(format!("{name} is {state}, {what}; why: {}", unit["why"]));
            let is_right = match &musts[name] {
                Must::Run => state == "running",
                Must::Done => state == "done",
                Must::AsBefore => state == "running",
                Must::Rest => ["stopped", "failed", "blocked", "done"].contains(&state),
                Must::Unless(rivals) if rivals.iter().any(|name| self.found.pids.contains_key(name)) => {
                    state == "blocked"
                }
                Must::Unless(_) => state == "running",
            };
            if !is_right {
                wrong(format!("and must {:?}", musts[name]));
            }
            if self.model.units[name].asked && state == "running" && unit["health"]["state"] != "healthy" {
                wrong(format!("and its health is {}", unit["health"]));
            }
            if unit["phase"] != "idle" {
                wrong(format!("in phase {}", unit["phase"]));
            }
            let want = match self.model.units[name].kind {
                _ if !wanted.contains(name) => "stopped",
                Kind::Oneshot(_) => "done",
                _ => "running",
            };
            if unit["want"] != want {
                wrong(format!("and {} is wanted instead of {want}", unit["want"]));
            }
            let failed = self.model.ended.get(name).is_some_and(|status| *status != 0);
            if self.model.ended.contains_key(name) && failed != (state == "failed") {
                wrong(format!("after it has ended with {:?}", self.model.ended.get(name)));
            }
            let cause =
                self.model.causes.get(name).filter(|_| state == "running" || self.model.ended.contains_key(name));
            if let Some(cause) = cause.filter(|cause| !unit["why"].as_str().unwrap_or_default().contains(*cause)) {
                wrong(format!("and its last process ended by: {cause}"));
            }
            let keys: Vec<&str> = unit["stale"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let edition = self.found.pids.get(name).and_then(|pid| edition(*pid));
            let is_old = edition.is_some_and(|edition| edition != self.model.units[name].edition);
            if keys != ["env"].iter().filter(|_| is_old).copied().collect::<Vec<_>>() {
                wrong(format!("stale in {keys:?}, and it runs in edition {edition:?}"));
            }
        }
    }

    /// Whatever is said to listen does. The table has those of the whole machine, which takes time.
    pub fn sockets(&mut self, past: &Past) {
        let listening: BTreeMap<u16, u64> = listening().into_iter().collect();
        for unit in &self.units {
            let name = unit["name"].as_str().unwrap_or_default();
            let address = unit["listeners"][0]["address"].as_str();
            let port = address.and_then(|address| address.rsplit(':').next()?.parse().ok());
            let has = self.model.units.get(name).is_some_and(|unit| unit.listens);
            match port.and_then(|port: u16| listening.get(&port)) {
                Some(inode) if has => drop(self.found.sockets.insert(name.to_owned(), *inode)),
                None if !has => {}
                _ => self.wrong.push(format!("{name} listens at {address:?}")),
            }
        }
        for (name, inode) in &past.found.sockets {
            if self.found.sockets.get(name) != Some(inode) && self.model.units.contains_key(name) {
                self.wrong.push(format!("{name} listens at another socket than before"));
            }
        }
    }

    /// Against what was before; `touched` may have changed.
    pub fn compare(&mut self, past: &Past, touched: &BTreeSet<String>) {
        let before = &past.found;
        for (name, pid) in &before.pids {
            if !touched.contains(name) && self.found.pids.get(name) != Some(pid) {
                self.wrong
                    .push(format!("{name} was {pid}, is {:?}, and nobody has touched it", self.found.pids.get(name)));
            }
        }
        for (name, starts) in &self.found.starts {
            let more = starts - before.starts.get(name).unwrap_or(&0);
            if more > 0 && !touched.contains(name) {
                self.wrong.push(format!("{name} was started {more} times, and nobody has touched it"));
            }
        }
        for unit in &self.units {
            let (Some(name), Some(pid)) = (unit["name"].as_str(), unit["pid"].as_i64()) else { continue };
            let number = (name.to_owned(), unit["generation"].as_u64().unwrap_or_default());
            if past.generations.get(&number).is_some_and(|before| i64::from(*before) != pid) {
                self.wrong.push(format!("{name}: {pid} has the number of {:?}", past.generations.get(&number)));
            }
        }
        self.children(past);
    }

    /// Whoever was started by this supervisor is its child.
    fn children(&mut self, past: &Past) {
        let supervisor = self.fleet.pid();
        for actor in self.actors.iter().filter(|actor| !actor.helper && !past.adopted.contains(&actor.pid)) {
            if actor.parent != supervisor {
                self.wrong.push(format!("{actor:?} is not a child of {supervisor}"));
            }
        }
    }
}
