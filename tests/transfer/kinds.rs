//! What may move and what may not, and that a rollback leaves it as it was.

use super::compiled::hosted::Hosted;
use super::compiled::{directory, program};
use handoff::Verdict;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// Connections and bytes of state that `transfer.c` gives.
const CONNECTIONS: u64 = 11;
const STATE_BYTES: u64 = 8 * 4 + 60 * 1024 + 1 + 7 + 8 + 4 + (64 << 20) + 3;

/// The daemon of this scenario; each has a program of its own, since tests run side by side.
fn start(scenario: &str, name: &str) -> Hosted {
    Hosted::start(&program(name, "ffi-tests/c/transfer.c", &["-std=c11"]), scenario)
}

#[test]
fn everything_that_may_move_does_and_works_after_each_end() {
    let mut service = start("gives", "transfer-kinds");
    for successor in ["unhealthy", "dies"] {
        let outcome = service.expect(successor, Verdict::RolledBack);
        assert_eq!((outcome.transferred_connections, outcome.transferred_state_bytes), (0, 0));
    }
    let outcome = service.expect("takes", Verdict::Committed);
    assert_eq!(outcome.transferred_connections, CONNECTIONS, "{}", service.report());
    assert_eq!(outcome.transferred_state_bytes, STATE_BYTES);
    service.expect_end("gives");
    assert_eq!(service.report().matches("everything works on").count(), 2);
    service.stop();
    service.expect_end("takes");
}

/// A put that waits for a successor that takes nothing ends with the event, and nothing of it is left.
fn gives_in_vain(scenario: &str) {
    let mut service = start(scenario, &format!("transfer-{scenario}"));
    service.drain_grace = Duration::from_secs(1);
    let outcome = service.expect("sleeps", Verdict::RolledBack);
    assert!(outcome.reason.contains("the drain took longer than its grace"), "{}", outcome.reason);
    service.drain_grace = Duration::from_secs(40);
    let outcome = service.expect("takes", Verdict::Committed);
    assert_eq!(outcome.transferred_connections, CONNECTIONS);
    service.expect_end(scenario);
    service.stop();
    service.expect_end("takes");
}

#[test]
fn a_put_that_waits_hears_the_abort() {
    gives_in_vain("blocks");
}

#[test]
fn a_put_that_waits_hears_the_abort_without_a_helper_thread() {
    gives_in_vain("alone");
}

#[test]
fn a_connection_that_is_closed_too_early_undoes_the_handoff_with_its_number() {
    let mut service = start("closes", "transfer-closes");
    let outcome = service.expect("refused", Verdict::RolledBack);
    assert!(outcome.reason.contains("was given, and closed before the end of the handoff"), "{}", outcome.reason);
    service.wait_for("everything works on");
    service.expect("takes", Verdict::Committed);
    service.expect_end("closes");
    service.stop();
    service.expect_end("takes");
}

#[test]
fn descriptors_that_get_lost_undo_the_handoff_with_their_name() {
    let mut service = start("loses", "transfer-lost");
    let outcome = service.expect("shrinks", Verdict::RolledBack);
    let text = "descriptors from the incumbent did not fit into the successor: its RLIMIT_NOFILE is reached";
    assert!(outcome.reason.contains(text), "{}\n{}", outcome.reason, service.report());
    service.wait_for("everything works on");
    service.expect("takes", Verdict::Committed);
    service.expect_end("loses");
    service.stop();
    service.expect_end("takes");
}

#[test]
fn a_successor_that_may_not_have_so_many_is_refused_before_anything_is_disturbed() {
    let mut service = start("gives", "transfer-small");
    let script = directory().join("transfer-small.sh");
    fs::write(
        &script,
        format!("#!/bin/sh\nulimit -n 30; exec {} \"$@\"\n", directory().join("transfer-small").display()),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = service.supervisor.perform_handoff(&service.spec("refused").binary(script)).unwrap();
    assert_eq!(outcome.verdict, Verdict::Refused, "{}\n{}", outcome.reason, service.report());
    assert!(outcome.reason.contains("may have 30: raise its hard RLIMIT_NOFILE"), "{}", outcome.reason);
    assert!(!service.report().contains("everything works on"), "it was disturbed: {}", service.report());
    service.expect("takes", Verdict::Committed);
    service.expect_end("gives");
    service.stop();
    service.expect_end("takes");
}
