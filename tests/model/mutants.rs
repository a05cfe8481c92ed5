//! Each rule taken back must be missed: something that must not be is found, with the shortest way to it.

use crate::config::{BASE, Config, Mutant};
use crate::explore::explore;

/// The rule, the bounds in which it is missed, and what is found.
const MUTANTS: &[(Config, &str)] = &[
    (
        Config { name: "a swap in two steps", mutant: Some(Mutant::SplitSwap), ..BASE },
        "a process that has committed is killed",
    ),
    (Config { name: "a kill by pid", mutant: Some(Mutant::RawPid), crashes: 1, ..BASE }, "a stranger is killed"),
    (
        Config { name: "committed means exit", mutant: Some(Mutant::CommittedMeansExit), crashes: 2, ..BASE },
        "the last process that could serve exits by itself",
    ),
    (
        Config { name: "N never promotes itself", mutant: Some(Mutant::NoSelfPromotion), crashes: 2, ..BASE },
        "the last process that could serve exits by itself",
    ),
    (
        Config {
            name: "the next handoff does not wait for O",
            mutant: Some(Mutant::NoRetireRule),
            handoffs: 2,
            crashes: 1,
            ..BASE
        },
        "O serves again although N has taken its place",
    ),
    (
        Config { name: "no gate", mutant: Some(Mutant::NoGate), stranger: true, ..BASE },
        "a stranger has the data although its owner lives",
    ),
    (
        Config { name: "a late message ends the session", mutant: Some(Mutant::LateEndsSession), ..BASE },
        "a session between honest processes is ended",
    ),
    (
        Config { name: "a free lock means resume", mutant: Some(Mutant::LockMeansResume), crashes: 1, ..BASE },
        "N is killed, but the word was not won",
    ),
    (
        Config {
            name: "any revision will do",
            mutant: Some(Mutant::AnyRevision),
            bad_applications: true,
            writes: 1,
            ..BASE
        },
        "an acknowledged write is lost",
    ),
    (
        Config { name: "committed is said early", mutant: Some(Mutant::EarlyCommitted), ..BASE },
        "Committed is reported too early",
    ),
    (
        Config { name: "rolled back is said early", mutant: Some(Mutant::EarlyRollback), ..BASE },
        "RolledBack is reported too early",
    ),
    (
        Config { name: "a kill without the word", mutant: Some(Mutant::KillUnasked), ..BASE },
        "N is killed, but the word was not won",
    ),
    (
        Config { name: "the lock before the writers", mutant: Some(Mutant::UnlockBeforeSeal), ..BASE },
        "somebody uses the data without the lock",
    ),
    (
        Config {
            name: "a message of another handoff ends the session",
            mutant: Some(Mutant::OtherIdEndsSession),
            handoffs: 2,
            ..BASE
        },
        "a session between honest processes is ended",
    ),
    (
        Config {
            name: "adopted with what was unread",
            mutant: Some(Mutant::KeepUnread),
            restarts: 1,
            crashes: 1,
            wipes: true,
            ..BASE
        },
        "S ends the session: unexpected Drained of handoff 1 while idle",
    ),
    (
        Config {
            name: "adopted without a word of the handoff",
            mutant: Some(Mutant::SilentAdoption),
            restarts: 1,
            crashes: 1,
            wipes: true,
            ..BASE
        },
        "S ends the session: unexpected Drained of handoff 1 while idle",
    ),
    (
        Config {
            name: "the word of the past is not asked",
            mutant: Some(Mutant::PastUnasked),
            restarts: 1,
            crashes: 1,
            ..BASE
        },
        "N is killed, but the word was not won",
    ),
];

/// The same, in bounds that take longer.
const SLOW: &[(Config, &str)] = &[
    (
        Config { name: "the end of a session is a death", mutant: Some(Mutant::EndMeansDeath), cuts: 1, ..BASE },
        "ResumeAfterAbort before the word was won",
    ),
    (
        Config { name: "O does not look at N", mutant: Some(Mutant::NoLook), crashes: 2, ..BASE },
        "the last process that could serve exits by itself",
    ),
    (
        Config {
            name: "a committed past is rolled back",
            mutant: Some(Mutant::PastRolledBack),
            restarts: 1,
            crashes: 1,
            ..BASE
        },
        "a process that has committed is killed",
    ),
    (
        Config {
            name: "a cold start without the gate",
            mutant: Some(Mutant::ColdWithoutGate),
            restarts: 1,
            crashes: 2,
            wipes: true,
            ..BASE
        },
        "a stranger has the data although its owner lives",
    ),
];

/// What does not hold although no rule is taken back. If one of these is not found any more, its bounds belong to the whole.
const GAPS: &[(Config, &str)] = &[
    // S' adopts N and starts the next handoff, because nobody tells it of an O that has not seen yet that it is replaced. When N
    // is gone, that O takes over from a dead N, and waits for the lock of the one after it.
    (
        Config {
            name: "J7 the journal lost before O has retired",
            restarts: 1,
            crashes: 1,
            handoffs: 2,
            wipes: true,
            ..BASE
        },
        "in the end 1 serve, and S is idle",
    ),
];

#[test]
fn each_rule_is_needed() {
    all_are_missed(MUTANTS);
    all_are_missed(crate::probation::MUTANTS);
}

/// `cargo test --release --test model -- --ignored --nocapture whole`
#[test]
#[ignore = "takes a minute"]
fn the_whole_of_the_rules_is_needed() {
    all_are_missed(SLOW);
    all_are_missed(crate::probation::SLOW_MUTANTS);
    all_are_missed(GAPS);
}

pub fn all_are_missed(mutants: &[(Config, &str)]) {
    let mut missed = Vec::new();
    for (config, expected) in mutants {
        let report = explore(config, true);
        let found = report.broken.first().map_or("nothing", |(what, ..)| what);
        println!("{:<40} {:>8} states: {found}", config.name, report.states);
        println!("{}", report.complaints(config));
        if !report.broken.iter().any(|(what, ..)| what == expected) {
            missed.push((config.name, *expected, report.broken));
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
