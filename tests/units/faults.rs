//! What is at fault, and what is not.

use std::collections::BTreeSet;
use std::path::Path;

use handoff::service::config::{Config, File};
use handoff::service::graph::cycles;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::cases;
use crate::plan::{Plan, config, sound, wild};

const MISTAKES: &[&str] = &[
    "x = [",
    "x = \"",
    "x = '",
    "x",
    "x = ",
    "= 1",
    "x = 0o9",
    "]",
    "[",
    "[[",
    "[x",
    "x = {",
    "x = { y = [ }",
    "\"x",
    "x = 1 y = 2",
    "x = 1\nx = 2",
    "\u{1}",
];

/// Nodes with a fault of their own.
fn own_faults(plan: &Plan) -> BTreeSet<usize> {
    let bad = |node: &usize| {
        plan.units.get(*node).is_some_and(|unit| unit.broken)
            || plan.edges(*node).iter().any(|name| *name >= plan.nodes())
            || plan.reach(*node, |at| plan.edges(at)).contains(node)
    };
    (0..plan.nodes()).filter(bad).collect()
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn a_fault_takes_along_who_requires_it_and_nobody_else(plan in wild()) {
        let own = own_faults(&plan);
        let is_bad = |node: &usize| own.contains(node) || plan.reach(*node, |at| plan.needs(at)).iter().any(|on| own.contains(on));
        let config = plan.config();
        let good: BTreeSet<String> = (0..plan.units.len()).filter(|unit| !is_bad(unit)).map(|unit| plan.name(unit)).collect();
        let found: BTreeSet<String> = config.units.keys().cloned().collect();
        prop_assert_eq!(&found, &good, "{:?}", config.faults);
        // A target goes on with the units that are left.
        let targets: BTreeSet<String> =
            (plan.units.len()..plan.nodes()).filter(|target| !own.contains(target)).map(|target| plan.name(target)).collect();
        prop_assert_eq!(&config.targets.keys().cloned().collect::<BTreeSet<_>>(), &targets);
        let told: BTreeSet<String> = config.faults.iter().filter_map(|fault| fault.unit.clone()).collect();
        let all: BTreeSet<String> = (0..plan.nodes()).map(|node| plan.name(node)).collect();
        let bad: BTreeSet<String> = all.difference(&good).filter(|name| !targets.contains(*name)).cloned().collect();
        prop_assert_eq!(told, bad);
        prop_assert!(config.faults.is_sorted());
    }

    #[test]
    fn a_cycle_is_told_with_its_way(plan in wild()) {
        let config = plan.config();
        let number = |name: &str| (0..plan.nodes()).find(|node| plan.name(*node) == name).unwrap();
        let ways = config.faults.iter().filter_map(|fault| fault.text.strip_prefix("it waits for itself: "));
        let mut on_ways = BTreeSet::new();
        for way in ways {
            let way: Vec<usize> = way.split(';').next().unwrap().split(" -> ").map(number).collect();
            prop_assert_eq!(way.first(), way.last());
            prop_assert!(way.windows(2).all(|step| plan.edges(step[0]).contains(&step[1])), "{:?}", way);
            on_ways.extend(way);
        }
        let on_cycles: BTreeSet<usize> =
            (0..plan.nodes()).filter(|node| plan.reach(*node, |at| plan.edges(at)).contains(node)).collect();
        prop_assert_eq!(on_ways, on_cycles);
    }

    #[test]
    fn every_cycle_is_found_and_is_one(edges in vec(vec(0usize..12, 0..4), 12)) {
        let found = cycles(&edges);
        for cycle in &found {
            prop_assert_eq!(cycle.iter().collect::<BTreeSet<_>>().len(), cycle.len(), "twice the same");
            for (step, at) in cycle.iter().enumerate() {
                prop_assert!(edges[*at].contains(&cycle[(step + 1) % cycle.len()]));
            }
        }
        let covered: BTreeSet<usize> = found.into_iter().flatten().collect();
        for node in 0..edges.len() {
            let mut reached: BTreeSet<usize> = BTreeSet::new();
            let mut queue = vec![node];
            while let Some(at) = queue.pop() {
                queue.extend(edges[at].iter().copied().filter(|next| reached.insert(*next)));
            }
            prop_assert_eq!(covered.contains(&node), reached.contains(&node), "{}", node);
        }
    }

    /// What is no TOML, anywhere in one unit: all that do not require it can run.
    #[test]
    fn a_mistake_in_the_syntax_stays_in_its_unit(plan in sound(), which in any::<prop::sample::Index>(), line in 0usize..7, mistake in select(MISTAKES)) {
        let sane = plan.config();
        let unit = which.index(plan.units.len());
        let texts = plan.texts().map(|text| {
            let Some(at) = text.find(&format!("[unit.u{unit}]\n")) else { return text };
            let lines: Vec<&str> = text[at..].split_inclusive('\n').collect();
            format!("{}{}{mistake}\n{}", &text[..at], lines[..=line].concat(), lines[line + 1..].concat())
        });
        let config = config(&texts);
        let requires = |other: &usize| *other == unit || plan.reach(*other, |at| plan.needs(at)).contains(&unit);
        let lost: BTreeSet<String> = (0..plan.units.len()).filter(requires).map(|unit| plan.name(unit)).collect();
        let good = sane.units.keys().filter(|name| !lost.contains(*name));
        prop_assert!(good.eq(config.units.keys()), "{:?}", config.faults);
        let told = config.faults.iter().filter(|fault| fault.unit == Some(plan.name(unit)) && !fault.text.contains("can not run"));
        prop_assert_eq!(told.count(), 1, "{:?}", config.faults);
    }

    /// Files with any bytes in them, or cut off: whatever could not be read is told, each in a line.
    #[test]
    fn nothing_makes_it_panic(plan in wild(), strange in vec(any::<u8>(), 0..6), at in any::<prop::sample::Index>(), cut in any::<bool>()) {
        let mut text = plan.texts().concat().into_bytes();
        let at = at.index(text.len());
        if cut {
            text.truncate(at);
        }
        text.splice(at..at, strange);
        let config = Config::of(&[File { path: Path::new("x").into(), content: Ok(text) }]);
        let told: BTreeSet<&str> = config.faults.iter().filter_map(|fault| fault.unit.as_deref()).collect();
        let names: BTreeSet<String> = (0..plan.units.len()).map(|unit| plan.name(unit)).collect();
        // What was put into a name may give another one: `u-0`.
        let renamed = config.units.keys().any(|name| !names.contains(name));
        for name in names {
            let known = config.units.contains_key(&name) || told.contains(name.as_str());
            prop_assert!(known || cut || renamed || !config.faults.is_empty(), "{} is lost", name);
            prop_assert!(!(config.units.contains_key(&name) && told.contains(name.as_str())), "{} is both", name);
        }
        config.faults.iter().for_each(|fault| assert_eq!(fault.to_string().lines().count(), 1));
    }
}
