//! The library panics in the middle of a handoff, which a build with the feature `crash-points` can be told to: the
//! handle is of no use any more, descriptor 2 stays clean, somebody serves, and no acknowledged write is lost.

#[path = "crash_matrix/build.rs"]
#[allow(dead_code)] // the other programs of that build
mod build;
mod support;

use std::fs;
use support::{Service, compile_with, wait_until};

/// A panic at `step` while `kv` is upgraded; `says` is what the process that panicked says before it ends.
fn panics_at(step: &str, results: &[&str], says: &str) {
    let build = build::build();
    let mut service = Service::place();
    let points = service.path("points");
    fs::create_dir(&points).unwrap();
    service.handoff = build.handoff.clone();
    service.environment = vec![("CRASH_POINTS", points.clone())];
    service.launch(&build.kv_a, &[]);
    let acknowledged = service.ask("SET kept 42").unwrap();
    assert!(acknowledged.starts_with("OK "), "{acknowledged}");

    fs::write(points.join("armed"), format!("panic {step}\n")).unwrap();
    let upgrade = service.upgrade(&build.kv_b, &[]);
    let fired = points.join("fired.1");
    assert!(fired.exists(), "nobody came to {step}: {upgrade:?}");
    assert!(results.contains(&upgrade.result.as_str()), "{upgrade:?}\n{}", service.stderr());

    service.wait_until_served();
    let kept = wait_until("an answer", || service.ask("GET kept"));
    assert_eq!(kept, "VALUE 42");
    wait_until("one daemon", || (service.daemons().len() == 1).then_some(()));
    let said = service.stderr();
    assert!(
        said.contains(&format!("{says}: the library panicked; this handle can only be freed, in phase ")),
        "{said}"
    );
    assert!(!said.contains("panicked at"), "the panic itself went to descriptor 2:\n{said}");

    let next = service.upgrade(&build.kv_a, &[]);
    assert_eq!(next.result, "committed", "{next:?}");
    println!("gate: panic at {step}: ok");
}

#[test]
fn of_a_call_poisons_the_handle_and_says_nothing_on_descriptor_2() {
    let program = compile_with(
        &build::build().handoff.with_file_name("libhandoff.so"),
        "misuse_panic",
        "ffi-tests/c/misuse_panic.c",
        &[],
    );
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("armed"), "panic O:before take lock\n").unwrap();
    let mut command = std::process::Command::new("timeout");
    let output = command.arg("60").arg(program).arg(dir.path()).env("CRASH_POINTS", dir.path()).output().unwrap();
    assert_eq!((String::from_utf8_lossy(&output.stderr).as_ref(), output.status.code()), ("", Some(0)));
    println!("gate: panic in a call: ok");
}

#[test]
fn of_the_incumbent_that_hears_of_the_handoff() {
    panics_at("O:receive PrepareHandoff", &["rolled_back", "started_cold"], "kv: serve: handoff_serve");
}

#[test]
fn of_the_incumbent_that_answers_its_seal() {
    panics_at("O:before release lock", &["rolled_back", "started_cold"], "kv: serve: handoff_serve");
}

#[test]
fn of_the_successor_that_takes_the_lock() {
    panics_at("N:after take lock", &["rolled_back", "reverted"], "kv: cannot begin: handoff_wait_for_begin");
}
