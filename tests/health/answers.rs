//! What counts as a bad answer, and that a unit is restarted for it, with its first cause.

use crate::daemon::{Daemon, up};
use crate::harness::{Place, lives, pid_of, wait_until};
use std::fs;

const OFTEN: &str = "interval = \"100ms\", timeout = \"400ms\", retries = 3";

#[test]
fn a_unit_that_is_not_well_is_restarted_with_the_cause() {
    let place = Place::new();
    let daemon = Daemon::new(&place, "web");
    let health = format!("{{ url = \"http+unix://SOCKET/health\", {OFTEN} }}");
    let up = up(&place, &[daemon.listening(&health, &[])]);
    let before = up.wait_for_health("web", "healthy");
    assert_eq!(before["state"], "running");
    // It is asked again and again, also when it was well.
    wait_until("many questions", || (daemon.asked() > 10).then_some(()));
    daemon.set("mode", "503");
    let after = up.wait_for("web", "a restart", |service| service["restarts"] == 1);
    let cause = after["cause"].as_str().unwrap();
    assert!(cause.starts_with("unhealthy: http+unix://") && cause.ends_with("/health: status 503"), "{cause}");
    daemon.set("mode", "204");
    let after = up.wait_for_health("web", "healthy");
    assert_ne!(pid_of(&after), pid_of(&before));
    assert_eq!((&after["health"]["cause"], &after["state"]), (&serde_json::Value::Null, &"running".into()));
    up.run.wait_for_text("unhealthy: ");
}

#[test]
fn each_kind_of_bad_answer_is_named() {
    let place = Place::new();
    let http = format!("{{ url = \"http+unix://SOCKET/\", {OFTEN} }}");
    let narrow = format!("{{ url = \"http+unix://SOCKET/\", status = \"201-299\", {OFTEN} }}");
    let connects = format!("{{ url = \"unix:PATH\", {OFTEN} }}");
    let rows = [
        ("hangs", &http, "hang", "there was no answer in 0.4 s"),
        ("closes", &http, "close", "closed the connection without an answer"),
        ("talks", &http, "rubbish", "its answer is no HTTP"),
        ("moved", &narrow, "302", "status 302"),
        ("drips", &http, "drip", "there was no answer in 0.4 s"),
        ("floods", &http, "endless", "its answer is no HTTP"),
        // The supervisor holds the listener: the kernel connects although nobody is there.
        ("deaf", &connects, "deaf", "nobody accepted in 0.4 s"),
    ];
    let daemons = rows.map(|(name, ..)| Daemon::new(&place, name));
    let units: Vec<String> = daemons
        .iter()
        .zip(&rows)
        .map(|(daemon, (_, health, ..))| daemon.listening(health, &["restart = \"never\""]))
        .collect();
    daemons[3].set("mode", "201");
    let up = up(&place, &units);
    for (daemon, (name, _, mode, _)) in daemons.iter().zip(&rows) {
        up.wait_for_health(name, "healthy");
        daemon.set("mode", mode);
    }
    for (name, .., cause) in &rows {
        let service = up.wait_for_health(name, "unhealthy");
        let said = service["health"]["cause"].as_str().unwrap();
        assert!(said.contains(cause), "{name}: {said}");
    }
}

#[test]
fn one_that_is_never_started_again_is_left_alone() {
    let place = Place::new();
    let daemon = Daemon::new(&place, "web");
    let health = format!("{{ url = \"http+unix://SOCKET/\", {OFTEN} }}");
    let up = up(&place, &[daemon.listening(&health, &["restart = \"never\""])]);
    let before = pid_of(&up.wait_for_health("web", "healthy"));
    daemon.set("mode", "500");
    let service = up.wait_for_health("web", "unhealthy");
    assert_eq!((pid_of(&service), &service["state"]), (before, &"running".into()));
    daemon.set("mode", "200");
    let service = up.wait_for_health("web", "healthy");
    assert_eq!((pid_of(&service), &service["restarts"]), (before, &0.into()));
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_all_of_its_own() {
    let place = Place::new();
    let daemon = Daemon::new(&place, "web");
    let pids = place.path("pids");
    let ok = place.path("ok");
    fs::write(&ok, "").unwrap();
    let script = format!("[ -e {} ] && exit 0; sleep 1000 & echo $! >> {}; wait", ok.display(), pids.display());
    let health = format!(
        "health = {{ exec = [\"sh\", \"-c\", {script:?}], interval = \"100ms\", timeout = \"300ms\", retries = 2 }}"
    );
    let up = up(&place, &[daemon.unit(&[], &["ready = \"notify\"", &health])]);
    up.wait_for_health("web", "healthy");
    fs::remove_file(&ok).unwrap();
    let service = up.wait_for("web", "a restart", |service| service["restarts"] == 1);
    let cause = service["cause"].as_str().unwrap();
    assert!(cause.starts_with("unhealthy: sh: killed, since its time was over"), "{cause}");
    fs::write(&ok, "").unwrap();
    up.wait_for_health("web", "healthy");
    let sleepers = fs::read_to_string(pids).unwrap();
    assert!(sleepers.lines().count() >= 2, "{sleepers}");
    for pid in sleepers.lines() {
        let pid = pid.parse().unwrap();
        wait_until("the end of what it has started", || (!lives(pid)).then_some(()));
    }
}

/// What is known now, and not only what it has come to: it may take minutes until that.
#[test]
fn a_check_that_fails_is_seen_at_once() {
    let place = Place::new();
    let daemon = Daemon::new(&place, "web");
    let health = "{ url = \"unix:PATH\", interval = \"50ms\", timeout = \"100ms\", retries = 1000 }";
    let up = up(&place, &[daemon.listening(health, &[])]);
    let service = up.wait_for_health("web", "healthy");
    assert_eq!(
        (&service["health"]["failures"], &service["health"]["failing_ms"]),
        (&0.into(), &serde_json::Value::Null)
    );
    daemon.set("mode", "deaf");
    let service = up.wait_for("web", "bad answers", |service| service["health"]["failures"].as_u64() > Some(1));
    let health = &service["health"];
    assert!(health["state"] == "healthy" && health["failing_ms"].is_u64(), "{service}");
    let said = place.output("status", &["web"]).stdout;
    let line = said.lines().find(|line| line.trim().starts_with("health")).unwrap();
    assert!(line.contains(" bad answers in a row, for ") && line.ends_with("nobody accepted in 0.1 s"), "{line}");
    daemon.set("mode", "200");
    up.wait_for("web", "a good one", |service| service["health"]["failures"] == 0);
}

/// It runs for longer than `backoff.reset` each time, and was never well.
#[test]
fn one_that_was_never_well_waits_longer_each_time() {
    let place = Place::new();
    let daemon = Daemon::new(&place, "web");
    daemon.set("mode", "503");
    let health = "{ url = \"http+unix://SOCKET/\", interval = \"50ms\", timeout = \"1s\", retries = 1 }";
    let unit = daemon
        .listening(health, &["start_timeout = \"300ms\""])
        .replace("{ first = \"50ms\" }", "{ first = \"100ms\", max = \"1m\", reset = \"200ms\" }");
    let up = up(&place, &[unit.replace("ready = \"notify\"", "ready = \"delay=1ms\"")]);
    up.wait_for("web", "three restarts", |service| service["restarts"].as_u64() >= Some(3));
    let said = place.output("history", &["web", "--json"]).json();
    let entries = said["services"][0]["entries"].as_array().unwrap();
    let waits: Vec<u64> = entries.iter().filter_map(|entry| entry["next_start_ms"].as_u64()).take(3).collect();
    // Half of each is left to chance.
    assert!(
        (50..=100).contains(&waits[0]) && (100..=200).contains(&waits[1]) && (200..=400).contains(&waits[2]),
        "{waits:?}"
    );
}
