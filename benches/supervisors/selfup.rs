//! What a self-upgrade costs; the others have none.

use crate::ask;
use crate::bed::{Bed, Kind, Unit};
use crate::table::{median, ms};
use handoff::sys::clock::monotonic_ns;
use std::sync::atomic::{AtomicBool, Ordering};

const ROUNDS: usize = 5;

struct Upgrades {
    total_ns: u64,
    pause_ns: u64,
    longest_answer_ns: u64,
}

fn upgrades(count: usize) -> Upgrades {
    let mut bed = Bed::new(Kind::Handoff, vec![Unit::new("idle", count, "")]);
    bed.launch_all();
    let over = AtomicBool::new(false);
    let (outcomes, longest_answer_ns) = std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let mut longest = 0;
            while !over.load(Ordering::Relaxed) {
                let before = monotonic_ns();
                ask::handoff(&bed).expect("the socket never refuses");
                longest = longest.max(monotonic_ns() - before);
            }
            longest
        });
        let outcomes: Vec<serde_json::Value> = (0..ROUNDS).map(|_| one(&bed)).collect();
        over.store(true, Ordering::Relaxed);
        (outcomes, asks.join().expect("a client"))
    });
    let of = |field: &str| median(outcomes.iter().filter_map(|outcome| outcome[field].as_u64()).collect());
    let measured = Upgrades { total_ns: of("total_ns"), pause_ns: of("pause_ns"), longest_answer_ns };
    bed.begin_end();
    bed.wait_for_end();
    measured
}

fn one(bed: &Bed) -> serde_json::Value {
    let output = bed.handoff("self-upgrade").arg("--json").output().expect("a command");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

pub fn measure() {
    println!("\n### `handoff self-upgrade`\n");
    println!("| services | all of it | nobody answers for | longest answer to a client that asks all the time |");
    println!("|---|---|---|---|");
    for count in [100, 300] {
        let measured = upgrades(count);
        let [total, pause, answer] = [measured.total_ns, measured.pause_ns, measured.longest_answer_ns].map(ms);
        println!("| {count} | {total} | {pause} | {answer} |");
    }
    println!("\nMedians of {ROUNDS}, of the longest answer the longest. No other supervisor here can do it.");
}
