//! What the README shows is compiled and run as it stands.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use support::go::{build_go, have_go, root};
use support::python::Python;
use support::{Service, compile, library, wait_for_death, wait_until};

/// The text of the only block of this language.
fn block(language: &str) -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let opening = format!("```{language}\n");
    let mut blocks = readme.split(&opening).skip(1);
    let text = blocks.next().unwrap().split("```").next().unwrap().to_owned();
    assert!(blocks.next().is_none(), "more than one block of {language}");
    text
}

/// Replaced three times. `build` is what it says of itself, if it answers at all; `end` what `handoff run` ends with.
fn replaced_and_stopped(program: &Path, listen: &[&str], build: Option<&str>, end: i32) {
    let mut service = Service::start_with(program, listen);
    for _ in 0..3 {
        let before = service.daemon_pid();
        assert_eq!(service.upgrade(program, &[]).result, "committed");
        wait_for_death(before);
        if let Some(build) = build {
            let (pid, answered) = wait_until("an answer", || service.ping());
            assert_eq!((pid, answered.as_str()), (service.daemon_pid(), build));
        }
    }
    assert_eq!(service.stop(), Some(end), "{}", service.stderr());
}

#[test]
fn the_daemon_in_c_can_be_replaced_and_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("daemon.c");
    fs::write(&source, block("c")).unwrap();
    let program = compile("readme", source.to_str().unwrap(), &[]);
    replaced_and_stopped(&program, &[], None, 0);
}

#[test]
fn the_connection_of_the_shell_lives_on() {
    let cache = compile("cache", "examples-c/cache.c", &[]);
    let service = Service::start_with(&cache, &["--listen", "cache=127.0.0.1:0"]);
    let before = service.daemon_pid();
    let status = service.status().unwrap();
    let listeners = status["listeners"].as_array().unwrap();
    let address = listeners.iter().find(|listener| listener["name"] == "cache").unwrap()["address"].as_str().unwrap();
    let program =
        format!("{} upgrade --name kv --runtime-dir {}", service.handoff.display(), service.path("run").display());
    let script = block("bash").replace("127.0.0.1/7070", &address.replace(':', "/"));
    let script = script.replace("target/release/handoff upgrade", &format!("{program} >/dev/null"));
    let output = service.other_command("bash").args(["-e", "-c", &script]).output().unwrap();
    let (said, complained) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    let after = service.daemon_pid();
    assert_ne!(before, after, "{said}{complained}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["STORED", "VALUE hello"], "{said}{complained}");
    assert!(lines[2].starts_with(&format!("STAT pid {after} ")), "{said}");
}

#[test]
fn the_daemon_in_rust_can_be_replaced_and_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("daemon.rs"), dir.path().join("daemon"));
    fs::write(&source, block("rust")).unwrap();
    // What cargo has built for this test: the library, and what it stands on.
    let built = library().with_file_name("");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    rustc.args(["--edition", "2024", "-D", "warnings", "--extern"]);
    rustc.arg(format!("handoff={}", built.join("libhandoff.rlib").display())).arg("-L").arg(&built);
    let output = rustc.arg("-o").arg(&program).arg(&source).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    replaced_and_stopped(&program, &[], Some("rust"), 128 + 15);
}

#[test]
fn the_daemon_in_go_can_be_replaced_and_stopped() {
    if !have_go() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let binding = root().join("bindings/go");
    let module =
        format!("module readme\n\ngo 1.21\n\nrequire handoff v0.0.0\nreplace handoff => {}\n", binding.display());
    fs::write(dir.path().join("go.mod"), module).unwrap();
    fs::write(dir.path().join("main.go"), block("go")).unwrap();
    let program = build_go("readme", dir.path(), ".", &[]);
    replaced_and_stopped(&program, &["--listen", "http=127.0.0.1:0"], None, 0);
}

#[test]
fn the_daemon_in_python_can_be_replaced_and_stopped() {
    let Some(python) = Python::find() else { return };
    let source = python.dir.path().join("daemon.py");
    fs::write(&source, block("python")).unwrap();
    let program = python.daemon("daemon", source.to_str().unwrap(), "");
    replaced_and_stopped(&program, &[], Some("python"), 0);
}
