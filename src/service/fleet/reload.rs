//! Another configuration: what it changes, and changing it.

use std::sync::Arc;

use serde::Serialize;

use super::{Fleet, Wish};
use crate::service::config::{Config, Fault, Unit};
use crate::service::graph::{Graph, State};

/// What another configuration means for a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name.
    pub unit: String,
    /// `added`, `removed` or `changed`.
    pub what: &'static str,
    /// The keys that have changed.
    pub keys: Vec<&'static str>,
    /// What follows: `starts`, `stays stopped`, `stops`, `is gone`, `stale` (until it is restarted or upgraded), `beside` (it runs, and so does one that
    /// conflicts), `takes effect`.
    pub effect: &'static str,
}

impl Fleet {
    /// What [`Self::reload`] would do, in the order of names.
    ///
    /// # Errors
    /// What is wrong, also between the files and the units that were added.
    pub fn plan(&self, files: &Config) -> Result<Vec<Change>, Vec<Fault>> {
        let new = &files.with(self.memory.added());
        if !new.faults.is_empty() {
            return Err(new.faults.clone());
        }
        let diff = self.config.diff(new);
        let mut plan: Vec<Change> = diff.added.iter().map(|name| self.added(new, name)).collect();
        plan.extend(diff.removed.iter().map(|name| self.removed(name)));
        let graph = Graph::of(new);
        plan.extend(diff.changed.into_iter().map(|(name, keys)| self.changed(new, &graph, name, keys)));
        plan.sort_by(|a, b| a.unit.cmp(&b.unit));
        Ok(plan)
    }

    fn added(&self, new: &Config, name: &str) -> Change {
        let starts = new.units.get(name).is_some_and(|unit| unit.autostart);
        let effect = if starts { "starts" } else { "stays stopped" };
        Change { unit: name.to_owned(), what: "added", keys: Vec::new(), effect }
    }

    fn removed(&self, name: &str) -> Change {
        let alive = self.members.get(name).is_some_and(|member| member.state().is_alive());
        let effect = if alive { "stops" } else { "is gone" };
        Change { unit: name.to_owned(), what: "removed", keys: Vec::new(), effect }
    }

    fn changed(&self, new: &Config, graph: &Graph, name: String, keys: Vec<&'static str>) -> Change {
        let is_alive = self.members.get(&name).is_some_and(|member| member.state().is_alive());
        if is_alive && keys.contains(&"conflicts") && self.rivals_alive(graph, &name).next().is_some() {
            return Change { unit: name, what: "changed", keys, effect: "beside" };
        }
        let stale =
            self.members.get(&name).zip(new.units.get(&name)).is_some_and(|(member, unit)| member.would_be_stale(unit));
        Change { unit: name, what: "changed", keys, effect: if stale { "stale" } else { "takes effect" } }
    }

    /// From now on the units of files are these: new ones start, others stop, and those that run go on as they were configured until they
    /// are restarted or upgraded. What an operator has started or stopped stays so, and so does what was added.
    pub fn reload(&mut self, files: Config) {
        let old = self.set_config(files);
        for name in old.units.keys().filter(|name| !self.config.units.contains_key(*name)) {
            if let Some(member) = self.members.get_mut(name) {
                member.removed = true;
            }
        }
        let mut added = Vec::new();
        for (name, unit) in self.config.units.clone() {
            match self.members.get_mut(&name) {
                Some(member) => {
                    member.removed = false;
                    if *member.unit != unit && member.state() == State::Failed {
                        member.forgive(); // what was wrong may be mended; what is done is done
                    }
                    member.unit = Arc::new(unit);
                }
                None => {
                    self.add(&name, unit);
                    self.members.entry(name.clone()).and_modify(|member| member.came_later = true);
                    added.push(name);
                }
            }
        }
        self.rebuild_graph();
        self.apply_to_stopped();
        // Who has what a new one wants stops first.
        for name in added {
            if self.removed_rival(&name).is_none() {
                self.prepare(&name);
            }
        }
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in names {
            self.give_way(&name);
            self.note(&name);
        }
        self.act();
    }

    /// Those that do not run give back the addresses that they do not want any more, and are told to run as it is written now.
    fn apply_to_stopped(&mut self) {
        self.forget_removed();
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in names {
            let Some(member) = self.members.get_mut(&name).filter(|member| !member.state().is_alive()) else {
                continue;
            };
            if let Err(error) = member.apply(&name) {
                self.break_down(&name, error.to_string());
            }
        }
    }

    /// Units that are no more in the configuration keep their place in the order until they have stopped.
    pub(super) fn rebuild_graph(&mut self) {
        let mut config = self.config.clone();
        for (name, member) in self.members.iter().filter(|(_, member)| member.removed) {
            config.units.insert(name.clone(), Unit::clone(&member.unit));
        }
        self.graph = Graph::of(&config);
    }

    /// Whether an operator has stopped it.
    pub(super) fn is_stopped(&self, name: &str) -> bool {
        self.memory.of(name).wish == Some(Wish::Stop)
    }
}
