//! docs/container.md: its entry points and its commands, in a root and in namespaces as a container has them.

use crate::harness::{Place, Run, signal, text, wait_until};
use crate::namespace::{can_unshare, init};
use crate::support::copy::copy_program;
use crate::support::{compile, library};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/container.md")).unwrap()
}

/// What the page has behind this word, as JSON: the one of this number.
fn words(instruction: &str, number: usize) -> Vec<String> {
    let page = page();
    let line = page.lines().filter_map(|line| line.strip_prefix(instruction)).nth(number).unwrap();
    serde_json::from_str(line).unwrap()
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pid1/container.sh")
}

/// Whether there can be one; as [`can_unshare`].
fn can_contain() -> bool {
    let place = Place::new();
    fs::create_dir(place.path("bin")).unwrap();
    fs::write(place.path("bin/file"), "").unwrap();
    let tried = Command::new(script()).arg("run").arg(place.dir.path()).arg("true").output();
    let can = can_unshare() && tried.is_ok_and(|output| output.status.success());
    if !can {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no container can be made, and CI=true");
        eprintln!("SKIPPED: no container can be made here: it needs root, and overlayfs");
    }
    can
}

/// A container with these files beside the program and the store.
fn container<'a>(place: &'a Place, options: &[&str], environment: &[&str], command: &[String]) -> Run<'a> {
    let bin = place.path("bin");
    fs::create_dir(&bin).unwrap();
    copy_program(env!("CARGO_BIN_EXE_handoff"), bin.join("handoff"));
    copy_program(compile("kv-a", "examples-c/kv.c", &["-DBUILD=\"a\""]), bin.join("kv"));
    copy_program(library(), bin.join("libhandoff.so.0"));
    let mark = place.handoff("none");
    let mark = mark.get_envs().find(|(name, _)| *name != "HANDOFF_RUNTIME_DIR").unwrap();
    let mut run = Command::new(script());
    run.arg("run").arg(place.dir.path()).args(options).args(["env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin"]);
    run.arg(format!("{}={}", mark.0.display(), mark.1.unwrap().display())).args(environment).args(command);
    run.env(mark.0, mark.1.unwrap()).stdin(Stdio::null()).stdout(Stdio::null());
    place.spawn(run)
}

/// A command in it: its exit code, and what it said.
fn execute(run: &Run<'_>, words: &[&str]) -> (i32, String) {
    let output = Command::new(script()).args(["exec", &init(run).to_string()]).args(words).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

/// The first service, when it runs.
fn running(run: &Run<'_>) -> Value {
    wait_until("it runs", || {
        let status: Value = serde_json::from_str(&execute(run, &["handoff", "status", "--json"]).1).ok()?;
        status["services"].get(0).filter(|service| service["state"] == "running" && service["linked"] == true).cloned()
    })
}

/// Who answers at the address of the page.
fn ping(run: &Run<'_>) -> String {
    execute(run, &["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7777; echo PING >&3; head -n 1 <&3"]).1
}

#[test]
fn one_daemon_is_upgraded_in_its_container() {
    if !can_contain() {
        return;
    }
    let place = Place::new();
    let command = [words("ENTRYPOINT ", 0), words("CMD ", 0)].concat();
    assert_eq!(command[..2], ["handoff", "run"]);
    let mut run = container(&place, &[], &[], &command);
    let first = running(&run);
    assert!(ping(&run).contains(" a"), "{}", ping(&run));
    // The page's own commands, with something that stands for Docker.
    copy_program(compile("kv-b", "examples-c/kv.c", &["-DBUILD=\"b\""]), place.path("kv-2"));
    std::os::unix::fs::symlink(script(), place.path("docker")).unwrap();
    let page = page();
    let block = page.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(block.contains("handoff upgrade"), "{block}");
    let mut shell = Command::new("bash");
    shell.args(["-ec", block]).current_dir(place.dir.path()).env("INIT", init(&run).to_string());
    shell.env("PATH", format!("{}:{}", text(place.dir.path()), std::env::var("PATH").unwrap()));
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let second = running(&run);
    assert!(first["pid"] != second["pid"] && second["generation"] == 2, "{second}");
    assert!(ping(&run).contains(" b"), "{}", ping(&run));

    let new = place.path("bin/handoff");
    assert!(shell_copies(&run, &new));
    assert_eq!(execute(&run, &["handoff", "self-upgrade"]).0, 0);
    assert_eq!(running(&run)["pid"], second["pid"]);
    signal(init(&run), Signal::SIGTERM);
    assert_eq!(run.end(), 0, "{}", run.stderr());
}

/// As `docker cp` and a rename do.
fn shell_copies(run: &Run<'_>, new: &Path) -> bool {
    let mut copy = Command::new(script());
    copy.arg("cp").arg(new).arg("CONTAINER:/usr/local/bin/handoff.new").env("INIT", init(run).to_string());
    copy.status().unwrap().success()
        && execute(run, &["mv", "/usr/local/bin/handoff.new", "/usr/local/bin/handoff"]).0 == 0
}

#[test]
fn many_have_a_health_that_is_seen_from_outside() {
    if !can_contain() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("etc")).unwrap();
    let units = "[unit.web]\nexec = ['kv']\nlisten = ['kv=0.0.0.0:7777']\ndata_dir = '/data'\n";
    fs::write(place.path("etc/handoff.toml"), units).unwrap();
    let mut run = container(&place, &[], &[], &words("ENTRYPOINT ", 1));
    running(&run);
    let page = page();
    let health = page.lines().find_map(|line| line.strip_prefix("HEALTHCHECK CMD ")).unwrap();
    assert_eq!(execute(&run, &["sh", "-c", health]).0, 0);
    assert_eq!(execute(&run, &["handoff", "stop", "web"]).0, 0);
    assert_ne!(execute(&run, &["sh", "-c", health]).0, 0);
    signal(init(&run), Signal::SIGTERM);
    assert_eq!(run.end(), 0, "{}", run.stderr());
}

#[test]
fn read_only_and_not_root() {
    if !can_contain() {
        return;
    }
    let page = page();
    let line = page.lines().find(|line| line.starts_with("docker run --read-only")).unwrap();
    let environment = line.split(" -e ").nth(1).unwrap().split(' ').next().unwrap();
    let place = Place::new();
    let command = [words("ENTRYPOINT ", 0), words("CMD ", 0)].concat();
    let mut run = container(&place, &["--read-only"], &[environment], &command);
    let as_user = |words: &[&str]| {
        execute(
            &run,
            &[&["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "env", environment], words].concat(),
        )
    };
    let service = wait_until("it runs", || {
        let status: Value = serde_json::from_str(&as_user(&["handoff", "status", "--json"]).1).ok()?;
        status["services"].get(0).filter(|service| service["linked"] == true).cloned()
    });
    assert!(as_user(&["touch", "/usr/local/bin/x"]).1.contains("Read-only"));
    for (what, words) in [("upgrade", ["handoff", "upgrade"]), ("self-upgrade", ["handoff", "self-upgrade"])] {
        let (code, said) = as_user(&words);
        assert_eq!(code, 0, "{what}: {said}");
    }
    assert!(ping(&run).contains(" a") && service["pid"].is_i64());
    signal(init(&run), Signal::SIGTERM);
    assert_eq!(run.end(), 0, "{}", run.stderr());
}
