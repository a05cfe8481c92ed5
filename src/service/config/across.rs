//! What is wrong between units, and which of them can run all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::fault::{Fault, HINTS_MAX, Place, hint, shown};
use super::file::{Contents, Definition, Item};
use super::unit::{Condition, Unit};
use super::{Config, MARKED};
use crate::service::address::Address;
use crate::service::graph::cycles;

/// Names of a cycle that are shown at most.
const CYCLE_SHOWN_MAX: usize = 12;

/// All definitions, and whom a name means.
pub(super) struct All {
    pub(super) definitions: Vec<Definition>,
    pub(super) by_name: BTreeMap<String, usize>,
}

/// Checks everything that takes more than one unit to see.
pub(super) fn resolve(contents: Contents, real: fn(&Path) -> PathBuf) -> Config {
    let mut definitions = contents.definitions;
    definitions.sort_by(|a, b| a.place.cmp(&b.place));
    let mut all = All { definitions, by_name: BTreeMap::new() };
    all.check_names();
    all.check_addresses();
    all.check_data_dirs(real);
    all.check_references();
    all.check_cycles();
    all.check_conflicts();
    all.spread();
    all.into_config(contents.faults)
}

impl All {
    pub(super) fn fault(&mut self, at: usize, place: Place, key: Option<&str>, text: String) {
        let definition = &mut self.definitions[at];
        let fault = Fault { place, unit: Some(definition.name.clone()), key: key.map(str::to_owned), text };
        definition.faults.push(fault);
    }

    pub(super) fn unit(&self, at: usize) -> Option<&Unit> {
        match &self.definitions[at].item {
            Item::Unit(unit) => Some(unit),
            _ => None,
        }
    }

    fn is_system(&self, at: usize) -> bool {
        self.unit(at).is_some_and(|unit| unit.system)
    }

    /// Who has what two want: a system unit before others, and what an operator has added after all.
    fn rank(&self, at: usize) -> u8 {
        match self.definitions[at].added {
            true => 0,
            false => 1 + u8::from(self.is_system(at)),
        }
    }

    /// Whom names mean; the numbers, in the order of places.
    pub(super) fn named(&self) -> Vec<usize> {
        let mut named: Vec<usize> = self.by_name.values().copied().collect();
        named.sort_unstable();
        named
    }

    /// The place of an element of a key's list, or of its value.
    pub(super) fn place(&self, at: usize, key: &str, element: usize) -> Place {
        let definition = &self.definitions[at];
        let places = definition.places.get(key).and_then(|places| places.get(element));
        places.unwrap_or(&definition.place).clone()
    }

    /// A name that two have means neither of them; unless only one of them is a system unit, or in a file: nobody takes it from that one.
    fn check_names(&mut self) {
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, definition) in self.definitions.iter().enumerate() {
            groups.entry(definition.name.clone()).or_default().push(at);
        }
        for (name, group) in groups {
            let rank = group.iter().map(|at| self.rank(*at)).max().unwrap_or_default();
            let owners: Vec<usize> = group.iter().copied().filter(|at| self.rank(*at) == rank).collect();
            let owner = owners.first().copied().unwrap_or_default();
            for at in group.iter().copied().filter(|_| group.len() > 1) {
                let other = if at == owner { group.iter().copied().find(|other| *other != at) } else { Some(owner) };
                let other = other.unwrap_or(owner);
                let text = match (&owners[..], at == owner) {
                    ([_], true) => continue,
                    ([_], false) if self.is_system(owner) => "there is a system unit of this name",
                    ([_], false) => "there is a unit of this name",
                    _ => "the name is there twice",
                };
                let text = format!("{text}, at {}; rename this one", self.definitions[other].place);
                self.fault(at, self.definitions[at].place.clone(), None, text);
            }
            self.by_name.insert(name, owner);
        }
    }

    /// Whether `at` has to give way to `other`, if both want the same.
    pub(super) fn gives_way(&self, at: usize, other: usize) -> bool {
        at == other || self.rank(at) <= self.rank(other)
    }

    fn check_addresses(&mut self) {
        let mut groups: BTreeMap<Where, Vec<Claim>> = BTreeMap::new();
        let mut twice = Vec::new();
        for at in self.named() {
            let listeners = self.unit(at).map(|unit| &unit.listen[..]).unwrap_or_default();
            for (index, listener) in listeners.iter().enumerate() {
                if listeners[..index].iter().any(|other| other.name == listener.name) {
                    twice.push((at, index, listener.name.clone()));
                }
                if !listener.address.is_any() {
                    groups.entry(Where::of(&listener.address)).or_default().push(((at, index), ip(&listener.address)));
                }
            }
        }
        for (at, index, name) in twice {
            let text = format!("the unit has a listener '{name}' already; each needs a name of its own");
            self.fault(at, self.place(at, "listen", index), Some("listen"), text);
        }
        for group in groups.values().filter(|group| group.len() > 1) {
            // Who may clash: the same address, one that is for all, or whoever is there, with one that is for all.
            let mut by_ip: BTreeMap<Option<IpAddr>, Vec<(usize, usize)>> = BTreeMap::new();
            for (own, ip) in group {
                by_ip.entry(*ip).or_default().push(*own);
                by_ip.entry(None).or_default().extend(ip.is_none_or(|ip| ip.is_unspecified()).then_some(*own));
            }
            let all: Vec<(usize, usize)> = group.iter().map(|(own, _)| *own).collect();
            for (own, ip) in group {
                let for_all = ip.is_none_or(|ip| ip.is_unspecified());
                let lists = if for_all { [&all[..], &[]] } else { [&by_ip[ip][..], &by_ip[&None][..]] };
                self.check_address(*own, lists.into_iter().flatten().copied());
            }
        }
    }

    fn check_address(&mut self, own: (usize, usize), mut others: impl Iterator<Item = (usize, usize)>) {
        let address = |(at, index): (usize, usize)| self.unit(at).and_then(|unit| unit.listen.get(index));
        let Some(listener) = address(own) else { return };
        let clash = others.find(|other| *other != own && self.gives_way(own.0, other.0));
        let Some(other) = clash else { return };
        let name = address(other).map(|other| other.name.clone()).unwrap_or_default();
        let text = format!(
            "{} is the address of listener '{name}' of {}, too, at {}; choose another",
            shown(&listener.address.to_string()),
            shown(&self.definitions[other.0].name),
            self.place(other.0, "listen", other.1)
        );
        self.fault(own.0, self.place(own.0, "listen", own.1), Some("listen"), text);
    }

    fn check_data_dirs(&mut self, real: fn(&Path) -> PathBuf) {
        let mut groups: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
        for at in self.named() {
            if let Some(dir) = self.unit(at).and_then(|unit| unit.data_dir.clone()) {
                groups.entry(real(&dir)).or_default().push(at);
            }
        }
        for (real, group) in &groups {
            for at in group.iter().copied() {
                let Some(other) = group.iter().copied().find(|other| *other != at && self.gives_way(at, *other)) else {
                    continue;
                };
                let (name, place) = (shown(&self.definitions[other].name), self.place(other, "data_dir", 0));
                let dir = |at: usize| self.unit(at).and_then(|unit| unit.data_dir.as_deref());
                let both = match dir(at) == dir(other) {
                    true => String::new(),
                    false => format!(" (both are {})", shown(&real.to_string_lossy())),
                };
                let text = format!("{name} writes to this directory, too, at {place}{both}; give each its own");
                self.fault(at, self.place(at, "data_dir", 0), Some("data_dir"), text);
            }
        }
    }

    /// All names that a definition has in its lists: key, element, name.
    pub(super) fn references(&self, at: usize) -> Vec<(&'static str, usize, &str)> {
        match &self.definitions[at].item {
            Item::Unit(unit) => {
                let lists = [("requires", &unit.requires), ("wants", &unit.wants), ("after", &unit.after)];
                let dependencies = lists.into_iter().flat_map(|(key, list)| {
                    list.iter().enumerate().map(move |(index, on)| (key, index, on.unit.as_str()))
                });
                let conflicts = unit.conflicts.iter().enumerate();
                dependencies.chain(conflicts.map(|(index, name)| ("conflicts", index, name.as_str()))).collect()
            }
            Item::Target(target) => {
                target.units.iter().enumerate().map(|(index, name)| ("units", index, name.as_str())).collect()
            }
            Item::Unreadable => Vec::new(),
        }
    }

    fn check_references(&mut self) {
        let mut found = Vec::new();
        for at in self.named() {
            for (key, index, name) in self.references(at) {
                let text = match self.by_name.get(name) {
                    None => Some(self.no_such(name, found.len() < HINTS_MAX)),
                    Some(other) => self.wrong_condition(at, key, index, *other),
                };
                found.extend(text.map(|text| (at, key, index, text)));
            }
        }
        for (at, key, index, text) in found {
            self.fault(at, self.place(at, key, index), Some(key), text);
        }
    }

    fn no_such(&self, name: &str, hinted: bool) -> String {
        let known = self.by_name.keys().map(String::as_str).filter(|_| hinted);
        let todo = match hint(name, known) {
            Some(meant) => format!("do you mean '{meant}'?"),
            None => format!("write [unit.{}], or leave it out", shown(name)),
        };
        format!("there is no unit or target '{}'; {todo}", shown(name))
    }

    fn wrong_condition(&self, at: usize, key: &str, index: usize, other: usize) -> Option<String> {
        let unit = self.unit(at)?;
        let list = match key {
            "requires" => &unit.requires,
            "wants" => &unit.wants,
            "after" => &unit.after,
            _ => return None,
        };
        let on = list.get(index)?;
        let (condition, name) = (on.condition?, &on.unit);
        let text = match (&self.definitions[other].item, condition) {
            (Item::Target(_), _) => {
                format!("'{name}' is a target, whose units have conditions of their own; write \"{name}\"")
            }
            (Item::Unit(other), Condition::Completed) if !other.oneshot => {
                format!("'{name}' is no oneshot, and goes on; write \"{name}\", or add oneshot = true there")
            }
            (Item::Unit(other), Condition::Started | Condition::Healthy) if other.oneshot => {
                format!("'{name}' is a oneshot, which is done when it has ended; write \"{name}:completed\"")
            }
            (Item::Unit(other), Condition::Healthy) if other.health.is_none() => {
                format!("'{name}' has no health; write \"{name}\", or add health there")
            }
            _ => return None,
        };
        Some(text)
    }

    fn check_cycles(&mut self) {
        let of = |at: usize| {
            let ordering = self.references(at).into_iter().filter(|(key, ..)| *key != "conflicts");
            ordering.filter_map(|(_, _, name)| self.by_name.get(name).copied()).collect()
        };
        let named: BTreeSet<usize> = self.named().into_iter().collect();
        let edges: Vec<Vec<usize>> =
            (0..self.definitions.len()).map(|at| if named.contains(&at) { of(at) } else { Vec::new() }).collect();
        let mut told = BTreeSet::new();
        for cycle in cycles(&edges) {
            let first = cycle[0];
            let way = self.way(&cycle);
            for (step, at) in cycle.iter().copied().enumerate() {
                if !told.insert(at) {
                    continue;
                }
                let next = &self.definitions[cycle[(step + 1) % cycle.len()]].name;
                let found = self.references(at).into_iter().find(|(key, _, name)| *key != "conflicts" && name == next);
                let (key, index) = found.map(|(key, index, _)| (key, index)).unwrap_or_default();
                let text = match at == first {
                    true => format!("it waits for itself: {way}; take one of these steps out"),
                    false => {
                        let (name, place) = (shown(&self.definitions[first].name), &self.definitions[first].place);
                        format!("it waits for itself, in the cycle of {name}, at {place}; take one of its steps out")
                    }
                };
                self.fault(at, self.place(at, key, index), Some(key), text);
            }
        }
    }

    /// `a -> b -> a`
    fn way(&self, cycle: &[usize]) -> String {
        let mut names: Vec<String> = cycle.iter().map(|at| shown(&self.definitions[*at].name)).collect();
        if names.len() > CYCLE_SHOWN_MAX {
            let left_out = names.len() - CYCLE_SHOWN_MAX;
            names.splice(CYCLE_SHOWN_MAX - 1..names.len() - 1, [format!("({left_out} more)")]);
        }
        names.push(names[0].clone());
        names.join(" -> ")
    }

    /// Whoever requires something that is at fault can not run either.
    fn spread(&mut self) {
        let named = self.named();
        let mut bad: BTreeSet<usize> =
            named.iter().copied().filter(|at| !self.definitions[*at].faults.is_empty()).collect();
        let requirers = self.requirers();
        let mut queue: Vec<usize> = bad.iter().copied().collect();
        while let Some(at) = queue.pop() {
            queue.extend(requirers[at].iter().copied().filter(|requirer| bad.insert(*requirer)));
        }
        for at in named {
            if !bad.contains(&at) || !self.definitions[at].faults.is_empty() {
                continue;
            }
            // A target goes on with those of its units that are in order.
            let Some(unit) = self.unit(at) else { continue };
            let mut on = unit.requires.iter().enumerate().map(|(index, on)| (index, &on.unit));
            let first =
                on.find_map(|(index, name)| Some((index, *self.by_name.get(name).filter(|at| bad.contains(at))?)));
            let Some((index, other)) = first else { continue };
            let other = &self.definitions[other];
            let text = format!("'{}' can not run, see {}; mend that first", shown(&other.name), self.why(other));
            self.fault(at, self.place(at, "requires", index), Some("requires"), text);
        }
    }

    fn why(&self, bad: &Definition) -> Place {
        bad.faults.iter().map(|fault| &fault.place).min().unwrap_or(&bad.place).clone()
    }

    /// Who can not run without whom: by number, the units that require it, and the targets that it is in.
    pub(super) fn requirers(&self) -> Vec<Vec<usize>> {
        let mut requirers = vec![Vec::new(); self.definitions.len()];
        for at in self.named() {
            for (_, _, name) in self.references(at).into_iter().filter(|(key, ..)| matches!(*key, "requires" | "units"))
            {
                if let Some(other) = self.by_name.get(name) {
                    requirers[*other].push(at);
                }
            }
        }
        requirers
    }

    fn into_config(self, faults: Vec<Fault>) -> Config {
        let mut config = Config { faults, ..Config::default() };
        for definition in self.definitions {
            if definition.faults.is_empty() && !matches!(definition.item, Item::Unreadable) {
                config.places.insert(definition.name.clone(), definition.place);
                let is_marked = |(key, places): (String, Vec<Place>)| {
                    MARKED.contains(&key.as_str()).then_some(())?;
                    Some((key, places.into_iter().next()?))
                };
                let marks = definition.places.into_iter().filter_map(is_marked).collect();
                config.marks.insert(definition.name.clone(), marks);
            }
            match (definition.faults.is_empty(), definition.item) {
                (true, Item::Unit(unit)) => drop(config.units.insert(definition.name, *unit)),
                (true, Item::Target(target)) => drop(config.targets.insert(definition.name, target)),
                _ => {}
            }
            config.faults.extend(definition.faults);
        }
        config.faults.sort();
        config.faults.dedup();
        config
    }
}

/// Addresses that may clash are together.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Where {
    Path(PathBuf),
    /// UDP or not, version 6 or not, and the port.
    Port(bool, bool, u16),
}

impl Where {
    fn of(address: &Address) -> Self {
        match address {
            Address::Tcp(address) => Self::Port(false, address.is_ipv6(), address.port()),
            Address::Udp(address) => Self::Port(true, address.is_ipv6(), address.port()),
            Address::Unix(path) => Self::Path(path.clone()),
        }
    }
}

/// A unit's listener, and its IP address if it has one.
type Claim = ((usize, usize), Option<IpAddr>);

fn ip(address: &Address) -> Option<IpAddr> {
    match address {
        Address::Tcp(address) | Address::Udp(address) => Some(address.ip()),
        Address::Unix(_) => None,
    }
}
