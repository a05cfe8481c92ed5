//! A configuration at random, and what is true of it by the simplest means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use handoff::service::config::{Config, File};
use proptest::collection::vec;
use proptest::prelude::*;

/// References are numbers of nodes: first units, then targets, then names that nobody has.
#[derive(Clone, Debug)]
pub struct Plan {
    pub units: Vec<Unit>,
    pub targets: Vec<Vec<usize>>,
}

#[derive(Clone, Debug)]
pub struct Unit {
    pub oneshot: bool,
    /// It has a key that there is not.
    pub broken: bool,
    /// In which of two files.
    pub second: bool,
    pub requires: Vec<usize>,
    pub wants: Vec<usize>,
    pub after: Vec<usize>,
    pub conflicts: Vec<usize>,
}

/// What a unit requires, wants, is after, conflicts with.
type Lists = (Vec<usize>, Vec<usize>, Vec<usize>, Vec<usize>);

/// Any references at all.
pub fn wild() -> impl Strategy<Value = Plan> {
    (1usize..9, 0usize..3).prop_flat_map(|(units, targets)| {
        // One reference in some leads nowhere.
        let name = || prop_oneof![30 => 0..units + targets, 1 => Just(units + targets)];
        let unit =
            (any::<[bool; 2]>(), prop::bool::weighted(0.1), vec(name(), 0..2), vec(name(), 0..2), vec(name(), 0..2));
        let unit = unit.prop_map(|([oneshot, second], broken, requires, wants, after)| Unit {
            oneshot,
            broken,
            second,
            requires,
            wants,
            after,
            conflicts: Vec::new(),
        });
        (vec(unit, units), vec(vec(name(), 1..4), targets)).prop_map(|(units, targets)| Plan { units, targets })
    })
}

/// References to earlier units only, and to targets of units that are earlier still: no fault, but conflicts.
pub fn sound() -> impl Strategy<Value = Plan> {
    let lists = (vec(0usize..100, 0..3), vec(0usize..100, 0..2), vec(0usize..100, 0..2), vec(0usize..100, 0..2));
    let unit = (any::<[bool; 2]>(), lists);
    let group = vec(0usize..100, 1..4);
    (vec(unit, 1..12), vec(group, 0..3)).prop_map(|(units, groups)| {
        let count = units.len();
        let targets: Vec<Vec<usize>> =
            groups.iter().map(|group| group.iter().map(|number| number % count.div_ceil(2)).collect()).collect();
        let earlier = |at: usize, list: &[usize]| -> Vec<usize> {
            let nodes = if at >= count.div_ceil(2) { at + targets.len() } else { at };
            let name = |number: &usize| if number % nodes < at { number % nodes } else { count + number % nodes - at };
            if nodes == 0 { Vec::new() } else { list.iter().map(name).collect() }
        };
        let unit = |(at, ([oneshot, second], lists)): (usize, &([bool; 2], Lists))| {
            let conflicts = lists.3.iter().map(|number| number % count).filter(|other| *other != at).collect();
            let (requires, wants, after) = (earlier(at, &lists.0), earlier(at, &lists.1), earlier(at, &lists.2));
            Unit { oneshot: *oneshot, broken: false, second: *second, requires, wants, after, conflicts }
        };
        Plan { units: units.iter().enumerate().map(unit).collect(), targets }
    })
}

/// Of files with these texts.
pub fn config(texts: &[String]) -> Config {
    let file = |(at, text): (usize, &String)| File {
        path: Path::new(&format!("{at}.toml")).into(),
        content: Ok(text.clone().into_bytes()),
    };
    Config::of(&texts.iter().enumerate().map(file).collect::<Vec<_>>())
}

impl Plan {
    pub fn name(&self, node: usize) -> String {
        match node.checked_sub(self.units.len()) {
            None => format!("u{node}"),
            Some(target) if target < self.targets.len() => format!("t{target}"),
            Some(_) => "nobody".to_owned(),
        }
    }

    pub fn nodes(&self) -> usize {
        self.units.len() + self.targets.len()
    }

    /// Two files.
    pub fn texts(&self) -> [String; 2] {
        let mut texts = [String::new(), String::new()];
        let list = |names: &[usize]| format!("{:?}", names.iter().map(|name| self.name(*name)).collect::<Vec<_>>());
        for (at, unit) in self.units.iter().enumerate() {
            let text = &mut texts[usize::from(unit.second)];
            writeln!(text, "[unit.u{at}]\nexec = [\"x\"]\nautostart = false\noneshot = {}", unit.oneshot).unwrap();
            writeln!(text, "requires = {}\nwants = {}", list(&unit.requires), list(&unit.wants)).unwrap();
            writeln!(text, "after = {}\nconflicts = {}", list(&unit.after), list(&unit.conflicts)).unwrap();
            if unit.broken {
                text.push_str("strange = 1\n");
            }
        }
        for (at, units) in self.targets.iter().enumerate() {
            writeln!(texts[0], "[target.t{at}]\nunits = {}", list(units)).unwrap();
        }
        texts
    }

    pub fn config(&self) -> Config {
        config(&self.texts())
    }

    /// What a node names to be ordered after; names that nobody has, too.
    pub fn edges(&self, node: usize) -> Vec<usize> {
        match self.units.get(node) {
            Some(unit) => [&unit.requires[..], &unit.wants, &unit.after].concat(),
            None => self.targets[node - self.units.len()].clone(),
        }
    }

    /// What it needs: of a target, its units.
    pub fn needs(&self, node: usize) -> Vec<usize> {
        self.units.get(node).map_or_else(|| self.targets[node - self.units.len()].clone(), |unit| unit.requires.clone())
    }

    /// Nodes that a node leads to in one step or more.
    pub fn reach(&self, node: usize, step: impl Fn(usize) -> Vec<usize>) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut queue = vec![node];
        while let Some(at) = queue.pop() {
            queue.extend(step(at).into_iter().filter(|next| *next < self.nodes() && found.insert(*next)));
        }
        found
    }

    /// Units, with targets resolved.
    pub fn units_in(&self, names: &[usize]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for name in names {
            let mut all = self.reach(*name, |at| if at < self.units.len() { Vec::new() } else { self.edges(at) });
            all.insert(*name);
            found.extend(all.into_iter().filter(|at| *at < self.units.len()).map(|at| self.name(at)));
        }
        found
    }

    /// By name of a unit: what one of its lists names, with targets resolved.
    pub fn resolved(&self, list: impl Fn(&Unit) -> &Vec<usize>) -> BTreeMap<String, BTreeSet<String>> {
        self.units.iter().enumerate().map(|(at, unit)| (self.name(at), self.units_in(list(unit)))).collect()
    }
}
