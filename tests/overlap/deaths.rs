//! kill -9 of each of the three, at the phases of an upgrade: somebody serves, and the next upgrade commits.

use crate::scene::{Held, Load, heard, program, request, start, text, variant};
use crate::support::{SIGKILL, Service, lives, signal, wait_until};
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

/// Whether it has closed its listener or not, one that drains keeps nobody from it.
#[test]
fn the_supervisor_and_the_successor_are_killed_while_the_incumbent_drains() {
    for fault in ["", "hangs-in-drain"] {
        let mut service = Service::place();
        service.environment.push(("OVERLAP_LOG", service.path("log")));
        let incumbent = variant(&service, &[("OVERLAP_FAULT", fault)]);
        service.launch(&incumbent, &[]);
        let first = service.daemon_pid();
        let mut held = Held::open(service.address);
        assert_eq!(held.ask(), Some(first));
        let upgrade = service.upgrade(program("b"), &[]);
        assert_eq!(upgrade.result, "committed", "{upgrade:?}");
        wait_until("it drains", || heard(&service, first).contains(&"drain after commit".to_owned()).then_some(()));
        let second = service.daemon_pid();
        service.kill_supervisor();
        signal(second, SIGKILL);
        wait_until("the successor's end", || (!lives(second)).then_some(()));
        let address = service.address;
        service.launch(program("a"), &[]);
        let third = service.daemon_pid();
        assert!(third != first && third != second);
        assert_eq!((request(address).unwrap(), service.address), (third, address), "{fault}");
        assert_eq!(service.status().unwrap()["draining"][0]["pid"], first, "{fault}");
        if fault.is_empty() {
            assert_eq!(held.ask(), Some(first), "its last client");
        }
    }
}
