//! What must be: from the files of units, what an operator has said, and what processes were told to do.

use crate::plan::{Kind, Targets, Units, closure, dependents, rivals, with_needs};
use std::collections::{BTreeMap, BTreeSet};

/// What an operator has said of a unit last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Run,
    Stop,
}

#[derive(Default)]
pub struct Model {
    pub units: Units,
    pub targets: Targets,
    pub wishes: BTreeMap<String, Wish>,
    /// Units that have ended for good by themselves, with this status.
    pub ended: BTreeMap<String, i32>,
    /// What the reason of a unit must tell: how its process ended last.
    pub causes: BTreeMap<String, String>,
    /// Daemons that run, as it was found last.
    pub running: BTreeMap<String, i32>,
}

/// What a unit must be when nothing is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Must {
    Run,
    /// A oneshot that has ended with status 0.
    Done,
    /// It does not run: it is not wanted, has ended by itself, or can not start.
    Rest,
    /// It requires something that has ended since: if it ran then, it runs now.
    AsBefore,
    /// It runs, unless one does that it can not run beside.
    Unless(BTreeSet<String>),
}

impl Model {
    /// Who shall run, by the words of docs/units.md.
    pub fn wanted(&self) -> BTreeSet<String> {
        let stopped = |name: &str| self.wishes.get(name) == Some(&Wish::Stop);
        let by_itself = |(name, unit): &(&String, &crate::plan::Unit)| match self.wishes.get(*name) {
            Some(wish) => *wish == Wish::Run,
            None => unit.autostart,
        };
        let mut wanted = BTreeSet::new();
        let mut queue: Vec<String> = self.units.iter().filter(by_itself).map(|(name, _)| name.clone()).collect();
        while let Some(name) = queue.pop() {
            if wanted.insert(name.clone()) {
                let unit = &self.units[&name];
                queue.extend(unit.requires.union(&unit.wants).filter(|name| !stopped(name)).cloned());
            }
        }
        wanted
    }

    /// A task that needs nothing any more.
    pub fn is_done(&self, name: &str) -> bool {
        matches!(self.units[name].kind, Kind::Oneshot(_)) && self.ended.get(name) == Some(&0)
    }

    /// These, and all that can not run without them. Who is behind a task that is done can.
    pub fn stopped_with(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        closure(names, |name| match self.is_done(name) {
            true => Vec::new(),
            false => dependents(&self.units, name),
        })
    }

    /// What each unit must be.
    pub fn musts(&self) -> BTreeMap<String, Must> {
        let wanted = self.wanted();
        let mut musts = BTreeMap::new();
        // A unit comes after all that it requires: who is not settled yet is looked at again.
        while musts.len() < self.units.len() {
            for (name, unit) in &self.units {
                if unit.requires.iter().all(|name| musts.contains_key(name)) && !musts.contains_key(name) {
                    musts.insert(name.clone(), self.must(name, &wanted, &musts));
                }
            }
        }
        musts
    }

    fn must(&self, name: &str, wanted: &BTreeSet<String>, musts: &BTreeMap<String, Must>) -> Must {
        let unit = &self.units[name];
        if let Some(status) = self.ended.get(name) {
            // A task that is done stays so, whether it is wanted or not.
            return if matches!(unit.kind, Kind::Oneshot(_)) && *status == 0 { Must::Done } else { Must::Rest };
        }
        if !wanted.contains(name) {
            return Must::Rest;
        }
        let all_up = unit.requires.iter().all(|name| matches!(musts[name], Must::Run | Must::Done | Must::AsBefore));
        match unit.kind {
            // It may have failed before.
            Kind::Oneshot(_) if !all_up => Must::Rest,
            _ if !all_up && self.running.contains_key(name) => Must::AsBefore,
            _ if !all_up => Must::Rest,
            Kind::Oneshot(0) => Must::Done,
            Kind::Oneshot(_) => Must::Rest,
            _ => match rivals(&self.units, name) {
                rivals if rivals.is_empty() => Must::Run,
                rivals => Must::Unless(rivals),
            },
        }
    }

    /// An operator starts these: what they need is started again, too, if it has ended or was stopped.
    pub fn start(&mut self, names: &BTreeSet<String>) {
        for name in with_needs(&self.units, names) {
            if names.contains(&name) {
                self.wishes.insert(name.clone(), Wish::Run);
            } else if self.wishes.get(&name) == Some(&Wish::Stop) {
                self.wishes.remove(&name);
            }
            self.end_forgotten(&name);
        }
    }

    /// Of a daemon, or of a task that failed: one that is done is done.
    fn end_forgotten(&mut self, name: &str) {
        let is_task = self.units.get(name).is_some_and(|unit| matches!(unit.kind, Kind::Oneshot(_)));
        if self.ended.get(name).is_some_and(|status| *status != 0 || !is_task) {
            self.ended.remove(name);
            self.causes.remove(name);
        }
    }

    /// An operator stops these; a task that was done is as if it had never run.
    pub fn stop(&mut self, names: &BTreeSet<String>) {
        for name in names {
            self.wishes.insert(name.clone(), Wish::Stop);
            self.ended.remove(name);
        }
    }

    /// The main process of a daemon has ended with this status, or, negative, by this signal.
    pub fn on_end(&mut self, name: &str, status: i32) {
        let text = if status < 0 { format!("killed by signal {}", -status) } else { format!("exit status {status}") };
        self.causes.insert(name.to_owned(), text);
        let again = match self.units[name].restart {
            "always" => true,
            "on-failure" => status != 0,
            _ => false,
        };
        if !again {
            self.ended.insert(name.to_owned(), status);
        }
    }

    /// It was killed while there was no supervisor. That is no failure; but what is never started again by itself is not started by that.
    pub fn on_unseen_end(&mut self, name: &str) {
        self.causes.remove(name);
        if self.units[name].restart == "never" {
            self.ended.insert(name.to_owned(), -1);
        }
    }

    /// A unit is no more in the files.
    pub fn forget(&mut self, name: &str) {
        self.units.remove(name);
        self.wishes.remove(name);
        self.ended.remove(name);
        self.causes.remove(name);
    }
}
