//! Units in every state, across it: the same afterwards, with the same deadlines.

use crate::harness::{Place, signal, text, wait_until};
use crate::{executes, must_upgrade, other_program, unit, up, wait_for, wait_for_state};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::time::Instant;

const UNITS: &str = r#"
[unit.runs]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=0ms"
[unit.done]
exec = ["/bin/sh", "-c", "echo once >> once"]
oneshot = true
[unit.stopped]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=0ms"
[unit.needs]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=0ms"
requires = ["stopped"]
[unit.backs-off]
exec = ["/bin/sh", "-c", "exit 7"]
mode = "none"
ready = "delay=1h"
start_timeout = "2h"
backoff = { first = "20m", max = "30m" }
[unit.failed]
exec = ["/bin/sh", "-c", "exit 9"]
mode = "none"
ready = "delay=1h"
start_timeout = "2h"
restart = "never"
[unit.starts]
exec = ["/bin/sh", "-c", "echo $NOTIFY_SOCKET > socket; exec sleep 1000"]
mode = "none"
ready = "notify"
start_timeout = "30m"
[unit.stops]
exec = ["/bin/sh", "-c", "trap '' TERM; echo trapped >&2; while :; do sleep 1; done"]
mode = "none"
ready = "delay=0ms"
stop = ["TERM 30m", "KILL"]
[unit.prepares]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=0ms"
pre_start = ["/bin/sh", "-c", "echo prepares >&2; read line < fifo"]
start_timeout = "30m"
[unit.checked]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=0ms"
health = { exec = ["/bin/sh", "-c", "echo checks >&2; read line < fifo2"], interval = "30m", timeout = "20m" }
[unit.wants-health]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=0ms"
requires = ["checked:healthy"]
"#;

/// Every unit works in the directory of the test.
fn units(place: &Place) -> String {
    UNITS.replace("]\nexec", &format!("]\ndir = \"{}\"\nexec", text(place.dir.path())))
}

#[test]
fn every_state_is_the_same_afterwards() {
    let place = Place::new();
    for fifo in ["fifo", "fifo2"] {
        nix::unistd::mkfifo(&place.path(fifo), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let run = up(&place, &units(&place));
    for (name, state) in [("runs", "running"), ("done", "done"), ("backs-off", "waiting"), ("failed", "failed")] {
        wait_for_state(&place, name, state);
    }
    wait_for_state(&place, "stopped", "running");
    place.output("stop", &["stopped"]).expect(0, &[]);
    run.wait_for_text("trapped");
    run.wait_for_text("prepares");
    place.output("stop", &["--no-wait", "stops"]).expect(0, &[]);
    wait_for_state(&place, "stops", "stopping");
    wait_until("the socket's name", || {
        fs::read_to_string(place.path("socket")).ok().filter(|text| text.ends_with('\n'))
    });
    let names = [
        "runs",
        "done",
        "stopped",
        "needs",
        "backs-off",
        "failed",
        "starts",
        "stops",
        "prepares",
        "checked",
        "wants-health",
    ];
    // What changes with time.
    let look = |name: &str| {
        let mut unit = unit(&place, name);
        let left_ms = unit["next_start_ms"].take();
        unit.as_object_mut().unwrap().remove("uptime_ms");
        if unit["health"].is_object() {
            unit["health"]["since_ms"].take();
        }
        (unit, left_ms)
    };
    let since = Instant::now();
    let before = names.map(look);
    let (other, own) = (other_program(&place), executes(run.pid()));
    for round in 0..6 {
        let program = if round % 2 == 0 { &other } else { &own };
        let outcome = must_upgrade(&place, program);
        assert_eq!((outcome["pid"].as_i64(), &executes(run.pid())), (Some(run.pid().into()), program));
    }
    for ((name, before), after) in names.into_iter().zip(&before).zip(names.map(look)) {
        assert_eq!(before.0, after.0, "{name}");
        // The deadline stays: it does not begin anew, and does not come sooner.
        let [left, was_left] = [&after.1, &before.1].map(Value::as_u64);
        assert_eq!(left.is_some(), was_left.is_some(), "{name}: {before:?} {after:?}");
        let passed = since.elapsed().as_millis() as u64 + 1;
        let came_near = was_left.unwrap_or(0).checked_sub(left.unwrap_or(0)).expect(name);
        assert!(came_near <= passed, "{name}: {before:?} {after:?} in {passed} ms");
    }
    assert!(before.iter().any(|(_, left_ms)| left_ms.is_u64()), "some have a deadline");
    assert_eq!(fs::read_to_string(place.path("once")).unwrap(), "once\n");
    let supervisor = place.output("status", &["--json"]).json()["supervisor"].clone();
    assert_eq!(
        (supervisor["self_upgrades"].as_u64(), &supervisor["last_self_upgrade"]["result"]),
        (Some(6), &"committed".into())
    );

    // What was under way goes on.
    let socket = fs::read_to_string(place.path("socket")).unwrap();
    let starts = wait_for_state(&place, "starts", "starting");
    assert!(starts["pid"].is_i64(), "{starts}");
    assert!(socket.contains("starts.notify"));
    signal(unit(&place, "stops")["pid"].as_i64().unwrap() as i32, Signal::SIGKILL);
    wait_for_state(&place, "stops", "stopped");
    fs::write(place.path("fifo"), "go\n").unwrap();
    wait_for_state(&place, "prepares", "running");
    // The check that was under way is the one that has the answer.
    fs::write(place.path("fifo2"), "well\n").unwrap();
    wait_for_state(&place, "wants-health", "running");
    place.output("start", &["needs"]).expect(0, &[]);
    wait_for_state(&place, "needs", "running");
}

#[test]
fn a_unit_that_waits_for_its_sign_gets_it_after_another_program() {
    let place = Place::new();
    let units = r#"
[unit.pipe]
exec = ["/bin/sh", "-c", "read line < DIR/fifo; echo >&5; exec sleep 1000"]
mode = "none"
ready = "fd=5"
[unit.notify]
exec = ["/usr/bin/python3", "-c", "import os, socket; open('DIR/fifo2').read(); s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET']); import time; time.sleep(1000)"]
mode = "none"
ready = "notify"
[unit.late]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "fd=5"
start_timeout = "3s"
restart = "never"
[unit.after]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=0ms"
requires = ["pipe"]
"#;
    for fifo in ["fifo", "fifo2"] {
        nix::unistd::mkfifo(&place.path(fifo), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let run = up(&place, &units.replace("DIR", text(place.dir.path())));
    wait_for(&place, "notify", "started", |unit| unit["pid"].is_i64());
    must_upgrade(&place, &other_program(&place));
    assert_eq!(unit(&place, "pipe")["state"], "starting");
    for fifo in ["fifo", "fifo2"] {
        fs::write(place.path(fifo), "go\n").unwrap();
    }
    for name in ["pipe", "notify", "after"] {
        wait_for_state(&place, name, "running");
    }
    let late = wait_for_state(&place, "late", "failed");
    assert!(late["why"].as_str().unwrap().contains("ready"), "{late}");
    drop(run);
}

/// A deadline that began anew in each program would never come, where a self-upgrade takes less than that; and one that is lost comes nowhere.
#[test]
fn deadlines_come_although_the_program_is_always_a_new_one() {
    let place = Place::new();
    let units = r#"
[unit.stops]
exec = ["/bin/sh", "-c", "trap '' TERM; echo trapped >&2; while :; do sleep 1; done"]
mode = "none"
ready = "delay=0ms"
stop = ["TERM 1500ms", "KILL"]
[unit.late]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "fd=5"
start_timeout = "2s"
restart = "never"
[unit.backs-off]
exec = ["/bin/sh", "-c", "echo start >> DIR/starts; exit 7"]
mode = "none"
ready = "delay=1h"
start_timeout = "2h"
backoff = { first = "2s", max = "2s" }
[unit.delayed]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=2s"
[unit.checked]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=0ms"
health = { exec = ["/bin/sh", "-c", "echo check >> DIR/checks"], interval = "1500ms" }
[unit.hangs]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=0ms"
pre_start = ["/bin/sleep", "1000"]
start_timeout = "2s"
restart = "never"
[unit.silent]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=0ms"
watchdog = "2s"
restart = "never"
"#;
    let run = up(&place, &units.replace("DIR", text(place.dir.path())));
    run.wait_for_text("trapped");
    place.output("stop", &["--no-wait", "stops"]).expect(0, &[]);
    let programs = [other_program(&place), executes(run.pid())];
    let lines = |name: &str| fs::read_to_string(place.path(name)).map_or(0, |text| text.lines().count());
    let mut others = programs.iter().cycle();
    wait_until("all deadlines have come", || {
        must_upgrade(&place, others.next().unwrap());
        let state = |name: &str| unit(&place, name)["state"].as_str().unwrap().to_owned();
        let states = ["stops", "late", "hangs", "silent", "delayed"].map(state);
        (states == ["stopped", "failed", "failed", "failed", "running"] && lines("starts") >= 2 && lines("checks") >= 3)
            .then_some(())
    });
}
