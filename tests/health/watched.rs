//! `watchdog = TIME`: a process that does not say that it is alive is aborted, and started again.

use crate::daemon::{Daemon, up};
use crate::harness::{Place, pid_of, signal};
use nix::sys::signal::Signal;

const WATCHED: [&str; 2] = ["ready = \"notify\"", "watchdog = \"1s\""];

#[test]
fn one_that_falls_silent_is_aborted_and_started_again() {
    let place = Place::new();
    let daemon = Daemon::new(&place, "web");
    let up = up(&place, &[daemon.unit(&[], &WATCHED)]);
    let before = up.wait_for("web", "running", |service| service["watchdog"]["left_ms"].is_u64());
    let pid = pid_of(&before);
    let environment = daemon.wait_for_file("environment");
    for line in ["WATCHDOG_USEC=1000000", &format!("WATCHDOG_PID={pid}")] {
        assert!(environment.lines().any(|found| found == line), "{line}: {environment}");
    }
    daemon.set("silent", "");
    assert_eq!(daemon.wait_for_file("aborted"), pid.to_string(), "by SIGABRT");
    std::fs::remove_file(daemon.dir.join("silent")).unwrap();
    let after = up.wait_for("web", "the next one", |service| service["restarts"] == 1 && service["state"] == "running");
    assert_eq!(after["cause"], "watchdog: it did not say that it is alive for 1 s");
    assert_ne!(pid_of(&after), pid);
}

#[test]
fn one_that_does_not_even_run_is_killed() {
    let place = Place::new();
    let daemon = Daemon::new(&place, "web");
    let up = up(&place, &[daemon.unit(&[], &[&WATCHED[..], &["stop = [\"TERM 100ms\", \"KILL\"]"]].concat())]);
    let pid = pid_of(&up.wait_for("web", "running", |service| service["state"] == "running"));
    signal(pid, Signal::SIGSTOP);
    let after = up.wait_for("web", "the next one", |service| service["restarts"] == 1 && service["state"] == "running");
    assert!(after["cause"].as_str().unwrap().starts_with("watchdog: "), "{after}");
    assert_eq!(daemon.read("aborted"), None);
}

#[test]
fn it_may_say_itself_that_it_has_failed() {
    let place = Place::new();
    let daemon = Daemon::new(&place, "web");
    let up = up(&place, &[daemon.unit(&[], &["ready = \"notify\""])]);
    up.wait_for("web", "running", |service| service["state"] == "running");
    daemon.set("say", "WATCHDOG=trigger");
    let after = up.wait_for("web", "the next one", |service| service["restarts"] == 1 && service["state"] == "running");
    assert!(after["cause"].as_str().unwrap().contains("WATCHDOG=trigger"), "{after}");
}

#[test]
fn it_may_change_how_often() {
    let place = Place::new();
    let daemon = Daemon::new(&place, "web");
    let up = up(&place, &[daemon.unit(&[], &["ready = \"notify\"", "watchdog = \"1h\""])]);
    let left = |service: &serde_json::Value| service["watchdog"]["left_ms"].as_u64();
    up.wait_for("web", "an hour", |service| left(service).is_some_and(|left| left > 3_000_000));
    daemon.set("say", "WATCHDOG_USEC=0");
    up.wait_for("web", "none", |service| service["watchdog"].is_null());
    daemon.set("silent", "");
    daemon.set("say", "WATCHDOG_USEC=500000");
    let after = up.wait_for("web", "a restart", |service| service["restarts"] == 1);
    assert_eq!(after["cause"], "watchdog: it did not say that it is alive for 0.5 s");
}
