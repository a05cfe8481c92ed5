//! What handoff costs a daemon in each language, as ratios against floors that are taken in the same run:
//! `cargo bench --bench languages`.
//!
//! The daemons have nothing to do: `benches/idle`. They use the shared library of this build.

#[path = "../tests/compiled/mod.rs"]
mod compiled;
mod measure;
#[path = "../tests/support/mod.rs"]
mod support;

use compiled::{library, program, root};
use measure::{FLOOR, Program, WARM_UP, handoffs, percentile, print_head, print_row};
use support::go::{build_go, have_go};
use support::python::Python;

const ROUNDS: usize = 200;

/// Set for a program that is to write its byte when it knows its role.
const START: &str = "BENCH_HANDOFF_START";

fn main() {
    let c = |name, flags: &[&str]| Program::new(&[program(name, "benches/idle/idle.c", flags)]);
    let idle = c("idle", &["-std=c11", "-O2"]);
    print_head();
    starts(&idle, &c("idle-bare", &["-std=c11", "-O2", "-DBARE"]));
    daemon("C", &idle);
    if have_go() {
        daemon("Go", &Program::new(&[build_go("idle", "benches/idle/go", ".", &[])]));
    }
    if let Some(python) = Python::find() {
        let idle = Program::new(&[python.interpreter.into(), root().join("benches/idle/idle.py")]);
        daemon("Python", &idle.env("PYTHONPATH", root().join("bindings/python")).env("LIBHANDOFF", library()));
    }
}

/// What the library adds to the start of a program in C.
fn starts(linked: &Program, bare: &Program) {
    let [bare, linked, role] = alternate([(bare, FLOOR), (linked, FLOOR), (linked, START)]);
    print_row("start of a C program that links libhandoff.so, p50; floor: the same without", linked, bare, "");
    print_row("the same, until it knows its role", role, bare, "");
    println!("| that is, in milliseconds | {:.3} | | | ≤ 0.3 |", (role - bare) / 1e6);
}

/// A daemon in one language.
fn daemon(language: &str, program: &Program) {
    let [main, role] = alternate([(program, FLOOR), (program, START)]);
    print_row(&format!("{language}: start until it knows its role, p50; floor: until its main"), role, main, "");
    let measured = handoffs(program, 1, ROUNDS);
    let total = percentile(&measured.total_ns, 50);
    let floor = percentile(&measured.floor_ns, 50);
    let pause = percentile(&measured.pause_ns, 50);
    print_row(&format!("{language}: whole handoff, p50; floor: vfork + exec of the same program"), total, floor, "");
    print_row(&format!("{language}: pause, p50; floor: the whole handoff"), pause, total, "");
}

/// Medians of starts, each until the byte that this variable tells the program to write.
fn alternate<const N: usize>(starts: [(&Program, &str); N]) -> [f64; N] {
    let mut times = [const { Vec::new() }; N];
    for round in 0..WARM_UP + ROUNDS {
        for (times, (program, role)) in times.iter_mut().zip(starts) {
            let time = program.start_ns(role);
            if round >= WARM_UP {
                times.push(time);
            }
        }
    }
    times.map(|times| percentile(&times, 50))
}
