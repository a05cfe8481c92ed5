//! `handoff up` as a service of the manager.

use crate::fake::Fake;
use crate::harness::{Place, Run, signal, text};
use nix::sys::signal::Signal;
use std::fs;

/// Listens, and does nothing with it; is ready when this file is there.
fn unit(name: &str, go: &std::path::Path, more: &str) -> String {
    let script = format!("while [ ! -e {} ]; do sleep 0.02; done; echo >&9; exec sleep 1000", go.display());
    format!("[unit.{name}]\nexec = \"{script}\"\nshell = true\nmode = \"none\"\nready = \"fd=9\"\n{more}\n")
}

fn up<'a>(place: &'a Place, fake: &Fake, content: &str) -> Run<'a> {
    let units = place.file("units.toml", content, 0o644);
    let mut command = place.handoff("up");
    command.args(["-c", text(&units)]).env("NOTIFY_SOCKET", fake.path()).stdout(std::process::Stdio::null());
    place.spawn(command)
}

#[test]
fn ready_when_all_are_up_and_each_listener_is_left_there() {
    let place = Place::new();
    let mut fake = Fake::new(&place);
    let (one, two) = (place.path("one"), place.path("two"));
    let content = [
        unit("one", &one, "listen = [\"a=127.0.0.1:0\", \"b=127.0.0.1:0,sockets=2\"]"),
        unit("two", &two, "requires = [\"one\"]\nlisten = [\"a=127.0.0.1:0\"]"),
        "[unit.broken]\nexec = [\"/nonexistent/program\"]\nmode = \"none\"\nready = \"notify\"\nrestart = \"never\"\n"
            .to_owned(),
        "[unit.by-hand]\nexec = [\"sleep\", \"1000\"]\nautostart = false\n".to_owned(),
    ];
    let mut run = up(&place, &fake, &content.concat());
    for (name, count) in [("one.a", 1), ("one.b", 2), ("two.a", 1)] {
        let at = fake.wait_for_field("FDNAME", name, 0);
        assert_eq!(fake.messages[at].fds.len(), count, "{name}");
    }
    fs::write(one, "").unwrap();
    let first = fake.wait_for("one of them is up", 0, |message| {
        message.get("STATUS").is_some_and(|status| status.starts_with("1 of 3"))
    });
    fake.read();
    assert_eq!(fake.count("READY"), 0, "the other one is not up: {:?}", fake.messages);
    fs::write(two, "").unwrap();
    let ready = fake.wait_for_field("READY", "1", first);
    let status = fake.messages[ready].get("STATUS").unwrap();
    assert!(status.starts_with("2 of 3") && status.contains("broken: failed"), "{status}");

    // What is no listener any more need not be kept.
    let units = place.path("units.toml");
    fs::write(&units, fs::read_to_string(&units).unwrap().replace("[\"a=127.0.0.1:0\", ", "[")).unwrap();
    let before = fake.messages.len();
    signal(run.pid(), Signal::SIGHUP);
    let reloading = fake.wait_for_field("RELOADING", "1", before);
    fake.wait_for_field("READY", "1", reloading);
    place.output("restart", &["one"]);
    let removed = fake.wait_for_field("FDSTOREREMOVE", "1", reloading);
    assert_eq!(fake.messages[removed].get("FDNAME"), Some("one.a"));

    let before = fake.messages.len();
    signal(run.pid(), Signal::SIGTERM);
    fake.wait_for_field("STOPPING", "1", before);
    assert_eq!(run.end(), 0);
    fake.read();
    assert!(fake.messages.iter().all(|message| message.pid == run.pid()));
}

#[test]
fn a_unit_that_never_comes_up_keeps_nobody_waiting() {
    let place = Place::new();
    let mut fake = Fake::new(&place);
    let go = place.path("go");
    fs::write(&go, "").unwrap();
    let crashes = "[unit.crashes]\nexec = [\"false\"]\nmode = \"none\"\nready = \"notify\"\nbackoff = { first = \"60s\", max = \"60s\" }\n";
    let waits = "[unit.waits]\nexec = [\"sleep\", \"1000\"]\nrequires = [\"crashes\"]\n";
    let _run = up(&place, &fake, &[&unit("good", &go, ""), crashes, waits].concat());
    let ready = fake.wait_for_field("READY", "1", 0);
    let status = fake.messages[ready].get("STATUS").unwrap();
    assert!(status.starts_with("1 of 3") && status.contains("crashes: waiting"), "{status}");
}
