//! Operations at random on thirty units, with deaths at random: what the supervisor says is what is.
//!
//! `SEED=7 cargo test --test operations`; with `-- --ignored` a thousand of them. A failure names seed and operation.

mod check;
mod model;
mod operate;
mod plan;
#[path = "../support/mod.rs"]
mod support;
mod watch;

use operate::Run;

fn seed() -> u64 {
    let given = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    given.unwrap_or(4)
}

fn run(operations: usize) {
    let seed = seed();
    println!("SEED={seed}");
    let mut run = Run::start(seed);
    for _ in 0..operations {
        run.one();
    }
    run.end();
}

#[test]
fn what_it_says_is_what_is() {
    run(200);
}

#[test]
#[ignore = "some minutes: see docs/development.md"]
fn what_it_says_is_what_is_a_thousand_times() {
    run(1000);
}
