//! A supervisor that may open nothing any more: what a process has left is not known then, and never taken to be gone.

use super::harness::{Place, Run, lives, signal, wait_until};
use super::trees::{each_way, leave, unit};
use super::{pid_in, shut_down, up, written};
use nix::sys::signal::Signal;
use std::fs;
use std::process::Command;

/// All numbers below are taken by what it has open.
const NONE: &str = "8";

fn limit(pid: i32, limits: &str) {
    let done = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={limits}")]).status();
    assert!(done.unwrap().success());
}

/// A daemon whose helper has left it, and that writes down at its start how the helper of the one before is.
fn daemon_with_helper(place: &Place) -> String {
    let [left, log, main] = ["left", "log", "main"].map(|name| place.path(name));
    let line = format!(
        "test -e {0} && (grep -qs \"^State:.[^ZX]\" /proc/$(cat {0})/status && echo alive || echo dead) >> {1}; rm -f {0}; {2} \
         until test -s {0}; do sleep 0.01; done; echo $$ > {3}.new; mv {3}.new {3}; exec sleep 1000",
        left.display(),
        log.display(),
        leave(&left, "").trim_end_matches("wait"),
        main.display()
    );
    unit(&line, "backoff = { first = '1ms', max = '1ms' }")
}

/// Main process and helper, once the supervisor says that it runs.
fn running(place: &Place, run: &Run<'_>) -> (i32, i32) {
    run.wait_for("running", |service| service["state"] == "running");
    (pid_in(&place.path("main")), pid_in(&place.path("left")))
}

#[test]
fn a_soft_limit_that_was_lowered_keeps_no_helper_alive() {
    each_way(|up| {
        let place = Place::new();
        let mut run = up(&place, &daemon_with_helper(&place));
        let (first, helper) = running(&place, &run);
        limit(run.pid(), &format!("{NONE}:"));
        signal(first, Signal::SIGKILL);
        assert_eq!(written(&place.path("log"), 1), ["dead"], "{}", run.stderr());
        assert!(!lives(helper));
        let second = wait_until("another one", || Some(pid_in(&place.path("main"))).filter(|pid| *pid != first));
        let helper = pid_in(&place.path("left"));
        assert!(lives(second) && lives(helper));
        limit(run.pid(), &format!("{NONE}:"));
        shut_down(&mut run);
        assert!(!lives(second) && !lives(helper), "{}", run.stderr());
    });
}

#[test]
fn what_can_not_be_looked_for_is_not_gone() {
    each_way(|up| {
        let place = Place::new();
        let units = daemon_with_helper(&place);
        let mut run = up(&place, &units);
        let (main, helper) = running(&place, &run);
        limit(run.pid(), &format!("{NONE}:{NONE}"));
        signal(main, Signal::SIGKILL);
        run.wait_for_text("can not be looked for: Too many open files");
        signal(run.pid(), Signal::SIGTERM);
        assert_eq!(run.end(), 1, "{}", run.stderr());
        let said = run.stderr();
        assert!(said.contains("a has ended, but what it left behind can not be looked for"), "{said}");
        assert!(said.contains("raise RLIMIT_NOFILE of the supervisor"), "{said}");
        assert!(lives(helper), "nothing shows it to the supervisor");
        assert!(fs::read_to_string(place.path("log")).is_err(), "nothing was started beside it");
        // The next one knows that there may be something.
        let mut run = up(&place, &units);
        assert_eq!(written(&place.path("log"), 1), ["dead"], "{}", run.stderr());
        assert!(!lives(helper));
        shut_down(&mut run);
    });
}

#[test]
fn a_stop_that_can_not_know_its_end_fails() {
    let place = Place::new();
    let [left, main, go] = ["left", "main", "go"].map(|name| place.path(name));
    let line = format!(
        "{} until test -s {}; do sleep 0.01; done; trap \"until test -e {}; do sleep 0.01; done; exit 0\" TERM; \
         echo $$ > {}; while :; do sleep 0.01; done",
        leave(&left, "").trim_end_matches("wait"),
        left.display(),
        go.display(),
        main.display()
    );
    let mut run = up(&place, &unit(&line, "stop = ['TERM 60s', 'KILL']"));
    let (main, helper) = running(&place, &run);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| place.output("stop", &["a"]));
        run.wait_for_text("stops: ");
        limit(run.pid(), &format!("{NONE}:{NONE}"));
        fs::write(&go, "").unwrap();
        let said = stop.join().unwrap();
        said.expect(1, &["can not be looked for", "raise RLIMIT_NOFILE"]);
    });
    assert!(!lives(main) && lives(helper));
    signal(run.pid(), Signal::SIGTERM);
    assert_eq!(run.end(), 1, "{}", run.stderr());
}
