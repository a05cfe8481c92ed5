//! Handoffs that can have no probation, although one is asked for.

use super::LONG;
use super::support::{Service, compile, programs, wait_for_death};
use std::fs;

/// O drains behind the commit, and can not be a reserve.
#[test]
fn daemons_in_overlap_mode_are_refused_before_anything_is_disturbed() {
    let program = compile("overlap", "ffi-tests/c/overlap.c", &["-DBUILD=\"a\""]);
    let mut service = Service::place();
    let log = service.path("log");
    service.environment.push(("OVERLAP_LOG", log.clone()));
    service.launch(&program, &[]);
    let incumbent = service.daemon_pid();
    let refused = service.upgrade(&program, &LONG);
    assert_eq!((refused.code, refused.result.as_str()), (13, "refused"), "{refused:?}");
    assert!(refused.reason.contains("a probation is for exclusive mode"), "{refused:?}");
    assert_eq!((service.daemon_pid(), service.daemons()), (incumbent, vec![incumbent]));
    assert_eq!(fs::read_to_string(&log).unwrap(), format!("{incumbent} begun\n{incumbent} serves\n"));
    let upgrade = service.upgrade(&program, &[]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    wait_for_death(incumbent);
}

/// What the successor writes is of no use to its incumbent.
#[test]
fn a_successor_that_changes_the_format_has_no_reserve() {
    let service = Service::start(&programs().kv_a);
    let incumbent = service.daemon_pid();
    let upgrade = service.upgrade(&service.faulty("changes-format"), &LONG);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
    wait_for_death(incumbent);
    service.wait_for_phase("idle");
    let status = service.status().unwrap();
    assert_eq!(
        (&status["parked_pid"], &status["probation_left_ms"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    assert_eq!(service.daemons(), [service.daemon_pid()]);
}
