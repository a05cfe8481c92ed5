//! The units of a run, and what is done to them: functions of the seed alone, and of what an operator could know.

use std::collections::{BTreeMap, BTreeSet};

/// How many units a run has in the beginning.
pub const UNITS: usize = 30;

/// splitmix64.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    /// In so many of a hundred.
    pub fn percent(&mut self, of: usize) -> bool {
        self.below(100) < of
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is stopped and started again.
    Plain,
    /// It is replaced by a handoff.
    Replaced,
    /// It ends by itself, with this status.
    Oneshot(i32),
}

/// A unit as its file says.
#[derive(Clone, Debug)]
pub struct Unit {
    pub kind: Kind,
    /// The units that it requires.
    pub requires: BTreeSet<String>,
    /// The same in the words of its file, with targets and conditions.
    needs: Vec<String>,
    pub wants: BTreeSet<String>,
    /// Whom it says that it can not run beside.
    pub conflicts: BTreeSet<String>,
    pub autostart: bool,
    pub restart: &'static str,
    pub listens: bool,
    /// It is asked for its health: it is well without a file UNIT.sick.
    pub asked: bool,
    /// What it is told to do.
    pub words: String,
    /// Further lines of its file.
    pub lines: String,
    /// Changes with each edit of the file.
    pub edition: usize,
}

pub type Units = BTreeMap<String, Unit>;
/// The units of each target, and its line in the file. They stay.
pub type Targets = BTreeMap<&'static str, (BTreeSet<String>, Vec<String>)>;

/// A unit that depends on some of those before it.
pub fn unit(chance: &mut Chance, before: &Units, targets: &Targets) -> Unit {
    let kind = match chance.below(10) {
        0..5 => Kind::Plain,
        5..8 => Kind::Replaced,
        8 => Kind::Oneshot(0),
        _ => Kind::Oneshot([0, 3][chance.below(2)]),
    };
    let (mut words, mut lines) = (String::new(), String::new());
    match kind {
        Kind::Oneshot(status) => words += &format!("exit={status} after_ms={}", chance.below(30)),
        Kind::Replaced => match chance.below(3) {
            0 => words += "linked",
            1 => {
                words += "linked overlap";
                lines += "mode = \"overlap\"\n";
            }
            _ => {
                lines += "mode = \"overlap\"\n";
                become_ready(chance, &mut words, &mut lines);
            }
        },
        Kind::Plain => {
            lines += "mode = \"none\"\n";
            become_ready(chance, &mut words, &mut lines);
            for (word, percent) in [("helpers=2 ", 20), ("orphans=2 ", 20), ("flood=200 ", 10)] {
                words += if chance.percent(percent) { word } else { "" };
            }
            if chance.percent(15) {
                words += "ignore ";
                lines += "stop = [\"TERM 60ms\", \"KILL\"]\n";
            }
        }
    }
    let is_daemon = !matches!(kind, Kind::Oneshot(_));
    let (requires, needs) = needs(chance, before, targets);
    let wants = some(chance, before, 1).difference(&requires).cloned().collect();
    Unit {
        requires,
        needs,
        wants,
        conflicts: BTreeSet::new(),
        autostart: !chance.percent(15),
        restart: match kind {
            Kind::Oneshot(_) => "never",
            _ => ["on-failure", "on-failure", "always", "never"][chance.below(4)],
        },
        kind,
        listens: chance.percent(30),
        asked: is_daemon && chance.percent(20),
        words,
        lines,
        edition: 0,
    }
}

/// How a daemon that does not link the library says that it is ready.
fn become_ready(chance: &mut Chance, words: &mut String, lines: &mut String) {
    match chance.below(4) {
        0 => *lines += "ready = \"delay=20ms\"\n",
        1 => {
            *words += &format!("notify ready_ms={} ", chance.below(30));
            *lines += "ready = \"notify\"\n";
        }
        _ => {
            *words += &format!("fd=9 ready_ms={} ", chance.below(30));
            *lines += "ready = \"fd=9\"\n";
        }
    }
}

/// Of those that conflict with nobody: nobody needs one that may have to give way.
fn some(chance: &mut Chance, before: &Units, most: usize) -> BTreeSet<String> {
    let names: Vec<String> = before.keys().filter(|name| rivals(before, name).is_empty()).cloned().collect();
    let count = chance.below(most + 1);
    (0..count).filter_map(|_| chance.pick(&names).cloned()).collect()
}

/// What a unit requires, and how its file says that.
fn needs(chance: &mut Chance, before: &Units, targets: &Targets) -> (BTreeSet<String>, Vec<String>) {
    let mut requires = some(chance, before, 2);
    let mut needs = Vec::new();
    for name in &requires {
        let unit = &before[name];
        needs.push(match unit.kind {
            Kind::Oneshot(_) if chance.percent(30) => format!("{name}:completed"),
            Kind::Oneshot(_) => name.clone(),
            _ if unit.asked && chance.percent(70) => format!("{name}:healthy"),
            _ if chance.percent(20) => format!("{name}:started"),
            _ => name.clone(),
        });
    }
    let names: Vec<&str> = targets.keys().copied().collect();
    if let Some(name) = chance.pick(&names).filter(|_| chance.percent(20)) {
        requires.extend(targets[name].0.iter().cloned());
        needs.push((*name).to_owned());
    }
    (requires, needs)
}

/// The first ones.
pub fn units(chance: &mut Chance) -> (Units, Targets) {
    let (mut units, mut targets) = (Units::new(), Targets::new());
    for number in 0..UNITS {
        let name = format!("{}{number:02}", ["u", "web.", "db@", "x_+"][number % 4]);
        // Failing tasks take all along that require them: those are last, but for one.
        let mut one = unit(chance, &units, &targets);
        if one.kind == Kind::Oneshot(3) && number % 8 != 7 {
            one.kind = Kind::Oneshot(0);
            one.words = one.words.replace("exit=3", "exit=0");
        }
        units.insert(name, one);
        match number {
            10 => add_target(chance, &units, &mut targets, "t_first", None),
            18 => add_target(chance, &units, &mut targets, "t.second", Some("t_first")),
            _ => {}
        }
    }
    for _ in 0..3 {
        make_rivals(chance, &mut units, &targets);
    }
    (units, targets)
}

fn add_target(
    chance: &mut Chance,
    units: &Units,
    targets: &mut Targets,
    name: &'static str,
    within: Option<&'static str>,
) {
    let mut members = some(chance, units, 4);
    members.retain(|name| units[name].kind != Kind::Oneshot(3));
    let mut written: Vec<String> = members.iter().cloned().collect();
    if let Some(within) = within {
        written.push(within.to_owned());
        members.extend(targets[within].0.iter().cloned());
    }
    targets.insert(name, (members, written));
}

/// Two daemons that nobody needs can not run side by side from now on; one of them is not started by itself.
pub fn make_rivals(chance: &mut Chance, units: &mut Units, targets: &Targets) {
    let is_free = |name: &&String| !is_needed(units, targets, name) && !matches!(units[*name].kind, Kind::Oneshot(_));
    let free: Vec<String> = units.keys().filter(is_free).cloned().collect();
    let (Some(one), Some(two)) = (chance.pick(&free), chance.pick(&free)) else { return };
    if one == two || rivals(units, one).contains(two) {
        return;
    }
    if let Some(unit) = units.get_mut(one) {
        unit.autostart = false;
        unit.conflicts.insert(two.clone());
    }
}

/// Whether another unit, or a target, has its name as one that it needs.
pub fn is_needed(units: &Units, targets: &Targets, name: &str) -> bool {
    units.values().any(|unit| unit.requires.contains(name) || unit.wants.contains(name))
        || targets.values().any(|(units, _)| units.contains(name))
}

/// Whom it can not run beside, whichever of the two says so.
pub fn rivals(units: &Units, name: &str) -> BTreeSet<String> {
    let said_by = units.iter().filter(|(_, unit)| unit.conflicts.contains(name)).map(|(name, _)| name);
    units.get(name).into_iter().flat_map(|unit| &unit.conflicts).chain(said_by).cloned().collect()
}

/// Their file; `exec` is the line with the command of a unit, and of its health.
pub fn file(units: &Units, targets: &Targets, exec: impl Fn(&str, &Unit) -> String) -> String {
    let mut text = String::new();
    for (name, unit) in units {
        let Unit { needs, wants, conflicts, autostart, restart, lines, edition, .. } = unit;
        text += &format!("[unit.{name:?}]\n{}{lines}", exec(name, unit));
        text += &format!("requires = {needs:?}\nwants = {:?}\n", Vec::from_iter(wants));
        text += &format!("autostart = {autostart}\nrestart = {restart:?}\n");
        if *restart != "never" {
            text +=
                "backoff = { first = \"5ms\", max = \"20ms\" }\nrestart_limit = { count = 10000, window = \"60s\" }\n";
        }
        if !conflicts.is_empty() {
            text += &format!("conflicts = {:?}\n", Vec::from_iter(conflicts));
        }
        text += &format!("env = {{ EDITION = \"{edition}\" }}\n");
        text += if matches!(unit.kind, Kind::Oneshot(_)) { "oneshot = true\n" } else { "" };
        text += if unit.listens { "listen = [\"s=127.0.0.1:0\"]\n" } else { "" };
    }
    for (name, (_, written)) in targets {
        text += &format!("[target.{name:?}]\nunits = {written:?}\n");
    }
    text
}

/// Those that require it.
pub fn dependents(units: &Units, name: &str) -> Vec<String> {
    units.iter().filter(|(_, unit)| unit.requires.contains(name)).map(|(name, _)| name.clone()).collect()
}

/// These, and all that require one of them.
pub fn with_dependents(units: &Units, names: &BTreeSet<String>) -> BTreeSet<String> {
    closure(names, |name| dependents(units, name))
}

/// These, and all that is started with them.
pub fn with_needs(units: &Units, names: &BTreeSet<String>) -> BTreeSet<String> {
    closure(names, |name| match units.get(name) {
        Some(unit) => unit.requires.union(&unit.wants).cloned().collect(),
        None => Vec::new(),
    })
}

pub fn closure(names: &BTreeSet<String>, next: impl Fn(&str) -> Vec<String>) -> BTreeSet<String> {
    let mut all = names.clone();
    let mut queue: Vec<String> = names.iter().cloned().collect();
    while let Some(name) = queue.pop() {
        queue.extend(next(&name).into_iter().filter(|name| all.insert(name.clone())));
    }
    all
}
