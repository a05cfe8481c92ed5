//! Other files of units.

use super::{Names, Run, one};
use crate::model::Model;
use crate::plan::{self, Kind, is_needed, rivals, with_dependents, with_needs};

impl Run {
    fn reload(&mut self, what: &str, touched: &Names) {
        self.write_units();
        self.allow_crash();
        let names = self.chance.percent(30);
        if names {
            self.fleet.run("reload", &["--dry-run"]).expect(0, &[]);
        }
        self.fleet.run("reload", &[]).expect(0, &[]);
        self.settle(&format!("{what}, reload"), touched);
    }

    pub(super) fn edit(&mut self) {
        let Some(name) = self.any(|run, name| !run.model.ended.contains_key(name) || run.model.is_done(name)) else {
            return;
        };
        self.fresh += 1;
        self.model.units.get_mut(&name).unwrap().edition = self.fresh;
        // A task that has failed may do better now; one that is done is done.
        let touched = if self.runs(&name) || self.model.is_done(&name) { Names::new() } else { one(&name) };
        self.reload(&format!("edit {name}"), &touched);
    }

    pub(super) fn add(&mut self) {
        if self.model.units.len() > plan::UNITS + 10 {
            return;
        }
        let name = self.insert();
        let touched = with_needs(&self.model.units, &one(&name));
        self.reload(&format!("add {name}"), &touched);
    }

    fn insert(&mut self) -> String {
        let Model { units, targets, .. } = &self.model;
        let mut unit = plan::unit(&mut self.chance, units, targets);
        if !matches!(unit.kind, Kind::Oneshot(_)) && self.chance.percent(20) {
            let leaf =
                self.any(|run, name| run.is_leaf(name) && !matches!(run.model.units[name].kind, Kind::Oneshot(_)));
            unit.autostart &= leaf.is_none();
            unit.conflicts.extend(leaf);
        }
        self.fresh += 1;
        let name = format!("new{}", self.fresh);
        self.model.units.insert(name.clone(), unit);
        name
    }

    /// Nobody needs it.
    fn is_leaf(&self, name: &str) -> bool {
        !is_needed(&self.model.units, &self.model.targets, name)
    }

    /// Nobody names it.
    fn leaf(&mut self) -> Option<String> {
        let says = |run: &Self, name: &str| run.model.units.values().any(|unit| unit.conflicts.contains(name));
        self.any(|run, name| run.is_leaf(name) && !says(run, name))
    }

    fn take_away(&mut self, name: &str) -> Names {
        let before = self.model.wanted();
        let mut touched = rivals(&self.model.units, name);
        touched.retain(|name| !self.runs(name));
        touched.insert(name.to_owned());
        self.model.forget(name);
        touched.extend(before.symmetric_difference(&self.model.wanted()).cloned());
        with_dependents(&self.model.units, &touched)
    }

    pub(super) fn remove(&mut self) {
        let Some(name) = self.leaf().filter(|_| self.model.units.len() > plan::UNITS / 2) else { return };
        let touched = self.take_away(&name);
        self.reload(&format!("remove {name}"), &touched);
    }

    pub(super) fn rename(&mut self) {
        let Some(name) = self.leaf() else { return };
        let unit = self.model.units[&name].clone();
        let mut touched = self.take_away(&name);
        self.fresh += 1;
        let other = format!("name{}", self.fresh);
        self.model.units.insert(other.clone(), unit);
        touched.extend(with_needs(&self.model.units, &one(&other)));
        self.reload(&format!("rename {name} to {other}"), &touched);
    }

    /// A file that is at fault changes nothing.
    pub(super) fn fault(&mut self) {
        let file = self.file(&self.model.units);
        let mut less = self.model.units.clone();
        less.pop_first();
        let shorter = self.file(&less);
        let faults = [
            format!("{file}[unit.more]\nexec = [\"true\"]\nmode = \"nonsense\"\n"),
            format!("{shorter}[unit.more]\nexec = 3\n"),
            format!("{file}[unit.ring]\nexec = [\"true\"]\nrequires = [\"ring\"]\n"),
            "\u{0}\u{1}[".to_owned(),
        ];
        self.fleet.configure(&faults[self.chance.below(faults.len())]);
        self.allow(&Names::new());
        self.fleet.run("reload", &[]).expect(1, &[]);
        self.settle("reload of a file that is at fault", &Names::new());
    }
}
