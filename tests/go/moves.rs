//! State and connections of every kind, from one process in Go to the next.

use super::stores;
use super::support::go::{build_go, have_go};
use super::support::reverted::what_was_given_is_not_used_again;
use super::support::{KeptAlive, Service, faulty_script, wait_for_death};
use std::path::Path;

/// Two more than needed to see that none leaks.
const GENERATIONS: usize = 4;

/// Who says that everything is as it should be, and how many descriptors it has open.
fn check(client: &mut KeptAlive) -> (i32, usize) {
    let said = client.ask("CHECK");
    let words: Vec<&str> = said.split(' ').collect();
    assert_eq!((words[0], words.len()), ("GOOD", 3), "{said}");
    (words[1].parse().unwrap(), words[2].parse().unwrap())
}

#[test]
fn state_and_connections_of_every_kind_move_and_come_back() {
    if !have_go() {
        return;
    }
    // With the race detector comes checkptr, which watches every pointer that cgo makes.
    let program = build_go("moves", "ffi-tests/go/moves", ".", &["-race"]);
    let mut service = Service::start(&program);
    let first = service.daemon_pid();
    let mut held = KeptAlive::connect(service.address);
    assert_eq!(held.ask("HOLD"), "HELD");
    let unhealthy = service.path("unhealthy");
    let script = format!("#!/bin/sh\nMOVES_FAULT=unhealthy exec {}\n", program.display());
    std::fs::write(&unhealthy, script).unwrap();
    std::fs::set_permissions(&unhealthy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let undone = service.upgrade(&unhealthy, &[]);
    assert_eq!((undone.code, undone.result.as_str()), (10, "rolled_back"), "{undone:?}");
    assert!(undone.reason.contains("told to be unhealthy"), "{undone:?}");
    assert_eq!(check(&mut held).0, first);
    let mut open = Vec::new();
    for generation in 0..GENERATIONS {
        let before = service.daemon_pid();
        let upgrade = service.upgrade(&program, &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{generation}: {upgrade:?}");
        wait_for_death(before);
        let (pid, descriptors) = check(&mut held);
        assert_eq!(pid, service.daemon_pid(), "{generation}");
        open.push(descriptors);
    }
    assert_eq!(open[1..], vec![open[0]; GENERATIONS - 1], "descriptors by generation");
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
    assert!(!service.stderr().contains("DATA RACE"), "{}", service.stderr());
}

#[test]
fn what_a_successor_has_read_before_it_died_is_not_served_again() {
    if !have_go() {
        return;
    }
    let fleeting = faulty_script(Path::new(env!("CARGO_TARGET_TMPDIR")), &stores().b, "fleeting");
    what_was_given_is_not_used_again(&stores().race, &fleeting);
}
