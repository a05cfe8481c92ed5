//! A second supervisor where there is one: it is told which, and the first hears nothing of it.

use crate::support::fleet::{Answer, Fleet};
use std::process::Command;

/// `handoff up` with these arguments, or `handoff run`, which ends by itself.
fn second(fleet: &Fleet, words: &[&str]) -> Answer {
    let mut command: Command = fleet.command(words[0]);
    let output = command.args(&words[1..]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Answer { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

#[test]
fn one_name_one_socket_one_unit() {
    let mut fleet = Fleet::place();
    let unit = format!("[unit.app]\n{}mode = 'none'\nready = 'fd=9'\n", fleet.acts("app", "fd=9"));
    fleet.configure(&unit);
    fleet.launch();
    let pid = fleet.wait_for("app", "running")["pid"].clone();
    let files = || {
        let mut names = crate::harness::names(&fleet.path("run"));
        names.retain(|name| !name.starts_with("other"));
        names
    };
    let before = files();
    let (config, socket) = (fleet.path("units.toml"), fleet.path("run/main.sock"));
    let (config, socket) = (config.to_str().unwrap(), socket.to_str().unwrap());
    let first = format!("process {}", fleet.pid());
    let runs = "runs already";
    second(&fleet, &["up", "-c", config]).expect(125, &["'main'", runs, &first, "choose another --name"]);
    // Wherever its socket is to be.
    second(&fleet, &["up", "-c", config, "--socket", "/no/such"]).expect(125, &["'main'", runs, &first]);
    second(&fleet, &["run", "--name", "main", "--", "sleep", "1000"]).expect(125, &["'main'", runs, &first]);
    // A unit is nobody else's service.
    second(&fleet, &["run", "--name", "app", "--", "sleep", "1000"]).expect(125, &["'app'", runs, &first]);
    let other = ["up", "-c", config, "--name", "other"];
    second(&fleet, &[&other[..], &["--socket", socket]].concat()).expect(125, &["is in use", &first]);
    // Another name: its units are what is not to be had.
    let mut child = fleet.command("up").args(&other[1..]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let why = || {
        let all = fleet.run("status", &["--name", "other", "--json"]);
        let all: serde_json::Value = serde_json::from_str(&all.stdout).ok()?;
        let unit = all["services"][0].clone();
        (unit["state"] == "failed").then(|| unit["why"].as_str().unwrap().to_owned())
    };
    let why = crate::support::wait_until("it has failed", why);
    assert!(why.contains(runs) && why.contains(&first), "{why}");
    fleet.run("start", &["--name", "other", "app"]).expect(1, &["app: failed", runs, &first]);
    fleet.run("shutdown", &["--name", "other"]).expect(0, &[]);
    child.wait().unwrap();
    assert_eq!(fleet.run("status", &["--name", "main", "--json"]).json()["services"][0]["pid"], pid);
    assert_eq!((fleet.starts("app").len(), files()), (1, before));
    fleet.run("restart", &["app"]).expect(0, &[]);
}
