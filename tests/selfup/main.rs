//! The supervisor replaces its own program, in its process: nothing that it runs notices, and nothing that it knows is lost.

mod back;
mod clients;
mod ends;
#[allow(dead_code, reason = "it is that of another test, which uses all of it")]
#[path = "../program/harness.rs"]
mod harness;
mod output;
mod refused;
mod rounds;
mod states;
#[path = "../support/mod.rs"]
mod support;
mod versions;
mod waits;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use support::copy::copy_program;

use harness::{Place, Run, Said, text, wait_until};
use serde_json::Value;

/// The supervisor of these units.
fn up<'a>(place: &'a Place, units: &str) -> Run<'a> {
    let file = place.file("units.toml", units, 0o644);
    let mut command = place.handoff("up");
    command.arg("-c").arg(file).stdout(Stdio::null());
    place.spawn(command)
}

/// The program under another name: a new build, as far as the kernel can tell.
fn other_program(place: &Place) -> PathBuf {
    let path = place.path("other-handoff");
    if !path.exists() {
        copy_program(env!("CARGO_BIN_EXE_handoff"), &path);
    }
    path
}

fn executes(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

fn self_upgrade(place: &Place, program: &Path) -> Said {
    place.output("self-upgrade", &["--json", text(program)])
}

/// One that must be done: what it said.
#[track_caller]
fn must_upgrade(place: &Place, program: &Path) -> Value {
    let said = self_upgrade(place, program);
    said.expect(0, &[]);
    let outcome = said.json();
    assert_eq!(outcome["result"], "committed", "{outcome}");
    outcome
}

/// A unit in `handoff status`.
fn unit(place: &Place, name: &str) -> Value {
    let status = place.output("status", &["--json", name]);
    status.expect(0, &[]);
    status.json()["services"][0].clone()
}

/// The same, when it is as `look` wants it.
fn wait_for(place: &Place, name: &str, what: &str, look: impl Fn(&Value) -> bool) -> Value {
    wait_until(&format!("{name} is {what}"), || {
        let said = place.output("status", &["--json", name]);
        let status: Value = serde_json::from_str(&said.stdout).ok()?;
        let unit = status["services"][0].clone();
        (unit.is_object() && look(&unit)).then_some(unit)
    })
}

fn wait_for_state(place: &Place, name: &str, state: &str) -> Value {
    wait_for(place, name, state, |unit| unit["state"] == state)
}
