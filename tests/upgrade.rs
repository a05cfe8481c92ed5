//! The store in C under live load, replaced again and again.

mod support;

use std::time::Duration;
use support::load::{Load, LoadOptions, verify};
use support::streams::Streams;
use support::watch::{LockWatch, settled_descriptors};
use support::{Service, programs, wait_until};

const UPGRADES: usize = 100;

#[test]
fn a_hundred_upgrades_under_load_lose_nothing() {
    let programs = programs();
    let service = Service::start(&programs.kv_a);
    assert_eq!(service.upgrade(&programs.kv_b, &[]).result, "committed");
    let before = wait_until("one daemon", || settled_descriptors(&service));
    let load = Load::start(LoadOptions { clients: 16, keep_alive: false, ..LoadOptions::new(service.address) });
    let watch = LockWatch::start(&service, Duration::ZERO);
    for round in 1..UPGRADES {
        let (binary, build) = if round % 2 == 0 { (&programs.kv_b, "b") } else { (&programs.kv_a, "a") };
        let upgrade = service.upgrade(binary, &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "round {round}: {upgrade:?}");
        let (pid, answered) = wait_until("an answer", || service.ping());
        assert_eq!((pid, answered.as_str()), (service.daemon_pid(), build), "round {round}");
    }
    let report = load.stop();
    let (samples, most) = watch.stop();
    assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()), "of {}", report.requests);
    assert!(report.acknowledged.len() > UPGRADES, "too little load to say anything: {}", report.requests);
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
    assert!(samples > UPGRADES, "the lock was looked at {samples} times only");
    assert_eq!(most, 1, "processes that held the lock at once");
    // The connections of the load go away; what is left must be what was there after the first upgrade.
    wait_until(&format!("as many descriptors as after the first upgrade: {before:?}"), || {
        (settled_descriptors(&service)? == before).then_some(())
    });
    println!(
        "{} requests, {} acknowledged writes, {samples} looks at the lock",
        report.requests,
        report.acknowledged.len()
    );
}

#[test]
fn clients_that_keep_their_connection_notice_nothing() {
    let programs = programs();
    let service = Service::start(&programs.kv_a);
    let load = Load::start(LoadOptions { clients: 8, ..LoadOptions::new(service.address) });
    let streams = Streams::start(service.address, 8, "stream");
    streams.go_on();
    for round in 0..10 {
        let binary = if round % 2 == 0 { &programs.kv_b } else { &programs.kv_a };
        assert_eq!(service.upgrade(&service.faulty("unhealthy"), &[]).result, "rolled_back");
        let upgrade = service.upgrade(binary, &[]);
        assert_eq!(upgrade.result, "committed");
        assert!(upgrade.outcome["transferred_connections"].as_u64() >= Some(8), "{upgrade:?}");
        streams.go_on();
    }
    let report = load.stop();
    assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()));
    let seen = streams.stop();
    assert_eq!((report.closed_connections, seen.closed, seen.faults), (0, 0, Vec::new()));
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
}
