//! The machines of `handoff::protocol` themselves, in a model that explores every order of their steps with every fault.

mod acts;
mod adopt;
mod config;
mod connections;
mod daemon;
mod events;
mod explore;
mod fingerprint;
mod mutants;
mod overlap;
mod probation;
mod rules;
mod service;
mod transfer;
mod work;
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

#[test]
fn one_crash_and_a_restart() {
    holds(&Config { name: "S1 one crash, restarts", crashes: 1, restarts: 1, ..BASE });
}

/// The bounds of the whole check.
const WHOLE: &[Config] = &[
    BASE,
    Config { name: "R1n one crash", crashes: 1, ..BASE },
    Config { name: "R1c one crash, O's death starts cold", crashes: 1, promote: false, ..BASE },
    Config { name: "R2n two crashes", crashes: 2, ..BASE },
    Config { name: "R5 S stops for ever, one crash", freezes: 1, freeze_service_only: true, crashes: 1, ..BASE },
    Config { name: "R6 two stop for ever, one crash", freezes: 2, crashes: 1, ..BASE },
    Config { name: "R7 two handoffs, one crash", handoffs: 2, crashes: 1, ..BASE },
    Config { name: "R9 a stranger, one crash", stranger: true, crashes: 1, ..BASE },
    Config { name: "R13 no deadline check, two crashes", no_deadline_check: true, crashes: 2, ..BASE },
    Config { name: "R15 one crash, two cut sessions", crashes: 1, cuts: 2, ..BASE },
    Config { name: "R16 two crashes, one cut, two writes", crashes: 2, cuts: 1, writes: 2, ..BASE },
    Config { name: "B1 bad applications, one crash, one write", bad_applications: true, crashes: 1, writes: 1, ..BASE },
    Config {
        name: "B2 bad applications, two crashes, one write",
        bad_applications: true,
        crashes: 2,
        writes: 1,
        ..BASE
    },
    Config { name: "Q1 a cancel or a stop, one crash", requests: 1, crashes: 1, ..BASE },
    Config { name: "R8n two handoffs, two crashes", handoffs: 2, crashes: 2, ..BASE },
    Config { name: "X1 a stranger, two crashes, one cut", stranger: true, crashes: 2, cuts: 1, ..BASE },
    Config { name: "X2 requests, bad applications, one cut", requests: 2, bad_applications: true, cuts: 1, ..BASE },
    Config {
        name: "X3 two handoffs, bad applications, one crash",
        handoffs: 2,
        bad_applications: true,
        crashes: 1,
        ..BASE
    },
    Config { name: "R3 three crashes", crashes: 3, ..BASE },
    Config { name: "R12 two crashes, one stops for ever", crashes: 2, freezes: 1, ..BASE },
    Config { name: "R14 two handoffs, one crash, one write", handoffs: 2, crashes: 1, writes: 1, ..BASE },
    Config { name: "R17 two handoffs, one crash, one cut", handoffs: 2, crashes: 1, cuts: 1, ..BASE },
    Config { name: "C1 a cut session", cuts: 1, ..BASE },
    Config { name: "C2 a cut session, one crash", cuts: 1, crashes: 1, ..BASE },
    // From here on S may be started again as often as it dies, or not.
    Config { name: "S1 one crash, restarts", crashes: 1, restarts: 1, ..BASE },
    Config { name: "S2 two crashes, restarts", crashes: 2, restarts: 2, ..BASE },
    Config { name: "S3 three crashes, restarts", crashes: 3, restarts: 3, ..BASE },
    Config { name: "S5 one crash, one stops for ever, a restart", crashes: 1, freezes: 1, restarts: 1, ..BASE },
    Config { name: "S7 two handoffs, one crash, a restart", handoffs: 2, crashes: 1, restarts: 1, ..BASE },
    Config { name: "S8 two handoffs, two crashes, restarts", handoffs: 2, crashes: 2, restarts: 2, ..BASE },
    Config { name: "S9 a stranger, one crash, a restart", stranger: true, crashes: 1, restarts: 1, ..BASE },
    Config { name: "S15 one crash, two cut sessions, a restart", crashes: 1, cuts: 2, restarts: 1, ..BASE },
    Config {
        name: "S16 two crashes, one cut, two writes, restarts",
        crashes: 2,
        cuts: 1,
        writes: 2,
        restarts: 2,
        ..BASE
    },
    Config { name: "J1 one crash, the journal lost", crashes: 1, restarts: 1, wipes: true, ..BASE },
    Config { name: "J2 two crashes, the journal lost", crashes: 2, restarts: 2, wipes: true, ..BASE },
];

/// `cargo test --release --test model -- --ignored --nocapture whole`
#[test]
#[ignore = "takes minutes"]
fn whole() {
    let mut wrong = false;
    let only = std::env::var("ONLY").unwrap_or_default();
    let all = WHOLE.iter().chain(overlap::WHOLE).chain(probation::BOUNDS);
    for config in all.filter(|config| config.name.starts_with(&only)) {
        let complaints = run(config).complaints(config);
        println!("{complaints}");
        wrong |= !complaints.is_empty();
    }
    assert!(!wrong);
}
