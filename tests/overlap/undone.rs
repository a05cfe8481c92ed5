//! Upgrades that are undone: the incumbent never hears of them.

use crate::scene::{Load, heard, program, request, start, text, variant};
use crate::support::{SIGCONT, SIGKILL, SIGSTOP, Service, programs, signal, wait_until};

/// The incumbent serves, has heard nothing, and the next upgrade commits.
fn untouched(service: &Service, pid: i32) {
    assert_eq!((request(service.address).unwrap(), service.daemon_pid()), (pid, pid));
    assert_eq!(heard(service, pid), ["begun", "serves"]);
    wait_until("the successor is gone", || (service.daemons() == [pid]).then_some(()));
}

#[test]
fn a_bad_successor_changes_nothing_and_stops_nobody() {
    let service = start(&[]);
    let pid = service.daemon_pid();
    let load = Load::start(service.address, 4);
    for (fault, reason) in
        [("exits-early", "this build is broken"), ("exits-begun", "exit status 9"), ("unhealthy", "is not healthy")]
    {
        let upgrade = service.upgrade(&variant(&service, &[("OVERLAP_FAULT", fault)]), &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{fault}: {upgrade:?}");
        assert!(upgrade.reason.contains(reason), "{fault}: {upgrade:?}");
        untouched(&service, pid);
    }
    let never = variant(&service, &[("OVERLAP_INIT", "/never")]);
    let late = service.upgrade(&never, &["--ready-timeout", "300ms"]);
    assert_eq!((late.code, late.result.as_str()), (10, "rolled_back"), "{late:?}");
    untouched(&service, pid);
    let late = service.upgrade(&never, &["--deadline", "1s"]);
    // Supervisor and incumbent end it at the same time: whoever is first, the incumbent has served all the time.
    assert_eq!((late.code, late.result.as_str()), (10, "rolled_back"), "{late:?}");
    untouched(&service, pid);
    assert_eq!(service.upgrade(program("b"), &[]).result, "committed");
    let (answered, failures) = load.stop();
    assert_eq!(failures, Vec::<String>::new(), "of {answered}");
}

/// Nobody knows what has become of it, and the caller hears that; it goes on all the same.
#[test]
fn an_incumbent_that_stands_still_at_the_deadline_is_undecided_until_it_goes_on() {
    let service = start(&[]);
    let pid = service.daemon_pid();
    let never = variant(&service, &[("OVERLAP_INIT", "/never")]);
    let upgrading = service.begin_upgrade(&never, &["--deadline", "1s"]);
    service.wait_for_phase("opening");
    signal(pid, SIGSTOP);
    let late = upgrading.wait();
    signal(pid, SIGCONT);
    assert_eq!((late.code, late.result.as_str()), (14, "undecided"), "{late:?}");
    wait_until("its end", || (service.status()?["last_handoff"]["result"] == "rolled_back").then_some(()));
    untouched(&service, pid);
}

#[test]
fn the_modes_of_both_must_be_the_same() {
    let service = start(&[]);
    let pid = service.daemon_pid();
    let exclusive = service.upgrade(&variant(&service, &[("OVERLAP_FAULT", "exclusive")]), &[]);
    assert_eq!((exclusive.code, exclusive.result.as_str()), (13, "refused"), "{exclusive:?}");
    assert!(exclusive.reason.contains("the daemon offers overlap mode, the successor exclusive mode"), "{exclusive:?}");
    untouched(&service, pid);
    let store = Service::start(&programs().kv_a);
    let overlap = store.upgrade(program("b"), &[]);
    assert_eq!((overlap.code, overlap.result.as_str()), (13, "refused"), "{overlap:?}");
    assert!(overlap.reason.contains("the daemon offers exclusive mode, the successor overlap mode"), "{overlap:?}");
}

#[test]
fn a_second_daemon_is_kept_out_by_the_gate() {
    let service = start(&[]);
    let data = service.path("data");
    let mut second = service.other_command(program("b"));
    let said = second.env("HANDOFF_DATA_DIR", &data).output().unwrap();
    let error = String::from_utf8_lossy(&said.stderr);
    assert!(error.contains(".handoff.gate is locked by process"), "{error}");
    assert!(error.contains(&service.daemon_pid().to_string()), "{error}");
    assert!(!data.join(".handoff.lock").exists(), "it takes the gate only");
}

#[test]
fn a_successor_that_dies_right_after_the_commit_is_reverted() {
    let service = start(&[]);
    let pid = service.daemon_pid();
    let load = Load::start(service.address, 4);
    let upgrade = service.upgrade(&variant(&service, &[("OVERLAP_FAULT", "exits-committed")]), &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (11, "reverted"), "{upgrade:?}");
    untouched(&service, pid);
    assert_eq!(service.upgrade(program("b"), &[]).result, "committed");
    assert_eq!(load.stop().1, Vec::<String>::new());
}

#[test]
fn a_successor_that_is_killed_while_it_initialises_stops_nobody() {
    let service = start(&[]);
    let pid = service.daemon_pid();
    let load = Load::start(service.address, 4);
    let slow = variant(&service, &[("OVERLAP_INIT", text(&service.path("never")))]);
    let upgrading = service.begin_upgrade(&slow, &[]);
    service.wait_for_phase("opening");
    signal(service.successor_of(pid), SIGKILL);
    assert_eq!(upgrading.wait().result, "rolled_back");
    untouched(&service, pid);
    assert_eq!(load.stop().1, Vec::<String>::new());
}
