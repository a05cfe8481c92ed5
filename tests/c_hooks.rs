//! Hooks in C under a real supervisor: answers, silence, calls that are not for hooks, forks, a handle freed from inside.

mod compiled;

use compiled::hosted::Hosted;
use handoff::Verdict;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compiled::program("hooks", "ffi-tests/c/hooks.c", &["-std=c11"]))
}

#[test]
fn hooks_answer_from_any_thread_once_and_owner_calls_are_busy() {
    let mut service = Hosted::start(program(), "answers");
    service.expect("successor", Verdict::Committed);
    service.expect_end("answers");
    service.stop();
    service.expect_end("successor");
}

#[test]
fn a_loop_of_its_own_answers_without_hooks() {
    let mut service = Hosted::start(program(), "poll");
    // It seals no revisions; the successor has some, which is fine.
    let spec = service.spec("successor").env("NO_REVISIONS", "1");
    let outcome = service.supervisor.perform_handoff(&spec).unwrap();
    assert_eq!(outcome.verdict, Verdict::Committed, "{}\n{}", outcome.reason, service.report());
    service.expect_end("poll");
    service.stop();
    service.expect_end("successor");
}

/// The incumbent hears that it is parked, and the successor that the probation is over.
fn a_probation_is_told(incumbent: &str, variable: &str, parked: &str, confirmed: &str) {
    let mut service = Hosted::start(program(), incumbent);
    let spec = service.spec("successor").env(variable, "1").probation(Duration::from_secs(600));
    let outcome = service.supervisor.perform_handoff(&spec).unwrap();
    assert_eq!(outcome.verdict, Verdict::Committed, "{}\n{}", outcome.reason, service.report());
    service.wait_for(&format!("{incumbent} is {parked}\n"));
    assert!(!service.report().contains("confirmed"), "{}", service.report());
    service.supervisor.end_probation();
    service.expect_end(incumbent);
    service.wait_for(&format!("successor is {confirmed}\n"));
    service.stop();
    service.expect_end("successor");
}

#[test]
fn a_probation_is_told_to_hooks() {
    a_probation_is_told("answers", "HOOKED", "parked, as its hook says", "confirmed, as its hook says");
}

#[test]
fn a_probation_is_told_to_a_loop() {
    a_probation_is_told("poll", "NO_REVISIONS", "parked", "confirmed");
}

#[test]
fn silence_is_failure_and_the_incumbent_serves_again() {
    let mut service = Hosted::start(program(), "silent");
    let outcome = service.expect("successor", Verdict::RolledBack);
    assert!(outcome.reason.contains("drain hook returned without an answer"), "{}", outcome.reason);
    service.stop();
    service.expect_end("silent");
}

#[test]
fn a_failure_is_passed_on_and_counts_once() {
    let mut service = Hosted::start(program(), "fails");
    let outcome = service.expect("successor", Verdict::RolledBack);
    assert!(outcome.reason.contains("told to fail"), "{}", outcome.reason);
    service.stop();
    service.expect_end("fails");
}

#[test]
fn without_a_drain_hook_the_handoff_fails_with_a_text_that_says_so() {
    let mut service = Hosted::start(program(), "none");
    let outcome = service.replace("successor");
    // It cannot resume without a hook either: the supervisor ends it, and starts another one.
    assert_eq!(outcome.verdict, Verdict::StartedCold, "{}", service.report());
    assert!(outcome.reason.contains("no drain hook is registered"), "{}", outcome.reason);
    service.expect_no_complaint();
}

#[test]
fn a_child_forked_in_a_hook_is_told_that_it_is_one() {
    let mut service = Hosted::start(program(), "fork");
    service.expect("successor", Verdict::Committed);
    service.wait_for("fork: 0, 0 failures");
    assert!(service.report().contains("fork: 44, 0 failures"), "{}", service.report());
    service.stop();
    service.expect_end("successor");
}

#[test]
fn a_handle_freed_inside_its_hook_is_gone_when_serve_returns() {
    let mut service = Hosted::start(program(), "free");
    let outcome = service.replace("successor");
    assert_ne!(outcome.verdict, Verdict::RolledBack, "{}\n{}", outcome.reason, service.report());
    service.expect_end("free");
}
