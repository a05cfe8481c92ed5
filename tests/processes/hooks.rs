//! What runs before a process, and after it.

use super::harness::{Place, lives, signal, wait_until};
use super::{pid_in, shut_down, up, written};
use nix::sys::signal::Signal;
use std::fs;

fn unit(exec: &str, keys: &str) -> String {
    format!("[unit.a]\nshell = true\nexec = '{exec}'\nmode = 'none'\nready = 'delay=1ms'\n{keys}\n")
}

#[test]
fn what_runs_before_must_end_well() {
    let place = Place::new();
    let (log, fixed) = (place.path("log"), place.path("fixed"));
    let (log_at, fixed_at) = (log.display(), fixed.display());
    let before = format!("echo before >> {log_at}; echo not yet fixed >&2; test -e {fixed_at}");
    let keys = format!(
        "pre_start = '{before}'\nbackoff = {{ first = '10ms', max = '10ms' }}\nrestart_limit = {{ count = 1000 }}"
    );
    let mut run = up(&place, &unit(&format!("echo runs >> {log_at}; exec sleep 1000"), &keys));
    run.wait_for_text("pre_start: exit status 1; its last output: not yet fixed");
    let why = place.output("why", &["a"]);
    assert!(why.stdout.contains("pre_start: exit status 1"), "{why:?}");
    assert!(!fs::read_to_string(&log).unwrap().contains("runs"), "it must not run");
    fs::write(&fixed, "").unwrap();
    wait_until("that it runs", || fs::read_to_string(&log).unwrap().ends_with("before\nruns\n").then_some(()));
    // Before each start.
    fs::remove_file(&log).unwrap();
    let said = place.output("restart", &["a"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(written(&log, 2), ["before", "runs"]);
    shut_down(&mut run);
}

#[test]
fn what_runs_before_is_ended_by_a_stop() {
    let place = Place::new();
    let pid = place.path("pid");
    let keys = format!("pre_start = 'sleep 1000 & echo $! > {}; wait'", pid.display());
    let mut run = up(&place, &unit("exec sleep 1000", &keys));
    let child = pid_in(&pid);
    let said = place.output("stop", &["a"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!lives(child), "it is gone with its children");
    shut_down(&mut run);
}

#[test]
fn what_runs_before_for_too_long_is_ended_with_its_children() {
    let place = Place::new();
    let pid = place.path("pid");
    // Away from its session.
    let keys = format!(
        "pre_start = 'setsid sleep 1000 & echo $! > {}; wait'\nstart_timeout = '300ms'\nrestart = 'never'",
        pid.display()
    );
    let mut run = up(&place, &unit("exec sleep 1000", &keys));
    run.wait_for_text("pre_start: killed, since its time was over");
    assert!(!lives(pid_in(&pid)), "its children live on");
    shut_down(&mut run);
}

#[test]
fn what_runs_after_is_told_the_cause() {
    let place = Place::new();
    let log = place.path("log");
    let after = format!("echo $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS $MAINPID $A >> {}", log.display());
    let pid = place.path("pid");
    let exec = format!(
        "trap \"exit 0\" TERM; echo $$ > {0}.new; mv {0}.new {0}; cat {0}.end; while :; do sleep 0.01; done",
        pid.display()
    );
    let keys = format!("post_stop = '{after}'\nenv = {{ A = 'too' }}\nbackoff = {{ first = '10ms', max = '10ms' }}");
    fs::write(place.path("pid.end"), "").unwrap();
    let mut run = up(&place, &unit(&exec, &keys));
    let first = pid_in(&pid);
    signal(first, Signal::SIGKILL);
    assert_eq!(written(&log, 1), [format!("signal killed KILL {first} too")]);
    let second = wait_until("another one", || Some(pid_in(&pid)).filter(|pid| *pid != first));
    let said = place.output("stop", &["a"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(written(&log, 2)[1], format!("success exited 0 {second} too"), "a stop waits for it");
    shut_down(&mut run);

    let place = Place::new();
    let log = place.path("log");
    let after = format!("echo $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS >> {}; exit 3", log.display());
    let mut run = up(&place, &unit("exit 7", &format!("post_stop = '{after}'\nrestart = 'never'")));
    assert_eq!(written(&log, 1), ["exit-code exited 7"]);
    run.wait_for_text("post_stop: exit status 3");
    shut_down(&mut run);
}

#[test]
fn what_was_not_ready_in_time_is_told_so() {
    let place = Place::new();
    let log = place.path("log");
    let after = format!("echo $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS >> {}", log.display());
    let keys = format!("post_stop = '{after}'\nrestart = 'never'\nstart_timeout = '200ms'");
    let units = unit("exec sleep 1000", &keys).replace("'delay=1ms'", "'notify'");
    let mut run = up(&place, &units);
    assert_eq!(written(&log, 1), ["timeout killed TERM"]);
    shut_down(&mut run);
}

#[test]
fn a_restart_waits_for_what_runs_after() {
    let place = Place::new();
    let log = place.path("log");
    let log_at = log.display();
    let keys = format!(
        "post_stop = 'echo after >> {log_at}; sleep 0.3; echo done >> {log_at}'\nbackoff = {{ first = '10ms', max = '10ms' }}"
    );
    let mut run = up(&place, &unit(&format!("echo runs >> {log_at}; sleep 0.2; exit 1"), &keys));
    assert_eq!(written(&log, 5)[..5], ["runs", "after", "done", "runs", "after"]);
    shut_down(&mut run);
    let lines = fs::read_to_string(&log).unwrap();
    assert!(lines.trim_end().ends_with("done"), "the supervisor waits for it: {lines}");
}
