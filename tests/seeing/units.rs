//! The same of many units, under `handoff up`.

use std::fs;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::exposition::Exposition;
use crate::support::{MARK, SIGKILL, SIGTERM, marked, signal, signal_if_there, wait_until};
use crate::{Client, json_of, text};

const UNITS: &str = r#"
[unit.db]
exec = ["sleep", "1000"]
mode = "overlap"
ready = "delay=50ms"
listen = ["db=127.0.0.1:0"]
[unit.web]
exec = ["sleep", "1000"]
mode = "overlap"
ready = "delay=50ms"
requires = ["db"]
[unit.task]
exec = ["echo", "done"]
oneshot = true
[unit.well]
exec = ["sleep", "1000"]
mode = "none"
ready = "delay=50ms"
health = { exec = ["test", "!", "-e", "sick"], interval = "50ms", retries = 1 }
[unit.off]
exec = ["sleep", "1000"]
autostart = false
"#;

/// A supervisor of these units, which ends with the test.
struct Many {
    dir: tempfile::TempDir,
    run: Child,
}

impl Many {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("handoff.toml"), UNITS).unwrap();
        let socket = format!("unix:{}", dir.path().join("metrics").display());
        let mut command = Self::command_in(&dir, "up");
        command.args(["--metrics", &socket]).stderr(fs::File::create(dir.path().join("stderr")).unwrap());
        let many = Self { run: command.stdout(Stdio::null()).spawn().unwrap(), dir };
        wait_until("all runs", || {
            let status: Value = serde_json::from_slice(&many.output("status", &["--json"]).stdout).ok()?;
            let states: Vec<&str> =
                status["services"].as_array()?.iter().flat_map(|unit| unit["state"].as_str()).collect();
            (states == ["running", "stopped", "done", "running", "running"]).then_some(())
        });
        many
    }

    fn command_in(dir: &tempfile::TempDir, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_handoff"));
        command.arg(subcommand).current_dir(dir).env("HANDOFF_RUNTIME_DIR", dir.path().join("run"));
        command.env(MARK, dir.path()).stdin(Stdio::null());
        command
    }

    fn output(&self, subcommand: &str, arguments: &[&str]) -> Output {
        Self::command_in(&self.dir, subcommand).args(arguments).output().unwrap()
    }
}

impl Many {
    fn metrics(&self) -> Exposition {
        let mut stream = std::os::unix::net::UnixStream::connect(self.dir.path().join("metrics")).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let answer = std::io::read_to_string(stream).unwrap();
        Exposition::parse(answer.split_once("\r\n\r\n").unwrap().1)
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- it said:\n{}", fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default());
        }
        let _ = self.run.kill();
        let _ = self.run.wait();
        for pid in marked(&self.dir.path().display().to_string()) {
            signal_if_there(pid, SIGKILL);
        }
    }
}

#[test]
fn many_units_are_a_table_and_each_has_its_events_history_and_metrics() {
    let mut many = Many::start();
    let table = text(&many.output("status", &[]).stdout);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "STATE", "PID", "GEN", "UPTIME", "LISTENERS", "WHY"], "{table}");
    assert_eq!((&lines[1][..2], &lines[4][..2]), (&["db", "running"][..], &["web", "running"][..]), "{table}");
    assert!(lines[1][5].starts_with("127.0.0.1:"), "{table}");
    assert_eq!(&lines[2][..5], ["off", "stopped", "-", "-", "-"], "{table}");

    let mut all = Client::to(&many.dir.path().join("run/main.sock"));
    assert_eq!(all.ask("events", json!({}))["result"]["following"], true);
    let mut one = Client::to(&many.dir.path().join("run/main.sock"));
    assert_eq!(one.ask("events", json!({ "service": "db" }))["result"]["following"], true);
    assert_eq!(many.output("stop", &["web"]).status.code(), Some(0));
    assert_eq!(all.event("stopping")["service"], "web");
    assert_eq!(all.event("ended")["service"], "web");
    assert_eq!(many.output("start", &["web"]).status.code(), Some(0));
    let (started, ready) = (all.event("started"), all.event("ready"));
    assert_eq!((&started["service"], &started["pid"]), (&json!("web"), &ready["pid"]));
    assert_eq!(many.output("upgrade", &["db"]).status.code(), Some(0));
    let first = one.next().unwrap();
    assert_eq!((&first["params"]["service"], &first["params"]["event"]), (&json!("db"), &json!("phase")), "{first}");

    let history = json_of(&many.output("history", &["web", "--json"]));
    let [start, end, again] = history["services"][0]["entries"].as_array().unwrap().as_slice() else {
        panic!("{history}")
    };
    assert_eq!((&start["kind"], &again["kind"], &again["pid"]), (&json!("start"), &json!("start"), &started["pid"]));
    assert_eq!((&end["signal"], &end["stopped"]), (&json!(SIGTERM), &json!("stopped by an operator")));
    let said = text(&many.output("history", &[]).stdout);
    let has = |unit: &str, end: &str| said.lines().any(|line| line.contains(unit) && line.ends_with(end));
    assert!(has(" web: ", "started (generation 1)") && has(" task: ", "exit status 0; for good"), "{said}");

    let found = many.metrics();
    for (unit, state) in [("db", "running"), ("web", "running"), ("task", "done"), ("off", "stopped")] {
        let of = |state: &str| found.value("handoff_service_state", &[("service", unit), ("state", state)]).unwrap();
        let states = handoff::service::STATES.iter().map(|state| of(state));
        assert_eq!((of(state), states.sum::<f64>()), (1.0, 1.0), "{unit}");
    }
    assert_eq!(found.value("handoff_outcomes_total", &[("service", "db"), ("result", "committed")]), Some(1.0));

    let lines = |unit: &str| found.value("handoff_log_lines_total", &[("service", unit)]);
    assert_eq!((lines("task"), lines("db")), (Some(1.0), Some(0.0)));
    for to in ["file", "readers"] {
        assert_eq!(found.value("handoff_log_dropped_lines_total", &[("service", "task"), ("to", to)]), Some(0.0));
    }
    assert_eq!(found.value("handoff_service_healthy", &[("service", "well")]), Some(1.0));
    fs::write(many.dir.path().join("sick"), "").unwrap();
    let sick = all.event("warning");
    assert!(sick["service"] == "well" && sick["text"].as_str().unwrap().starts_with("unhealthy: "), "{sick}");
    wait_until("a restart for its health", || {
        let cause = [("service", "well"), ("cause", "health")];
        many.metrics().value("handoff_service_restarts_total", &cause).filter(|restarts| *restarts >= 1.0)
    });

    let doctor = json_of(&many.output("doctor", &["--json"]));
    let places: Vec<&Value> = doctor["findings"].as_array().unwrap().iter().map(|finding| &finding["place"]).collect();
    for unit in ["db", "web", "task", "off", "supervisor", "machine"] {
        assert!(places.iter().any(|place| *place == unit), "{unit}: {places:?}");
    }
    // What was counted of a unit goes with it.
    let moved = |unit: &str| many.metrics().value("handoff_connections_moved_total", &[("service", unit)]);
    assert_eq!((moved("web"), moved("db")), (Some(0.0), Some(0.0)));
    let without_web: String =
        UNITS.split("[unit.").filter(|unit| !unit.starts_with("web]")).collect::<Vec<_>>().join("[unit.");
    fs::write(many.dir.path().join("handoff.toml"), without_web).unwrap();
    assert_eq!(many.output("reload", &[]).status.code(), Some(0));
    assert_eq!(all.event("removed")["service"], "web");
    assert_eq!((moved("web"), moved("db")), (None, Some(0.0)));
    signal(many.run.id() as i32, SIGTERM);
    wait_until("the end", || many.run.try_wait().unwrap());
}
