//! The C suites under the sanitizers of gcc and clang, and under valgrind.

use crate::compiled::hosted::Hosted;
use crate::compiled::{expect_success, have, passed, program, program_by, root};
use handoff::Verdict;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

const ADDRESSES: [&str; 4] =
    ["-std=c11", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
const THREADS: [&str; 2] = ["-std=c11", "-fsanitize=thread"];

/// Programs that need no supervisor.
const ALONE: [&str; 3] = ["abuse", "misuse_calls", "misuse_threads"];

fn source(name: &str) -> String {
    format!("ffi-tests/c/{name}.c")
}

/// Whether this compiler has the sanitizer's library, which may be a package of its own.
fn has_sanitizers(compiler: &str) -> bool {
    if !have(compiler) {
        return false;
    }
    let library = if compiler == "clang" { "libclang_rt.tsan-x86_64.a" } else { "libtsan.so" };
    let found = Command::new(compiler).arg(format!("-print-file-name={library}")).output().unwrap();
    let there = Path::new(String::from_utf8_lossy(&found.stdout).trim()).is_absolute() || !cfg!(target_arch = "x86_64");
    assert!(there || std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{compiler} has no {library}, and CI=true");
    if !there {
        eprintln!("SKIPPED: {compiler} has no {library}");
    }
    there
}

fn run(tool: &[&OsStr], program: &Path, arguments: &[&str]) {
    let data = tempfile::tempdir().unwrap();
    let mut command = Command::new("timeout");
    command.arg("300").args(tool).arg(program).arg(data.path()).args(arguments);
    // Calls of the library, which is not instrumented, are not looked at: its locks would not be seen either.
    expect_success(command.env("TSAN_OPTIONS", "ignore_noninstrumented_modules=1"));
}

/// Handoffs between daemons of these suites, run by a tool or not.
fn handoffs(tool: &[&OsStr], hooks: &Path, states: &Path) {
    for (scenario, verdict, last) in [
        ("answers", Verdict::Committed, "successor"),
        ("fork", Verdict::Committed, "successor"),
        ("silent", Verdict::RolledBack, "silent"),
        ("fails", Verdict::RolledBack, "fails"),
    ] {
        if scenario == "fork" && !tool.is_empty() {
            continue; // what a child can not free, since its threads are not there, is a leak for valgrind
        }
        let mut service = Hosted::start_by(tool, hooks, scenario);
        service.expect("successor", verdict);
        if verdict == Verdict::Committed {
            service.wait_for(&format!("{scenario}: 0, 0 failures"));
        }
        service.stop();
        service.wait_for(&format!("{last}: 0, 0 failures"));
        service.expect_no_complaint();
    }
    for scenario in ["poll", "hooks"] {
        let mut service = Hosted::start_by(tool, states, scenario);
        service.expect("quits", Verdict::RolledBack);
        service.expect("waits", Verdict::Committed);
        service.expect_end(scenario);
        service.wait_for("the successor has looked");
        service.stop();
        service.expect_end("waits");
    }
}

fn addresses(compiler: &str) {
    if !has_sanitizers(compiler) {
        return;
    }
    let compile = |name: &str| program_by(compiler, &format!("{name}-{compiler}-asan"), &source(name), &ADDRESSES);
    ALONE.iter().for_each(|name| run(&[], &compile(name), &[]));
    handoffs(&[], &compile("hooks"), &compile("misuse_states"));
    passed(&format!("address and undefined behaviour sanitizers, {compiler}"));
}

#[test]
fn addresses_and_behaviour_by_gcc() {
    addresses("gcc");
}

#[test]
fn addresses_and_behaviour_by_clang() {
    addresses("clang");
}

#[test]
fn races_of_threads() {
    for compiler in ["gcc", "clang"] {
        if has_sanitizers(compiler) {
            let name = format!("misuse_threads-{compiler}-tsan");
            run(&[], &program_by(compiler, &name, &source("misuse_threads"), &THREADS), &["no children"]);
            passed(&format!("thread sanitizer, {compiler}"));
        }
    }
}

#[test]
fn every_suite_under_valgrind() {
    if !have("valgrind") {
        return;
    }
    let logs = tempfile::tempdir().unwrap();
    let log = format!("--log-file={}/%p", logs.path().display());
    let suppressions = format!("--suppressions={}", root().join("ffi-tests/valgrind.supp").display());
    let tool = [
        "valgrind",
        "--quiet",
        "--error-exitcode=99",
        "--leak-check=full",
        "--show-leak-kinds=definite",
        "--errors-for-leak-kinds=definite",
    ];
    let tool: Vec<&OsStr> = tool.into_iter().chain([&*suppressions, &*log]).map(OsStr::new).collect();
    let compile = |name: &str| program(&format!("{name}-valgrind"), &source(name), &["-std=c11"]);
    ALONE.iter().for_each(|name| run(&tool, &compile(name), &[]));
    handoffs(&tool, &compile("hooks"), &compile("misuse_states"));
    // Also of those whose exit code only the supervisor saw.
    let said = fs::read_dir(logs.path()).unwrap().map(|log| fs::read_to_string(log.unwrap().path()).unwrap());
    let said = said.collect::<String>();
    // What begins with "--" are its own remarks: system calls that it does not know.
    assert!(!said.lines().any(|line| line.starts_with("==")), "{said}");
    passed("valgrind, every suite");
}
