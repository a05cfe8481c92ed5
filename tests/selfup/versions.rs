//! Programs of other versions: what they wrote is read, or refused with the reason. And files that change meanwhile.

use crate::harness::{Place, Run, text};
use crate::support::copy::copy_program;
use crate::{executes, must_upgrade, other_program, self_upgrade, unit, wait_for, wait_for_state};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const UNITS: &str = r#"
[unit.unit-a]
exec = ["/bin/sh", "-c", "echo before >&2; exec sleep 1000"]
mode = "none"
ready = "delay=0ms"
listen = ["web=127.0.0.1:0"]
stop = ["TERM 10s", "KILL"]
health = { exec = ["true"], interval = "10m" }
env = { NAME = "value" }
log = { lines = 100 }
[unit.unit-b]
exec = ["/bin/sh", "-c", "exit 7"]
mode = "none"
ready = "delay=1h"
start_timeout = "2h"
backoff = { first = "20m", max = "30m" }
[unit.unit-c]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=0ms"
requires = ["unit-a:healthy"]
pre_start = ["true"]
[target.target-d]
units = ["unit-a"]
"#;

/// In this directory: the script that is named by `ANOTHER_VERSION`, and a program of another version, which does what the script says for the
/// words of [`change`].
pub fn another_version(dir: &Path) -> (PathBuf, PathBuf) {
    let (script, program) = (dir.join("another_version.py"), dir.join("another-version"));
    fs::write(&script, include_str!("another_version.py")).unwrap();
    fs::write(dir.join("program"), env!("CARGO_BIN_EXE_handoff")).unwrap();
    copy_program(crate::support::compile("another-version", "tests/selfup/another_version.c", &[]), &program);
    (script, program)
}

pub fn change(dir: &Path, words: &[&str]) {
    fs::write(dir.join("change"), words.join("\n")).unwrap();
}

/// Units, and a program of another version.
struct Other<'a> {
    place: &'a Place,
    run: Run<'a>,
    program: PathBuf,
}

impl<'a> Other<'a> {
    fn new(place: &'a Place) -> Self {
        let (script, program) = another_version(place.dir.path());
        let mut command = place.handoff("up");
        command.arg("-c").arg(place.file("units.toml", UNITS, 0o644)).env("ANOTHER_VERSION", script);
        command.stdout(Stdio::null());
        let run = place.spawn(command);
        wait_for_state(place, "unit-b", "waiting");
        wait_for_state(place, "unit-c", "running");
        Self { place, run, program }
    }

    fn change(&self, words: &[&str]) {
        change(self.place.dir.path(), words);
    }

    /// The reason.
    fn must_refuse(&self, words: &[&str]) -> String {
        self.change(words);
        let said = self_upgrade(self.place, &self.program);
        said.expect(13, &[]);
        said.json()["reason"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_state_that_is_not_understood_is_refused_with_the_reason() {
    let place = Place::new();
    let other = Other::new(&place);
    let before = ["unit-a", "unit-b", "unit-c"].map(|name| unit(&place, name)["pid"].clone());
    let version = env!("CARGO_PKG_VERSION");
    let format = format!("handoff 9.8.7 has written format 2 of the state, and handoff {version} reads format 1 only");
    let cases: [(&[&str], &str); 6] = [
        (&["format"], &format),
        (&["without", "fleet"], "is not understood: missing field `fleet`"),
        (&["without", "self_upgrade"], "is not understood: missing field `self_upgrade`"),
        (&["cut"], "the state is cut off"),
        (&["foreign"], "this is no state of handoff"),
        (&["beside"], "is not understood"),
    ];
    for (words, reason) in cases {
        let said = other.must_refuse(words);
        assert!(said.contains(reason) && said.contains(text(&other.program)), "{reason:?} is not in {said:?}");
    }
    assert_eq!(other.must_refuse(&["seals"]).split("seals ").nth(1).unwrap(), "15: Operation not permitted");
    assert_eq!(before, ["unit-a", "unit-b", "unit-c"].map(|name| unit(&place, name)["pid"].clone()));
    assert_eq!(executes(other.run.pid()), PathBuf::from(env!("CARGO_BIN_EXE_handoff")));
    must_upgrade(&place, &other_program(&place));
}

#[test]
fn fields_that_are_not_known_are_no_harm() {
    let place = Place::new();
    let other = Other::new(&place);
    let before = unit(&place, "unit-a");
    other.change(&["newer"]);
    for _ in 0..2 {
        must_upgrade(&place, &other.program);
        let added: u32 = fs::read_to_string(place.path("added")).unwrap().parse().unwrap();
        assert!(added > 60, "{added} fields were added");
    }
    assert_eq!(unit(&place, "unit-a")["pid"], before["pid"]);
    assert_eq!(unit(&place, "unit-a")["listeners"], before["listeners"]);
    assert_eq!(unit(&place, "unit-b")["state"], "waiting");
    assert_eq!(place.output("status", &["--json"]).json()["supervisor"]["self_upgrades"], 2);
    place.output("restart", &["unit-a"]).expect(0, &[]);
    wait_for(&place, "unit-a", "another one", |unit| unit["state"] == "running" && unit["pid"] != before["pid"]);
    place.output("stop", &["target-d"]).expect(0, &[]);
}

#[test]
fn a_file_that_is_another_one_meanwhile() {
    let place = Place::new();
    let other = Other::new(&place);
    let path = text(&other.program);
    let said = other.must_refuse(&["write", path]);
    assert!(said.contains("was written to meanwhile; replace a program by a rename"), "{said}");
    // What was asked is what is executed, whoever has the name by then.
    copy_program("/bin/true", place.path("true"));
    other.change(&["rename", path, text(&place.path("true"))]);
    must_upgrade(&place, &other.program);
    assert_eq!(unit(&place, "unit-c")["state"], "running");
    assert_eq!(fs::read(path).unwrap(), fs::read("/bin/true").unwrap());
}
