//! What handoff costs a daemon in each language, as ratios against floors that are taken in the same run:
//! `cargo bench --bench languages`.
//!
//! The daemons have nothing to do: `benches/idle`. They use the shared library of this build.

#[path = "../tests/compiled/mod.rs"]
mod compiled;
mod support;

use compiled::program;
use std::path::PathBuf;
use support::{FLOOR, Program, WARM_UP, handoffs, percentile, print_head, print_row};

const STARTS: usize = 400;
const ROUNDS: usize = 200;

/// Set for a program that is to write its byte when it knows its role.
const START: &str = "BENCH_HANDOFF_START";

fn main() {
    let idle = program("idle", "benches/idle/idle.c", &["-std=c11", "-O2"]);
    print_head();
    starts(idle.clone(), program("idle-bare", "benches/idle/idle.c", &["-std=c11", "-O2", "-DBARE"]));
    whole("C", &Program::new(&[idle]));
}

/// What the library adds to the start of a program.
fn starts(linked: PathBuf, bare: PathBuf) {
    let [bare, linked] = [bare, linked].map(|path| Program::new(&[path]));
    let mut times = [const { Vec::new() }; 3];
    for round in 0..WARM_UP + STARTS {
        let measured = [bare.start_ns(FLOOR), linked.start_ns(FLOOR), linked.start_ns(START)];
        if round >= WARM_UP {
            times.iter_mut().zip(measured).for_each(|(times, time)| times.push(time));
        }
    }
    let [bare, linked, role] = times.map(|times| percentile(&times, 50));
    print_row("start of a C program that links libhandoff.so, p50; floor: the same without", linked, bare, "");
    print_row("the same, until it knows its role", role, bare, "");
    println!("| that is, in milliseconds | {:.3} | | | ≤ 0.3 |", (role - bare) / 1e6);
}

/// A whole handoff of a daemon in one language.
fn whole(language: &str, program: &Program) {
    let measured = handoffs(program, 1, ROUNDS);
    let total = percentile(&measured.total_ns, 50);
    let floor = percentile(&measured.floor_ns, 50);
    let pause = percentile(&measured.pause_ns, 50);
    print_row(&format!("whole handoff, {language}, p50; floor: vfork + exec of the same program"), total, floor, "");
    print_row(&format!("its pause, {language}, p50; floor: the whole"), pause, total, "");
}
