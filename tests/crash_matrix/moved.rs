//! What moves with a handoff: connections that clients keep, and the store's lineage, which is in no file.

use crate::run::{Blow, Case, Scene};
use crate::support::streams::Streams;
use crate::support::wait_until;
use std::ops::RangeInclusive;

const COUNT: u64 = 2;
/// From here on O has said all that it gives.
const GIVEN: &str = "O:after send Gate to the other daemon";
/// From here on the connections are N's.
const WON: &str = "N:after commit";
/// In overlap mode each connection moves by itself: up to here O has all of them.
const ASKED: &str = "O:after ask Drain";

/// Clients that keep their connections, and what the store says of itself.
pub struct Kept {
    streams: Streams,
    /// Empty in overlap mode: that store has no state.
    lineage: String,
}

/// Who serves in the end, as far as the connections go.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Incumbent,
    /// A process that has what the incumbent gave.
    Heir,
    /// One that has nothing of it.
    Fresh,
}

/// Who was killed, and how far it was.
struct Deaths {
    any_daemon: bool,
    successor: bool,
    /// O, after it had given everything.
    given: bool,
    /// N, after it had won the word.
    won: bool,
}

impl Deaths {
    fn of(case: &Case, struck: bool) -> Self {
        let place = |wanted: &str| case.trace.lines().position(|step| step == wanted);
        let behind =
            |step: &str, mark: &str| step[..1] == mark[..1] && place(mark).is_some_and(|at| Some(at) <= place(step));
        let blow = Some(case.step.as_str()).filter(|_| struck && case.blow != Blow::Stop);
        let steps: Vec<&str> = case.scenario.killed_at.into_iter().chain(blow).collect();
        Self {
            any_daemon: steps.iter().any(|step| !step.starts_with('S')),
            successor: steps.iter().any(|step| step.starts_with('N')),
            given: steps.iter().any(|step| behind(step, GIVEN)),
            won: steps.iter().any(|step| behind(step, WON)),
        }
    }
}

impl Kept {
    /// All of them are connected, and talk.
    pub fn start(scene: &Scene) -> Self {
        let streams = Streams::start(scene.service.address, COUNT as usize, "kept");
        streams.go_on();
        Self { streams, lineage: lineage(scene) }
    }

    /// No byte was lost or came twice, and no connection was closed, but those whose owner died; how many.
    pub fn check(&mut self, scene: &Scene, case: &Case, struck: bool, outcome: &str, server: i32) -> u64 {
        let closed = self.go_on(case);
        if scene.scenario.overlap {
            let possible = closed_one_by_one(case, struck, server == scene.incumbent);
            assert!(possible.contains(&closed), "{closed} connections were closed, and not {possible:?}");
            return closed;
        }
        let (before, now) = (std::mem::replace(&mut self.lineage, lineage(scene)), &self.lineage);
        let build = now.rsplit(' ').next().unwrap_or_default();
        let owner = match server == scene.incumbent {
            true => Owner::Incumbent,
            false if *now == format!("{before} {build}") => Owner::Heir,
            false => Owner::Fresh,
        };
        let deaths = Deaths::of(case, struck);
        match owner {
            Owner::Incumbent => {
                assert_eq!(*now, before, "lineage");
                // Nobody knows what N said to these clients. One that was too late for the handoff's deadline said nothing,
                // and never came to where it was to die.
                let lost = outcome == "reverted" || deaths.won && outcome != "rolled_back";
                assert_eq!(closed, if lost { COUNT } else { 0 }, "connections that were closed");
            }
            Owner::Heir => assert_eq!(closed, 0, "connections that were closed"),
            Owner::Fresh => {
                assert_eq!(now, build, "lineage");
                let died = deaths.any_daemon || case.blow == Blow::Stop && outcome == "started_cold";
                assert!(died, "the connections are gone, and nobody died that had them");
                let inherited = deaths.given && !deaths.successor && outcome == "committed";
                assert!(!inherited, "everything was given, and the successor has nothing");
            }
        }
        closed
    }

    /// After another handoff, to which nothing happens.
    pub fn check_next(&self, scene: &Scene, case: &Case, closed: u64) {
        assert_eq!(self.go_on(case), closed, "connections that the next upgrade closed");
        if scene.scenario.overlap {
            return;
        }
        let (_, build) = wait_until("an answer", || scene.service.ping());
        assert_eq!(lineage(scene), format!("{} {build}", self.lineage));
    }

    /// Once each has gone on: how many connections were closed.
    fn go_on(&self, case: &Case) -> u64 {
        self.streams.go_on();
        let mut seen = self.streams.seen();
        if case.all_die() {
            seen.faults.retain(|fault| !fault.contains("cannot connect"));
        }
        assert_eq!(seen.faults, Vec::<String>::new(), "streams of numbers");
        seen.closed
    }
}

/// In overlap mode: how many connections end with the process that was struck, which is the only one that has them. The others
/// live, also those of a process that drains, if nobody was killed.
fn closed_one_by_one(case: &Case, struck: bool, incumbent_serves: bool) -> RangeInclusive<u64> {
    let place = |wanted: &str| case.trace.lines().position(|step| step == wanted);
    let step = Some(case.step.as_str()).filter(|_| struck);
    match step.map_or("", |step| &step[..1]) {
        // It gives nothing before the successor serves, and from then on serves no more itself.
        _ if incumbent_serves => 0..=0,
        // What it was given, and what the incumbent could not give any more: its drain ends.
        "N" if case.blow == Blow::Kill => COUNT..=COUNT,
        "O" => {
            let asked_later = place(ASKED).is_none_or(|asked| place(&case.step) <= Some(asked));
            let given = match case.step.as_str() {
                "O:before send Connections to the other daemon" => 0..=0,
                "O:after send Connections to the other daemon" => 1..=1,
                "O:receive Taken from the other daemon" => 1..=COUNT,
                "O:before exit" => COUNT..=COUNT,
                _ if asked_later => 0..=0,
                _ => 0..=COUNT, // another of its threads gives meanwhile
            };
            // A drain that stands until it is late ends with what it has.
            let least = if case.blow == Blow::Stop { 0 } else { COUNT - given.end() };
            least..=COUNT - given.start()
        }
        _ => 0..=0,
    }
}

fn lineage(scene: &Scene) -> String {
    if scene.scenario.overlap {
        return String::new();
    }
    let reply = wait_until("the lineage", || scene.service.ask("LINEAGE"));
    reply.trim_start_matches("LINEAGE ").to_owned()
}
