//! What depends on what: which units may start now, which may be stopped, and why others may not. Pure: the caller says what
//! runs and what shall.

mod cycles;
mod order;

use std::collections::{BTreeMap, BTreeSet};

pub use cycles::cycles;
pub use order::{Standing, State, Why};

use super::config::{Condition, Config, Dependency};

/// The units of a configuration, with the targets resolved.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: BTreeMap<String, Node>,
    /// The units of each target.
    targets: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    edges: Vec<Edge>,
    /// Whom it can not run beside, whichever of the two says so.
    conflicts: BTreeSet<String>,
}

/// One unit before another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    unit: String,
    kind: Kind,
    condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It can not run without.
    Requires,
    /// It is started with it, and runs also without.
    Wants,
    /// Only the order.
    After,
}

impl Kind {
    fn key(self) -> &'static str {
        match self {
            Self::Requires => "requires",
            Self::Wants => "wants",
            Self::After => "after",
        }
    }
}

impl Graph {
    /// Names that are not in the configuration, since they are at fault, are left out.
    pub fn of(config: &Config) -> Self {
        let members = |target| (String::clone(target), members(config, target));
        let mut graph = Self { nodes: BTreeMap::new(), targets: config.targets.keys().map(members).collect() };
        for (name, unit) in &config.units {
            let lists = [(Kind::Requires, &unit.requires), (Kind::Wants, &unit.wants), (Kind::After, &unit.after)];
            let edges = lists.into_iter().flat_map(|(kind, list)| list.iter().map(move |on| (kind, on)));
            let edges = edges.flat_map(|(kind, on)| graph.edges(config, kind, on)).collect();
            let conflicts = unit.conflicts.iter().flat_map(|name| graph.units(config, name)).collect();
            graph.nodes.insert(name.clone(), Node { edges, conflicts });
        }
        let said: Vec<(String, String)> = graph
            .nodes
            .iter()
            .flat_map(|(name, node)| node.conflicts.iter().map(|other| (other.clone(), name.clone())))
            .collect();
        for (name, other) in said {
            graph.nodes.entry(name).or_default().conflicts.insert(other);
        }
        graph
    }

    /// The unit of this name, or those of the target.
    fn units(&self, config: &Config, name: &str) -> BTreeSet<String> {
        match config.units.contains_key(name) {
            true => BTreeSet::from([name.to_owned()]),
            false => self.targets.get(name).cloned().unwrap_or_default(),
        }
    }

    fn edges(&self, config: &Config, kind: Kind, on: &Dependency) -> Vec<Edge> {
        let edge = |unit: String| {
            let usual = config.units.get(&unit).map_or(Condition::Started, Condition::of);
            Edge { condition: on.condition.unwrap_or(usual), unit, kind }
        };
        self.units(config, &on.unit).into_iter().map(edge).collect()
    }

    /// All that has to be started with these units and targets: what they require and want, and so on; and they themselves.
    pub fn started_with<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        let roots = names.into_iter().flat_map(|name| match self.targets.get(name) {
            Some(units) => units.iter().cloned().collect(),
            None => Vec::from([name.to_owned()]),
        });
        reach(roots.filter(|name| self.nodes.contains_key(name)), |name| {
            let edges = self.nodes.get(name).map(|node| &node.edges[..]).unwrap_or_default();
            edges.iter().filter(|edge| edge.kind != Kind::After).map(|edge| edge.unit.clone()).collect()
        })
    }

    /// All that can not run without these units, and they themselves: what has to be stopped with them. A task that is done needs nothing
    /// any more, nor does anybody need it to go on.
    pub fn stopped_with(&self, names: &[&str], states: &BTreeMap<String, State>) -> BTreeSet<String> {
        reach(names.iter().map(|name| String::from(*name)), |name| {
            let is_done = |edge: &Edge| {
                edge.condition == Condition::Completed && states.get(&edge.unit) == Some(&State::Completed)
            };
            let needs = |edge: &Edge| edge.kind == Kind::Requires && edge.unit == name && !is_done(edge);
            let requires = |node: &Node| node.edges.iter().any(needs);
            self.nodes.iter().filter(|(_, node)| requires(node)).map(|(name, _)| name.clone()).collect()
        })
    }

    /// The units that are started with this one: it requires or wants them.
    pub fn needs(&self, name: &str) -> impl Iterator<Item = &str> {
        self.of_node(name).filter(|edge| edge.kind != Kind::After).map(|edge| edge.unit.as_str())
    }

    /// All that a unit depends on: which unit, how (the key), and what is waited for.
    pub fn edges_of(&self, name: &str) -> impl Iterator<Item = (&str, &'static str, Condition)> {
        self.of_node(name).map(|edge| (edge.unit.as_str(), edge.kind.key(), edge.condition))
    }

    /// Beside whom a unit must not run.
    pub fn rivals(&self, name: &str) -> impl Iterator<Item = &str> {
        self.nodes.get(name).into_iter().flat_map(|node| &node.conflicts).map(String::as_str)
    }

    fn of_node(&self, name: &str) -> impl Iterator<Item = &Edge> {
        self.nodes.get(name).into_iter().flat_map(|node| &node.edges)
    }

    /// The units of a target; none if there is none of this name.
    pub fn target(&self, name: &str) -> Option<&BTreeSet<String>> {
        self.targets.get(name)
    }
}

/// The units of a target, and of the targets in it.
fn members(config: &Config, target: &str) -> BTreeSet<String> {
    let all = reach(std::iter::once(target.to_owned()), |name| {
        config.targets.get(name).map(|target| target.units.clone()).unwrap_or_default()
    });
    all.into_iter().filter(|name| config.units.contains_key(name)).collect()
}

/// Everything that steps lead to, with where they begin.
fn reach(roots: impl Iterator<Item = String>, step: impl Fn(&str) -> Vec<String>) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = roots.collect();
    let mut queue: Vec<String> = found.iter().cloned().collect();
    while let Some(name) = queue.pop() {
        queue.extend(step(&name).into_iter().filter(|next| found.insert(next.clone())));
    }
    found
}
