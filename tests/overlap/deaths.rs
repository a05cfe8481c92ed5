//! kill -9 of each of the three, at the phases of an upgrade: somebody serves, and the next upgrade commits.

use crate::scene::{Load, program, request, start, text, variant};
use crate::support::{SIGKILL, signal, wait_until};
use std::fs;

#[test]
fn the_incumbent_is_killed_while_the_successor_initialises() {
    let service = start(&[]);
    let first = service.daemon_pid();
    let go = service.path("go");
    let upgrading = service.begin_upgrade(&variant(&service, &[("OVERLAP_INIT", text(&go))]), &[]);
    service.wait_for_phase("opening");
    let second = service.successor_of(first);
    signal(first, SIGKILL);
    fs::write(&go, "").unwrap();
    assert_eq!(upgrading.wait().result, "committed");
    assert_eq!((service.daemon_pid(), request(service.address).unwrap()), (second, second));
    assert_eq!(service.upgrade(program("a"), &[]).result, "committed");
}

#[test]
fn the_supervisor_is_killed_while_the_successor_initialises() {
    let mut service = start(&[]);
    let first = service.daemon_pid();
    let load = Load::start(service.address, 4);
    let slow = variant(&service, &[("OVERLAP_INIT", text(&service.path("never")))]);
    let upgrading = service.begin_upgrade(&slow, &[]);
    service.wait_for_phase("opening");
    let second = service.successor_of(first);
    service.kill_supervisor();
    drop(upgrading);
    wait_until("the successor is gone", || (!crate::support::lives(second)).then_some(()));
    assert_eq!(request(service.address).unwrap(), first);
    service.launch(program("a"), &[]);
    assert_eq!(service.daemon_pid(), first);
    assert_eq!(service.upgrade(program("b"), &[]).result, "committed");
    assert_eq!(load.stop().1, Vec::<String>::new());
}
