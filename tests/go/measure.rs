//! What Go costs: `cargo test --release --test go -- --ignored --nocapture measure`.

use super::support::go::{build_go, root};
use super::support::{Service, compile, wait_for_death};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const HANDOFFS: usize = 50;
const STARTS: usize = 200;

/// Hooks that do nothing.
const DAEMON: &str = r#"package main

import (
	"context"
	"os"

	"handoff"
)

func main() {
	h, err := handoff.Open()
	check(err)
	nothing := func(context.Context) error { return nil }
	h.OnDrain(nothing)
	h.OnSeal(func(context.Context) ([]uint64, error) { return nil, nil })
	h.OnResume(nothing)
	check(h.WaitForBegin(context.Background()))
	check(h.Ready(context.Background(), handoff.Readiness{}))
	_, err = h.Serve(context.Background())
	check(err)
	os.Exit(0)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
"#;

/// The same in C.
const C_DAEMON: &str = r"#include <handoff.h>
#include <unistd.h>
static void nothing(handoff *h, const handoff_event *e, void *user) { (void)user; handoff_done(h, e->id); }
static void seal(handoff *h, const handoff_event *e, void *user) { (void)user; handoff_sealed(h, e->id, NULL, 0); }
int main(void) {
    handoff *h;
    if (handoff_detect_role(NULL, &h, NULL, 0) < 0) return 1;
    handoff_on_drain(h, nothing, NULL, NULL);
    handoff_on_seal(h, seal, NULL, NULL);
    handoff_on_resume(h, nothing, NULL, NULL);
    if (handoff_wait_for_begin(h, -1) < 0 || handoff_announce_ready(h, NULL, -1) < 0) return 1;
    _exit(handoff_serve(h) < 0);
}
";

/// A program of one file, as a module that knows the binding.
fn build(dir: &Path, name: &str, source: &str) -> PathBuf {
    let module = dir.join(name);
    fs::create_dir(&module).unwrap();
    let binding = root().join(super::BINDING);
    let needs = format!("require handoff v0.0.0\nreplace handoff => {}\n", binding.display());
    fs::write(module.join("go.mod"), format!("module {name}\n\ngo 1.21\n\n{needs}")).unwrap();
    fs::write(module.join("main.go"), source).unwrap();
    build_go(name, module, ".", &[])
}

fn median<T: Ord + Copy>(mut samples: Vec<T>) -> T {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// Medians of pause and whole handoff, in microseconds.
fn handoffs(program: &Path) -> (u64, u64) {
    let service = Service::start(program);
    let samples: Vec<(u64, u64)> = (0..HANDOFFS)
        .map(|_| {
            let before = service.daemon_pid();
            let upgrade = service.upgrade(program, &[]);
            assert_eq!(upgrade.result, "committed", "{upgrade:?}");
            wait_for_death(before);
            let microseconds = |field: &str| upgrade.outcome[field].as_u64().unwrap() / 1000;
            (microseconds("pause_ns"), microseconds("total_ns"))
        })
        .collect();
    (median(samples.iter().map(|s| s.0).collect()), median(samples.iter().map(|s| s.1).collect()))
}

fn start_time(program: &Path) -> Duration {
    let start = || {
        let begin = Instant::now();
        assert!(Command::new(program).status().unwrap().success());
        begin.elapsed()
    };
    median((0..STARTS).map(|_| start()).collect())
}

#[test]
#[ignore = "a measurement: some seconds, on a machine that has nothing else to do"]
fn measure() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("noop.c");
    fs::write(&source, C_DAEMON).unwrap();
    let c = compile("noop", source.to_str().unwrap(), &[]);
    let go = build(dir.path(), "noop", DAEMON);
    for (language, program) in [("C", &c), ("Go", &go)] {
        let (pause, total) = handoffs(program);
        println!(
            "{language}, hooks that do nothing: pause {pause} us, whole handoff {total} us (medians of {HANDOFFS})"
        );
    }
    let plain = build(dir.path(), "plain", "package main\n\nfunc main() {}\n");
    let cgo = build(dir.path(), "withcgo", "package main\n\nimport \"C\"\n\nfunc main() {}\n");
    let linked = build(dir.path(), "linked", "package main\n\nimport _ \"handoff\"\n\nfunc main() {}\n");
    for (what, program) in [("plain Go", plain), ("with cgo", cgo), ("with handoff", linked)] {
        println!("start to end, {what}: {} us (median of {STARTS})", start_time(&program).as_micros());
    }
}
