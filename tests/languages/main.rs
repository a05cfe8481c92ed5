//! Every language hands over to every other, under load.
//!
//! The daemons are the same store: one protocol, one log. Each ordered pair goes through a handoff that is rolled back
//! because the successor is not well, one that is because it crashes, and one that commits; then one service goes through
//! all of them in one life. No request may fail, no acknowledged write be missing, only one process may hold the lock, and
//! clients that keep their connection may not notice: it moves, with what was read of it.

#[path = "../compiled/mod.rs"]
mod compiled;
mod daemons;
mod given;
mod pair;
#[path = "../support/mod.rs"]
mod support;
mod table;

use daemons::{Language, languages};
use pair::{Watched, commit, hand_over};
use std::thread;
use support::Service;
use support::load::verify;
use support::watch::LockWatch;
use table::Row;

/// Services that run side by side.
const SERVICES: usize = 4;
const LOOK_AT_LOCK: std::time::Duration = std::time::Duration::from_millis(1);

#[test]
fn every_language_hands_over_to_every_other() {
    let there: Vec<&Language> = languages().iter().filter(|language| language.is_there()).collect();
    let walk = walk(there.len());
    let pairs: Vec<(&Language, &Language)> = walk.iter().map(|&(from, to)| (there[from], there[to])).collect();
    let mut rows: Vec<Row> = thread::scope(|scope| {
        let parts = pairs.chunks(pairs.len().div_ceil(SERVICES));
        let services: Vec<_> = parts.map(|part| scope.spawn(|| one_service(part))).collect();
        services.into_iter().flat_map(|service| service.join().unwrap()).collect()
    });
    rows.extend(missing());
    table::print(&mut rows, languages());
    assert_eq!(rows.len(), languages().len().pow(2));
    let bad: Vec<String> = rows.iter().filter_map(Row::complaint).collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// All ordered pairs of 0..count, each with itself, too: each begins where the one before it ended, the first where the
/// last did.
fn walk(count: usize) -> Vec<(usize, usize)> {
    // A de Bruijn sequence for words of two letters: 0 01 02 03 1 12 13 2 23 3.
    let tails = |i| (i + 1..count).flat_map(move |j| [i, j]);
    let letters: Vec<usize> = (0..count).flat_map(|i| std::iter::once(i).chain(tails(i))).collect();
    letters.iter().copied().zip(letters.iter().copied().cycle().skip(1)).collect()
}

/// A part of the walk, in one service as long as all goes well.
fn one_service(part: &[(&Language, &Language)]) -> Vec<Row> {
    let mut service: Option<Service> = None;
    let mut rows = Vec::new();
    for (number, (from, to)) in part.iter().enumerate() {
        let running = service.get_or_insert_with(|| Service::start(from.program()));
        let row = hand_over(running, number, from, to);
        if row.complaint().is_some() {
            service = None;
        }
        rows.push(row);
    }
    rows
}

/// A row for each pair that nobody could try.
fn missing() -> Vec<Row> {
    let all = || languages().iter();
    let pairs = all().flat_map(|from| all().map(move |to| (from, to)));
    pairs.filter(|(from, to)| !from.is_there() || !to.is_there()).map(|(from, to)| Row::skipped(from, to)).collect()
}

#[test]
fn one_service_goes_through_all_languages_and_keeps_what_it_was_told() {
    let there: Vec<&Language> = languages().iter().filter(|language| language.is_there()).collect();
    let service = Service::start(there[0].program());
    let watch = LockWatch::start(&service, LOOK_AT_LOCK);
    let mut kept = Vec::new();
    let mut way = there[0].name.to_owned();
    let mut requests = 0;
    for (number, to) in there[1..].iter().chain(&there[..1]).enumerate() {
        let watched = Watched::start(&service, &format!("chain{number}-"));
        commit(&service, &watched, to);
        let (seen, streams) = watched.stop();
        assert_eq!((seen.failed_requests, &seen.failures), (0, &Vec::new()), "after {way}, to {}", to.name);
        assert_eq!((seen.closed_connections, streams.closed), (0, 0), "connections after {way}, to {}", to.name);
        assert_eq!(streams.faults, Vec::<String>::new(), "after {way}, to {}", to.name);
        kept.extend(seen.acknowledged);
        // All of it, also what it never saw itself.
        assert_eq!(verify(service.address, &kept).unwrap(), Vec::<String>::new(), "lost after {way}, to {}", to.name);
        requests += seen.requests;
        way += &format!(" → {}", to.name);
    }
    let (samples, most) = watch.stop();
    assert!(samples > there.len(), "the lock was looked at {samples} times only");
    assert_eq!(most, 1, "processes that held the lock at once");
    println!("{way}: {requests} requests, 0 failed; {} acknowledged writes, all there", kept.len());
}
