//! `handoff demo`: its numbers, and that nothing is left of it.

#![cfg(feature = "program")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// All processes of a demo carry this variable.
const MARK: &str = "DEMO_TEST_MARK";
/// The demo promises it.
const MINUTE: Duration = Duration::from_secs(60);

/// A demo with files of its own.
struct Demo {
    child: Child,
    files: TempDir,
}

impl Demo {
    fn start(options: &[&str]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_handoff"))
            .arg("demo")
            .args(options)
            .env("TMPDIR", files.path())
            .env(MARK, files.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, files }
    }

    /// Waits for its end, and checks what is left.
    fn finish(self) -> Output {
        let Self { child, files } = self;
        let output = child.wait_with_output().unwrap();
        let left = processes(files.path());
        for pid in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL); // it may end by itself meanwhile
        }
        let seen = format!("{output:?}");
        assert!(left.is_empty(), "processes {left:?} are left: {seen}");
        let entries = fs::read_dir(files.path()).unwrap().count();
        assert_eq!(entries, 0, "files are left in {}: {seen}", files.path().display());
        output
    }
}

/// Whoever carries the mark, zombies not counted.
fn processes(mark: &Path) -> Vec<i32> {
    let line = format!("{MARK}={}", mark.display());
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let marked = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == line.as_bytes())
    };
    pids.filter(marked).collect()
}

#[test]
fn nothing_fails_and_nothing_is_lost() {
    let began = Instant::now();
    let output = Demo::start(&["--json"]).finish();
    assert!(began.elapsed() < MINUTE, "{:?}", began.elapsed());
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let result: Value = serde_json::from_str(&text).unwrap();
    let number = |name: &str| result[name].as_u64().unwrap_or_else(|| panic!("{name}: {text}"));
    assert_eq!((number("replacements"), number("committed"), number("rolled_back")), (12, 9, 3));
    assert_eq!((number("failed_requests"), number("lost_writes")), (0, 0));
    assert!(number("requests") > 100, "{text}");
    // Each client that keeps its connection goes with it to each successor that commits.
    assert_eq!(number("closed_connections"), 0);
    assert!(number("transferred_connections") >= 9, "{text}");
    for name in ["stall_ms", "pause_us", "handoff_us"] {
        let spread = |of: &str| result[name][of].as_f64().unwrap_or_else(|| panic!("{name}.{of}: {text}"));
        assert!(0.0 < spread("p50") && spread("p50") <= spread("max"), "{name}: {text}");
    }
    // Nobody accepts only for a part of the handoff.
    assert!(result["pause_us"]["max"].as_f64() < result["handoff_us"]["max"].as_f64(), "{text}");
    let faults: Vec<&str> =
        result["not_committed"].as_array().unwrap().iter().filter_map(|bad| bad["fault"].as_str()).collect();
    assert_eq!(faults, ["crash", "hang", "lost-write"]);
}

#[test]
fn a_pipe_gets_a_line_for_each_replacement() {
    let output = Demo::start(&["--replacements", "4", "--clients", "2"]).finish();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!text.contains('\x1b'), "{text}");
    for (number, what) in [(1, "good"), (2, "crashes"), (3, "hangs"), (4, "loses a write")] {
        let wanted = format!("{number}  {what}");
        assert!(text.lines().any(|line| line.trim_start().starts_with(&wanted)), "{wanted}: {text}");
    }
}

/// `4.2 ms` in nanoseconds, from the first two of these words.
fn nanoseconds<'a>(mut words: impl Iterator<Item = &'a str>) -> f64 {
    let (number, unit) = (words.next().unwrap(), words.next().unwrap());
    let unit_ns = match unit {
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        _ => 1e9,
    };
    number.parse::<f64>().unwrap() * unit_ns
}

#[test]
fn no_row_shows_more_than_the_summary() {
    let output = Demo::start(&["--replacements", "8"]).finish();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = |line: &'static str| move |found: &&str| found.trim_start().starts_with(line);
    let summary = text.lines().find(words("stall ")).unwrap();
    let most = nanoseconds(summary.split_whitespace().skip(3));
    let stalls: Vec<f64> = text
        .lines()
        .filter(|line| line.contains(" committed  "))
        .filter_map(|line| Some(nanoseconds(line.split_once("  stall ")?.1.split_whitespace())))
        .collect();
    assert_eq!(stalls.len(), 5, "{text}");
    assert!(stalls.iter().all(|stall| *stall > 0.0 && *stall <= most), "{text}");
}

#[test]
fn interrupted_it_leaves_nothing_behind() {
    // In the first seconds there is a cold start, a commit, a crash, and a build that hangs.
    for after_ms in [0, 30, 100, 400, 900, 1400, 2100] {
        let demo = Demo::start(&["--json", "--replacements", "4"]);
        std::thread::sleep(Duration::from_millis(after_ms));
        let pid = Pid::from_raw(i32::try_from(demo.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let output = demo.finish();
        // At first it is not even ready to take signals.
        let code = output.status.code();
        assert!(code == Some(128 + 15) || after_ms < 500 && code.is_none(), "after {after_ms} ms: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}
