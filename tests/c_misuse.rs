//! What a program in C or C++ must not do with the library: it gets a code and a text, or its own end, and never
//! corrupts anything.

mod compiled;

use compiled::hosted::Hosted;
use compiled::{expect_success, have, passed, program, program_by};
use handoff::Verdict;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

fn alone(name: &str) {
    let data = tempfile::tempdir().unwrap();
    let program = program(name, &format!("ffi-tests/c/{name}.c"), &["-std=c11"]);
    expect_success(Command::new("timeout").arg("120").arg(program).arg(data.path()));
}

#[test]
fn every_wrong_argument_gives_a_code_and_a_text() {
    alone("misuse_calls");
    passed("misuse: every function, every wrong argument");
}

#[test]
fn threads_forks_and_signal_handlers_give_codes() {
    alone("misuse_threads");
    passed("misuse: two threads, a forked child, a signal handler");
}

/// Each function in each state: the table is in the program.
fn states(scenario: &str) {
    let program = program(&format!("states-{scenario}"), "ffi-tests/c/misuse_states.c", &["-std=c11"]);
    let mut service = Hosted::start(&program, scenario);
    let looked = |service: &mut Hosted, resumes: u32| {
        if scenario == "poll" {
            service.wait_for(&format!("looked after resume {resumes}"));
        }
    };
    let outcome = service.expect("quits", Verdict::RolledBack); // in the drain
    looked(&mut service, 1);
    assert!(outcome.reason.contains('\u{fffd}'), "the reason of the drain: {}", outcome.reason);
    service.expect("quits", Verdict::RolledBack); // after the seal
    looked(&mut service, 2);
    service.wait_for("quits: 0, 0 failures");
    service.expect("waits", Verdict::Committed);
    service.expect_end(scenario);
    service.wait_for("the successor has looked");
    service.stop();
    service.expect_end("waits");
    passed(&format!("misuse: function x state, {scenario}"));
}

#[test]
fn each_function_in_each_state_of_an_event_loop() {
    states("poll");
}

#[test]
fn each_function_in_each_state_inside_hooks() {
    states("hooks");
}

fn hooks() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
    let compile =
        || have("c++").then(|| program_by("c++", "misuse-hooks", "ffi-tests/c/misuse_hooks.cpp", &["-std=c++11"]));
    PROGRAM.get_or_init(compile).as_deref()
}

/// A callback that is left otherwise than by returning ends the process, which says so; nobody loses anything.
fn leaves(scenario: &str, text: &str, verdicts: &[Verdict]) {
    let Some(program) = hooks() else { return };
    let mut service = Hosted::start(program, scenario);
    let outcome = service.replace("good");
    assert!(verdicts.contains(&outcome.verdict), "{outcome:?}\n{}", service.report());
    assert!(
        outcome.verdict == Verdict::Committed
            || outcome.reason.contains("SIGABRT")
            || outcome.reason.contains("signal 6"),
        "{}",
        outcome.reason
    );
    let said = format!("handoff: {text} was left by an exception or by the end of its thread: abort");
    service.wait_for(&said);
    assert!(!service.report().contains(&format!("{scenario}: ")), "it went on:\n{}", service.report());
    service.expect_no_complaint();
    service.stop();
    passed(&format!("a callback that does not return: {scenario}"));
}

#[test]
fn an_exception_out_of_a_hook_ends_the_process_and_says_so() {
    leaves("throws", "the drain hook", &[Verdict::StartedCold]);
}

#[test]
fn the_end_of_the_thread_in_a_hook_ends_the_process_and_says_so() {
    leaves("exits", "the drain hook", &[Verdict::StartedCold]);
}

#[test]
fn an_exception_after_the_answer_ends_the_process_and_the_successor_serves() {
    leaves("throws-sealed", "the seal hook", &[Verdict::Committed, Verdict::StartedCold]);
}

#[test]
fn an_exception_out_of_the_log_callback_ends_the_process_and_says_so() {
    leaves("throws-in-log", "the log callback", &[Verdict::StartedCold]);
}

#[test]
fn an_exception_out_of_a_destroy_function_ends_the_process_and_says_so() {
    let Some(program) = hooks() else { return };
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report");
    let mut command = Command::new("timeout");
    let status = command.arg("60").arg(program).arg("throws-in-destroy").arg(&report).status().unwrap();
    let report = std::fs::read_to_string(report).unwrap();
    assert!(!status.success() && report.contains("handoff: a destroy function was left by"), "{status}: {report}");
    passed("a callback that does not return: throws-in-destroy");
}

#[test]
fn an_answer_after_the_deadline_does_nothing() {
    let Some(program) = hooks() else { return };
    let mut service = Hosted::start(program, "late");
    service.drain_grace = Duration::from_secs(1);
    service.expect("good", Verdict::RolledBack);
    service.stop();
    service.expect_end("late");
    passed("a hook that answers late");
}

#[test]
fn a_child_that_may_still_write_keeps_the_lock() {
    let Some(program) = hooks() else { return };
    let mut service = Hosted::start(program, "child");
    service.deadline = Duration::from_secs(8);
    let outcome = service.replace("good");
    assert_eq!(outcome.verdict, Verdict::RolledBack, "{}\n{}", outcome.reason, service.report());
    service.stop();
    service.expect_end("child");
    passed("a hook that leaves a child behind");
}
