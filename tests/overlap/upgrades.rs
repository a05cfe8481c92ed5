//! Upgrades that commit.

use crate::scene::{Held, Load, heard, program, request, start, text, variant};
use crate::support::{lives, wait_until};
use serde_json::Value;
use std::fs;

#[test]
fn thirty_upgrades_under_load_refuse_nobody() {
    let service = start(&[]);
    let load = Load::start(service.address, 8);
    for round in 1..=30 {
        let build = if round % 2 == 0 { "a" } else { "b" };
        let upgrade = service.upgrade(program(build), &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "round {round}: {upgrade:?}");
        // The incumbent may have accepted in the last instant.
        let serves = service.daemon_pid();
        wait_until("the successor answers", || (request(service.address).unwrap() == serves).then_some(()));
    }
    let (answered, failures) = load.stop();
    assert_eq!(failures, Vec::<String>::new(), "of {answered}");
    assert!(answered > 300, "too little load to say anything: {answered}");
    wait_until("the others have drained", || (service.daemons() == [service.daemon_pid()]).then_some(()));
}

#[test]
fn a_slow_start_and_a_slow_drain_stop_nobody() {
    let service = start(&[]);
    let first = service.daemon_pid();
    let mut held = Held::open(service.address);
    assert_eq!(held.ask(), Some(first));
    let load = Load::start(service.address, 4);
    let go = service.path("go");
    let slow = variant(&service, &[("OVERLAP_INIT", text(&go))]);
    let upgrading = service.begin_upgrade(&slow, &[]);
    service.wait_for_phase("opening");
    let second = service.successor_of(first);
    wait_until("the successor has begun", || heard(&service, second).contains(&"begun".to_owned()).then_some(()));
    for _ in 0..20 {
        assert_eq!(request(service.address).unwrap(), first, "the successor still initialises");
    }
    fs::write(&go, "").unwrap();
    assert_eq!(upgrading.wait().result, "committed");
    wait_until("the incumbent drains", || {
        heard(&service, first).contains(&"drain after commit".to_owned()).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(request(service.address).unwrap(), second, "the incumbent does not accept any more");
    }
    assert_eq!(held.ask(), Some(first), "it serves its last client");
    // The outcome is told, and the incumbent drains, before its supervisor has heard of that.
    let is_told = |status: &Value| status["phase"] == "idle" && status["draining"][0].is_object();
    let status = wait_until("it is listed", || service.status().filter(is_told));
    assert_eq!(status["draining"][0]["pid"], first);
    assert_eq!((&status["draining"][0]["generation"], status["draining"].as_array().unwrap().len()), (&1.into(), 1));
    drop(held);
    wait_until("its end", || (!lives(first)).then_some(()));
    wait_until("nobody drains", || service.status()?["draining"].as_array()?.is_empty().then_some(()));
    assert_eq!(load.stop().1, Vec::<String>::new());
    assert_eq!(heard(&service, first), ["begun", "serves", "drain after commit", "replaced"]);
}
