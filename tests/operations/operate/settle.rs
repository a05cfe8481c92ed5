//! What comes of an operation: what may be while it is under way, and what must be when all has settled.

use super::{Names, Run};
use crate::check::Look;
use crate::model::Must;
use crate::plan::{self, Kind, rivals};
use crate::watch::Always;
use std::fs;
use std::time::{Duration, Instant};

/// Until nothing is under way after an operation: generous, it is only reached when that does not come.
const SETTLES: Duration = Duration::from_secs(30);

impl Run {
    /// From now on the watch knows what may happen: a handoff of these.
    pub(super) fn allow(&mut self, handoffs: &Names) {
        let units = &self.model.units;
        let is_daemon = |name: &str| !matches!(units.get(name).map(|unit| unit.kind), None | Some(Kind::Oneshot(_)));
        let pairs = |(name, unit): (&String, &plan::Unit)| {
            // Who has lost what it requires before, or has it now, begins without or with it.
            let needs =
                unit.requires.iter().filter(|needed| is_daemon(needed) && (self.runs(needed) || !self.runs(name)));
            needs.map(|needed| (name.clone(), needed.clone())).collect::<Vec<_>>()
        };
        let needs = units.iter().flat_map(pairs).collect();
        let rivals = self.rivals();
        self.watch.set(Always { pairs: handoffs.clone(), needs, rivals, operation: self.number });
    }

    /// Somebody may be missing for a while.
    pub(super) fn allow_crash(&mut self) {
        self.watch.set(Always { rivals: self.rivals(), operation: self.number, ..Always::default() });
    }

    /// Two that never run side by side, whatever happens.
    fn rivals(&self) -> Vec<(String, String)> {
        let of = |(name, unit): (&String, &plan::Unit)| {
            unit.conflicts.iter().map(|other| (name.clone(), other.clone())).collect::<Vec<_>>()
        };
        self.model.units.iter().flat_map(of).collect()
    }

    /// Waits until all is as it must be.
    pub(super) fn settle(&mut self, what: &str, touched: &Names) {
        self.told.push(format!("{}: {what}", self.number));
        if !what.contains(" ends by ") && !what.contains("handoff kill") {
            self.model.causes.retain(|name, _| !touched.contains(name)); // another reason is the last one
        }
        if std::env::var_os("TIMES").is_some() {
            println!("{:?} {}: {what}", self.begun.elapsed(), self.number);
        }
        // When one goes, another may come that had to give way.
        let others = touched.iter().flat_map(|name| rivals(&self.model.units, name)).filter(|name| !self.runs(name));
        let touched = &touched.iter().cloned().chain(others).collect();
        let sockets = self.number.is_multiple_of(5) || what.contains("supervisor");
        let until = Instant::now() + SETTLES;
        let (found, units) = loop {
            let mut look = Look::take(&self.fleet, &self.model);
            look.compare(&self.past, touched);
            if look.wrong.is_empty() && sockets {
                look.sockets(&self.past);
            }
            if look.wrong.is_empty() {
                break (look.found, look.units);
            }
            if Instant::now() > until {
                let told = &self.told[self.told.len().saturating_sub(30)..];
                let file = fs::read_to_string(self.fleet.path("units.toml")).unwrap_or_default();
                println!("{file}");
                panic!(
                    "SEED={}, operation {}: {what}\n{}\n---- before:\n{}",
                    self.seed,
                    self.number,
                    look.wrong.join("\n"),
                    told.join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        for unit in units {
            if let (Some(name), Some(pid)) = (unit["name"].as_str(), unit["pid"].as_i64()) {
                let number = (name.to_owned(), unit["generation"].as_u64().unwrap_or_default());
                self.past.generations.insert(number, pid as i32);
            }
        }
        self.model.running = found.pids.clone();
        let done: Vec<String> =
            self.model.musts().into_iter().filter(|(_, must)| *must == Must::Done).map(|(name, _)| name).collect();
        self.model.ended.extend(done.into_iter().map(|name| (name, 0)));
        let before = std::mem::replace(&mut self.past.found, found);
        if !sockets {
            self.past.found.sockets = before.sockets;
        }
    }
}
