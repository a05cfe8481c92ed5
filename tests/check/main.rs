//! `handoff check` from outside: every fault at its line, and all of them at once.

mod classes;
mod manual;
mod meant;
mod places;
mod usage;

use std::path::Path;
use std::process::{Command, Stdio};

use handoff::service::config::UNIT_KEYS;
use serde_json::Value;

/// What a command left.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// `handoff check` in this directory.
fn check(dir: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_handoff"));
    command.arg("check").args(arguments).current_dir(dir).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn here() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/check"))
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    let said = check(here(), &["-c", "faults.toml"]);
    let expected = std::fs::read_to_string(here().join("faults.txt")).unwrap();
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (1, expected.as_str(), ""));
}

#[test]
fn json_has_the_same_faults() {
    let (lines, json) = (check(here(), &["-c", "faults.toml"]), check(here(), &["-c", "faults.toml", "--json"]));
    assert_eq!((json.code, json.stderr.as_str()), (1, ""));
    let json = json.json();
    let faults = json["faults"].as_array().unwrap();
    assert_eq!(faults.len() + 1, lines.stdout.lines().count());
    for (fault, line) in faults.iter().zip(lines.stdout.lines()) {
        let place = format!("{}:{}:{}: ", fault["file"].as_str().unwrap(), fault["line"], fault["column"]);
        assert!(line.starts_with(&place) && line.ends_with(fault["text"].as_str().unwrap()), "{line}\n{fault}");
    }
    assert_eq!((&json["units"], &json["targets"]), (&serde_json::json!(["good"]), &serde_json::json!([])));
}

#[test]
fn a_file_with_all_keys_is_well() {
    let said = check(here(), &["-c", "good.toml"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "4 units and 2 targets, all well\n", ""));
    let text = std::fs::read_to_string(here().join("good.toml")).unwrap();
    let written: Vec<&str> = text.lines().filter_map(|line| line.split([' ', ']']).next()).collect();
    let tables = ["backoff", "restart_limit", "health", "log"];
    for key in UNIT_KEYS {
        let table = tables.contains(key).then(|| format!("[unit.exclusive.{key}"));
        assert!(written.contains(key) || table.is_some_and(|table| written.contains(&table.as_str())), "{key}");
    }
    let json = check(here(), &["--config", "good.toml", "--json"]);
    let names = (serde_json::json!(["exclusive", "overlap", "rival", "task"]), serde_json::json!(["all", "inner"]));
    let parsed = json.json();
    assert_eq!(
        (json.code, &parsed["faults"], &parsed["units"], &parsed["targets"]),
        (0, &serde_json::json!([]), &names.0, &names.1)
    );
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for arguments in [vec!["file.toml"], vec!["--strange"], vec!["-c"], vec!["-c", ""]] {
        let said = check(here(), &arguments);
        assert_eq!((said.code, said.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(!said.stderr.is_empty());
    }
}
