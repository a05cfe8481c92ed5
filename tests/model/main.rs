//! The machines of `handoff::protocol` themselves, in a model that explores every order of their steps with every fault.

mod acts;
mod config;
mod daemon;
mod explore;
mod fingerprint;
mod rules;
mod service;
mod world;

use config::{BASE, Config};
use explore::{Report, explore};

fn run(config: &Config) -> Report {
    let report = explore(config, false);
    let Report { states, transitions, terminals, excused, cyclic, .. } = &report;
    println!(
        "{:<44} states {states:>9} transitions {transitions:>10} terminals {terminals:>6} (excused {excused}) cyclic {cyclic}",
        config.name
    );
    report
}

fn holds(config: &Config) {
    let report = run(config);
    let complaints = report.complaints(config);
    assert!(complaints.is_empty(), "{}:\n{complaints}", config.name);
}

#[test]
fn one_handoff() {
    holds(&BASE);
}

#[test]
fn one_crash() {
    holds(&Config { name: "R1n one crash", crashes: 1, ..BASE });
}
