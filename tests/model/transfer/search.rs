//! Every state of it, and each rule taken back.

use super::{EVENTS, Event, Mutant, World};
use std::collections::{HashSet, VecDeque};

/// The number of states, and what is wrong in the first that is, with the way to it.
fn explore(start: World) -> (usize, Option<(&'static str, String)>) {
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut parents: Vec<Option<(usize, Event)>> = vec![None];
    let mut queue = VecDeque::from([(start, 0)]);
    while let Some((world, at)) = queue.pop_front() {
        let enabled: Vec<Event> = EVENTS.iter().copied().filter(|event| world.is_enabled(*event)).collect();
        let is_end = enabled.iter().all(|event| event.fault().is_some());
        let wrong = world.judge().or_else(|| if is_end { world.judge_end() } else { None });
        if let Some(wrong) = wrong {
            let mut trace = vec![format!("{world:#?}")];
            let mut step = at;
            while let Some((parent, event)) = parents[step] {
                trace.push(format!("{event:?}"));
                step = parent;
            }
            trace.reverse();
            return (seen.len(), Some((wrong, trace.join("\n"))));
        }
        for event in enabled {
            let mut after = world.clone();
            after.happen(event);
            let next = seen.len();
            if seen.insert(after.fingerprint()) {
                parents.push(Some((at, event)));
                queue.push_back((after, next));
            }
        }
    }
    (seen.len(), None)
}

fn holds(overlap: bool, connections: usize) {
    let (states, wrong) = explore(World::new(overlap, None, connections));
    println!("transfer, overlap {overlap}, {connections} connections: {states} states");
    if let Some((what, trace)) = wrong {
        panic!("{what}:\n{trace}");
    }
}

/// Five batches of one are more than the window, and more than the socket has room for.
#[test]
fn connections_that_move_in_overlap_mode_have_one_owner() {
    holds(true, 5);
}

#[test]
fn connections_that_move_in_exclusive_mode_have_one_owner() {
    holds(false, 5);
}

#[test]
fn each_rule_of_the_transfer_is_missed() {
    let both = "a connection is used by both";
    for (overlap, mutant, finds) in [
        (false, Mutant::UsesAfterCommit, both),
        (false, Mutant::ShowsBeforeCommit, both),
        (true, Mutant::UsesUnacknowledged, both),
        (true, Mutant::ShowsUnacknowledged, "a connection is said to be lost, and was used"),
        (true, Mutant::DeathBeforeQueue, "a connection is said to be lost, and was used"),
        (true, Mutant::DoneAtOnce, "a connection is said to be lost, and was used"),
        (true, Mutant::BatchesWait, "a connection is lost, and its owner lives"),
        (true, Mutant::LeavesAtOnce, "a connection is lost, and its owner lives"),
    ] {
        let found = explore(World::new(overlap, Some(mutant), 2)).1;
        let what = found.as_ref().map(|(what, _)| *what);
        assert_eq!(what, Some(finds), "{mutant:?}: {}", found.map_or_else(String::new, |(_, trace)| trace));
    }
}
