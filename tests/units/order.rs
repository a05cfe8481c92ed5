//! Starts and stops, step by step, in any order that may be.

use std::collections::{BTreeMap, BTreeSet};

use handoff::service::config::Config;
use handoff::service::graph::{Graph, Standing, State, Why};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::cases;
use crate::plan::{Plan, sound};

/// What depends on what, from the plan, with targets resolved and without what is at fault.
struct Truth {
    config: Config,
    requires: BTreeMap<String, BTreeSet<String>>,
    /// What is wanted, or only ordered.
    weakly: BTreeMap<String, BTreeSet<String>>,
    wants: BTreeMap<String, BTreeSet<String>>,
    conflicts: BTreeSet<(String, String)>,
}

impl Truth {
    fn of(plan: &Plan) -> Self {
        let config = plan.config();
        let known = |map: BTreeMap<String, BTreeSet<String>>| -> BTreeMap<String, BTreeSet<String>> {
            let here = |name: &String| config.units.contains_key(name);
            let map = map.into_iter().filter(|(name, _)| here(name));
            map.map(|(name, on)| (name, on.into_iter().filter(|on| here(on)).collect())).collect()
        };
        let (requires, wants) = (known(plan.resolved(|unit| &unit.requires)), known(plan.resolved(|unit| &unit.wants)));
        let mut weakly = wants.clone();
        for (name, after) in known(plan.resolved(|unit| &unit.after)) {
            weakly.entry(name).or_default().extend(after);
        }
        let said = known(plan.resolved(|unit| &unit.conflicts)).into_iter();
        let said = said.flat_map(|(a, others)| others.into_iter().map(move |b| (a.clone(), b)));
        let conflicts = said.flat_map(|(a, b)| [(a.clone(), b.clone()), (b, a)]).collect();
        Self { config, requires, weakly, wants, conflicts }
    }

    fn meets(&self, name: &str, state: State) -> bool {
        match self.config.units[name].oneshot {
            true => state == State::Completed,
            false => matches!(state, State::Started | State::Healthy),
        }
    }

    /// Why a unit that is down may not start: no reason, and it must.
    fn check(&self, name: &str, standing: &Standing, scene: &Scene) -> Result<(), TestCaseError> {
        let unmet = |on: &&String| !self.meets(on, scene.state(on));
        let hopeful = |on: &&String| {
            scene.state(on) == State::Starting
                || scene.wanted.contains(*on)
                    && scene.state(on) == State::Down
                    && !matches!(scene.standing.get(*on), Some(Standing::Blocked(..)))
        };
        let strong: Vec<&String> = self.requires[name].iter().filter(unmet).collect();
        let weak: Vec<&String> = self.weakly[name].iter().filter(unmet).filter(hopeful).collect();
        let rival = |other: &String| self.conflicts.contains(&(name.to_owned(), other.clone()));
        match standing {
            Standing::Now => {
                prop_assert!(strong.is_empty() && weak.is_empty(), "{} starts before {:?} {:?}", name, strong, weak);
            }
            Standing::Waits(on, Some(_)) => {
                prop_assert!(strong.contains(&on) && hopeful(&on) || weak.contains(&on), "{} waits for {}", name, on);
            }
            Standing::Waits(on, None) => prop_assert!(rival(on) && scene.state(on) == State::Stopping),
            Standing::Blocked(way, why) => {
                let mut at = name.to_owned();
                for (step, next) in way.iter().enumerate() {
                    let last = *why == Why::Conflicts && step + 1 == way.len();
                    let edge = if last {
                        self.conflicts.contains(&(at.clone(), next.clone()))
                    } else {
                        self.requires[&at].contains(next)
                    };
                    prop_assert!(edge, "{} by {:?}, {:?}", name, way, why);
                    at.clone_from(next);
                }
                let state = scene.state(&at);
                let is_so = match why {
                    Why::Failed => state == State::Failed,
                    Why::Ended => state == State::Completed && !self.config.units[&at].oneshot,
                    Why::Unwanted => state == State::Down && !scene.wanted.contains(&at),
                    Why::Conflicts => state.is_alive() || scene.standing.get(&at) == Some(&Standing::Now),
                };
                prop_assert!(is_so, "{} by {:?}, {:?}", name, way, why);
            }
        }
        Ok(())
    }
}

struct Scene {
    wanted: BTreeSet<String>,
    states: BTreeMap<String, State>,
    standing: BTreeMap<String, Standing>,
}

impl Scene {
    fn state(&self, name: &str) -> State {
        self.states.get(name).copied().unwrap_or(State::Down)
    }

    fn in_state(&self, state: State) -> Vec<String> {
        self.states.iter().filter(|(_, is)| **is == state).map(|(name, _)| name.clone()).collect()
    }
}

/// Starts all that may start, until nothing moves any more. `chances` say who is ready first, and how it ends.
fn start(truth: &Truth, graph: &Graph, wanted: BTreeSet<String>, chances: &[u8]) -> Result<Scene, TestCaseError> {
    let mut scene = Scene { wanted, states: BTreeMap::new(), standing: BTreeMap::new() };
    let mut chances = chances.iter().cycle().copied();
    loop {
        scene.standing = graph.standing(&scene.wanted, &scene.states, &BTreeSet::new());
        let down: BTreeSet<&String> = scene.wanted.iter().filter(|name| scene.state(name) == State::Down).collect();
        prop_assert_eq!(scene.standing.keys().collect::<BTreeSet<_>>(), down);
        for (name, standing) in &scene.standing {
            truth.check(name, standing, &scene)?;
        }
        let now: Vec<String> = scene
            .standing
            .iter()
            .filter(|(_, standing)| **standing == Standing::Now)
            .map(|(name, _)| name.clone())
            .collect();
        scene.states.extend(now.iter().map(|name| (name.clone(), State::Starting)));
        let alive: Vec<&String> =
            scene.states.iter().filter(|(_, state)| state.is_alive()).map(|(name, _)| name).collect();
        for (a, b) in alive.iter().flat_map(|a| alive.iter().map(move |b| (a, b))) {
            prop_assert!(!truth.conflicts.contains(&((*a).clone(), (*b).clone())), "{} beside {}", a, b);
        }
        let starting = scene.in_state(State::Starting);
        if starting.is_empty() {
            break;
        }
        let name = starting[usize::from(chances.next().unwrap()) % starting.len()].clone();
        let state = match chances.next().unwrap() % 8 {
            0 => State::Failed,
            1 => State::Completed,
            _ if truth.config.units[&name].oneshot => State::Completed,
            2 => State::Healthy,
            _ => State::Started,
        };
        scene.states.insert(name, state);
    }
    // Nothing waits for what does not come.
    prop_assert!(
        scene.standing.values().all(|standing| matches!(standing, Standing::Blocked(..))),
        "{:?}",
        scene.standing
    );
    Ok(scene)
}

fn closure(from: BTreeSet<String>, step: impl Fn(&str) -> BTreeSet<String>) -> BTreeSet<String> {
    let mut all = from;
    loop {
        let more: BTreeSet<String> = all.iter().flat_map(|name| step(name)).chain(all.clone()).collect();
        if more.len() == all.len() {
            return all;
        }
        all = more;
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn starts_and_stops_keep_the_order(plan in sound(), chances in vec(any::<u8>(), 64), pick in any::<u16>(), with in any::<bool>()) {
        let truth = Truth::of(&plan);
        let graph = Graph::of(&truth.config);
        let picked = truth.config.units.keys().enumerate().filter(|(at, _)| pick >> at & 1 == 1).map(|(_, name)| name.clone());
        let picked: BTreeSet<String> = picked.collect();
        let needed = closure(picked.clone(), |name| &truth.requires[name] | &truth.wants[name]);
        let started_with = graph.started_with(picked.iter().map(String::as_str));
        prop_assert_eq!(&started_with, &needed);
        let mut scene = start(&truth, &graph, if with { needed } else { picked }, &chances)?;

        let first = truth.config.units.keys().nth(usize::from(pick) % truth.config.units.len().max(1));
        let leaving = match first {
            Some(first) if with => {
                let leaving = graph.stopped_with(&[first], &scene.states);
                // A task that is done is needed no more.
                let needed = |name: &str| !truth.config.units[name].oneshot || scene.state(name) != State::Completed;
                let requirers = |name: &str| truth.requires.iter().filter(|(_, on)| needed(name) && on.contains(name)).map(|(name, _)| name.clone()).collect();
                prop_assert_eq!(&leaving, &closure(BTreeSet::from([first.clone()]), requirers));
                leaving
            }
            _ => truth.config.units.keys().cloned().collect(),
        };
        let mut chances = chances.iter().cycle();
        loop {
            let may = graph.stoppable(&leaving, &scene.states);
            for name in &may {
                prop_assert!(leaving.contains(name) && scene.state(name).is_alive() && scene.state(name) != State::Stopping);
                let depends = |other: &&String| truth.requires[*other].contains(name) || truth.weakly[*other].contains(name);
                let holder = leaving.iter().filter(depends).find(|other| scene.state(other).is_alive());
                prop_assert_eq!(holder, None, "{} is stopped", name);
            }
            scene.states.extend(may.into_iter().map(|name| (name, State::Stopping)));
            let stopping = scene.in_state(State::Stopping);
            if stopping.is_empty() {
                break;
            }
            let gone = usize::from(*chances.next().unwrap()) % stopping.len();
            scene.states.insert(stopping[gone].clone(), State::Down);
        }
        prop_assert!(leaving.iter().all(|name| !scene.state(name).is_alive()));
    }
}

#[test]
fn a_unit_waits_for_what_it_conflicts_with_to_be_gone() {
    use handoff::service::config::File;
    let text = "[unit.a]\nexec = ['a']\nconflicts = ['b']\nautostart = false\n[unit.b]\nexec = ['b']\n[unit.c]\nexec = ['c']\nrequires = ['a']\n";
    let file = File { path: std::path::Path::new("x").into(), content: Ok(text.into()) };
    let config = Config::of(&[file]);
    assert_eq!(config.faults, []);
    let graph = Graph::of(&config);
    let wanted = ["a", "c"].map(str::to_owned).into();
    let look = |state| {
        let standing = graph.standing(&wanted, &BTreeMap::from([("b".to_owned(), state)]), &BTreeSet::new());
        (standing["a"].clone(), standing["c"].clone())
    };
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let blocked = |way: &[&String]| Standing::Blocked(way.iter().copied().cloned().collect(), Why::Conflicts);
    assert_eq!(look(State::Started), (blocked(&[&b]), blocked(&[&a, &b])));
    let waits = Standing::Waits(a, Some(handoff::service::config::Condition::Started));
    assert_eq!(look(State::Stopping), (Standing::Waits(b, None), waits.clone()));
    assert_eq!(look(State::Failed), (Standing::Now, waits));
}
