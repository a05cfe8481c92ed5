//! Readiness by health, and those who wait for it.

use crate::daemon::{Daemon, up};
use crate::harness::{Place, pid_of, wait_until};
use std::fs;

const SOON: &str = "interval = \"100ms\", timeout = \"1s\"";

#[test]
fn the_first_good_answer_is_the_readiness() {
    let place = Place::new();
    let (socket, command) = (Daemon::new(&place, "socket"), Daemon::new(&place, "command"));
    socket.set("mode", "500");
    let go = place.path("go");
    let by_socket = socket.listening(&format!("{{ url = \"http+unix://SOCKET/\", {SOON} }}"), &[]);
    let by_command = command.unit(
        &["quiet"],
        &[
            "ready = \"health\"",
            &format!("health = {{ exec = [\"test\", \"-e\", {:?}], {SOON} }}", go.to_str().unwrap()),
        ],
    );
    let up = up(&place, &[by_socket.replace("ready = \"notify\"", "ready = \"health\""), by_command]);
    for daemon in [&socket, &command] {
        daemon.wait_for_file("pid");
    }
    wait_until("some questions", || (socket.asked() > 5).then_some(()));
    for name in ["socket", "command"] {
        let service = up.wait_for(name, "a process", |service| service["pid"].is_i64());
        assert_eq!(
            (&service["state"], &service["health"]["state"]),
            (&"starting".into(), &"unknown".into()),
            "{service}"
        );
    }
    socket.set("mode", "200");
    fs::write(go, "").unwrap();
    for (name, daemon) in [("socket", &socket), ("command", &command)] {
        let service = up.wait_for(name, "ready", |service| service["state"] == "running");
        assert_eq!(service["pid"].to_string(), daemon.read("pid").unwrap());
        up.wait_for_health(name, "healthy");
    }
}

/// Without being asked for its health from then on.
#[test]
fn an_answer_to_an_address_of_its_own_is_the_readiness() {
    let place = Place::new();
    let daemon = Daemon::new(&place, "web");
    let socket = daemon.dir.join("socket");
    daemon.set("mode", "503");
    let ready = format!("ready = \"health=http+unix://{}/ready\"", socket.to_str().unwrap().replace('/', "%2F"));
    let listen = format!("listen = [\"web=unix:{}\"]", socket.display());
    let up = up(&place, &[daemon.unit(&["quiet"], &[&ready, &listen])]);
    wait_until("some questions", || (daemon.asked() > 5).then_some(()));
    let service = up.wait_for("web", "a process", |service| service["pid"].is_i64());
    assert_eq!((&service["state"], &service["restarts"]), (&"starting".into(), &0.into()), "{service}");
    daemon.set("mode", "200");
    let service = up.wait_for("web", "ready", |service| service["state"] == "running");
    assert_eq!(service["pid"].to_string(), daemon.read("pid").unwrap());
    assert!(service["health"].is_null(), "{service}");
}

#[test]
fn who_requires_a_healthy_unit_waits_for_its_health() {
    let place = Place::new();
    let (db, app) = (Daemon::new(&place, "db"), Daemon::new(&place, "app"));
    db.set("mode", "503");
    let units = [
        db.listening(&format!("{{ url = \"http+unix://SOCKET/\", {SOON}, retries = 1000 }}"), &[]),
        app.unit(&[], &["ready = \"notify\"", "requires = [\"db:healthy\"]"]),
    ];
    let up = up(&place, &units);
    let service = up.wait_for("db", "running", |service| service["state"] == "running");
    assert_eq!(service["health"]["state"], "unknown", "ready is not healthy");
    let waits = up.wait_for("app", "it waits", |service| service["state"] == "waiting");
    assert!(waits["why"].as_str().unwrap().contains("db is healthy") && waits["pid"].is_null(), "{waits}");
    let before = db.asked();
    wait_until("some more questions", || (db.asked() > before + 5).then_some(()));
    assert_eq!(app.read("pid"), None, "it was not started");
    db.set("mode", "200");
    let started = pid_of(&up.wait_for("app", "running", |service| service["state"] == "running"));
    // Later it may be ill, and its dependents run on.
    db.set("mode", "503");
    let before = db.asked();
    wait_until("some more questions", || (db.asked() > before + 5).then_some(()));
    assert_eq!(pid_of(&up.wait_for("app", "running", |service| service["state"] == "running")), started);
}
