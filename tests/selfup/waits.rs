//! Asked while a handoff is under way: it waits for its end, and disturbs nothing.

use crate::harness::text;
use crate::support::copy::copy_program;
use crate::support::{Service, Upgrading, programs, wait_until};
use crate::versions::{another_version, change};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A store, and a handoff of it that stands still in the successor, until [`end`].
fn in_the_midst() -> (Service, Upgrading) {
    let service = Service::start(&programs().kv_a);
    let upgrading = service.begin_upgrade(&service.faulty("open-waits"), &[]);
    wait_until("the successor opens", || service.path("data/opening").exists().then_some(()));
    (service, upgrading)
}

fn end(service: &Service) {
    fs::remove_file(service.path("data/opening")).unwrap();
}

fn ask(service: &Service, program: &Path, timeout: &str) -> Command {
    let mut command = service.command("self-upgrade");
    command.args(["--json", "--timeout", timeout]).arg(program).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Its exit code, and its outcome.
fn answer(asked: Child) -> (Option<i32>, Value) {
    let output = asked.wait_with_output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// The program under another name.
fn other(service: &Service) -> std::path::PathBuf {
    let path = service.path("other-handoff");
    copy_program(&service.handoff, &path);
    path
}

/// Waits until one is under way, as another one is refused.
fn wait_until_asked(service: &Service) {
    wait_until("the first one waits", || {
        // If this one comes first it is over at once, and is in nobody's way.
        let (code, outcome) = answer(ask(service, Path::new("/bin/true"), "0s").spawn().unwrap());
        let reason = outcome["reason"].as_str().unwrap_or_default().to_owned();
        (code == Some(13) && reason == "busy: a self-upgrade is under way; try again").then_some(())
    });
}

#[test]
fn it_waits_for_the_end_of_a_handoff() {
    let (service, upgrading) = in_the_midst();
    let (incumbent, other) = (service.daemon_pid(), other(&service));
    let successor = service.successor_of(incumbent);
    let asked = ask(&service, &other, "60s").spawn().unwrap();
    wait_until_asked(&service);
    let status = service.status().unwrap();
    assert_eq!((&status["phase"], service.daemon_pid()), (&"opening".into(), incumbent), "{status}");
    assert_ne!(crate::executes(service.supervisor_pid()), other, "not yet");
    end(&service);
    let upgrade = upgrading.wait();
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{}", upgrade.reason);
    let (code, outcome) = answer(asked);
    assert_eq!((code, outcome["result"].as_str()), (Some(0), Some("committed")), "{outcome}");
    assert_eq!((crate::executes(service.supervisor_pid()), service.wait_until_served()), (other, successor));
}

#[test]
fn it_gives_up_when_the_handoff_takes_too_long() {
    let (service, upgrading) = in_the_midst();
    let (incumbent, before) = (service.daemon_pid(), crate::executes(service.supervisor_pid()));
    let successor = service.successor_of(incumbent);
    // At once, and after a while.
    for timeout in ["0s", "300ms"] {
        let (code, outcome) = answer(ask(&service, &other(&service), timeout).spawn().unwrap());
        assert_eq!((code, outcome["result"].as_str()), (Some(5), Some("timed_out")), "{outcome}");
        assert_eq!(outcome["reason"], "busy: kv: a handoff is under way", "{outcome}");
    }
    // One that asks, and does not wait for the answer, has asked for nothing.
    let mut asked = ask(&service, &other(&service), "60s").spawn().unwrap();
    wait_until_asked(&service);
    asked.kill().unwrap();
    asked.wait().unwrap();
    wait_until("it is given up", || service.stderr().contains("self-upgrade: given up").then_some(()));
    let status = service.status().unwrap();
    assert_eq!((&status["phase"], service.daemon_pid()), (&"opening".into(), incumbent), "{status}");
    end(&service);
    let upgrade = upgrading.wait();
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{}", upgrade.reason);
    assert_eq!((crate::executes(service.supervisor_pid()), service.wait_until_served()), (before, successor));
    let (code, outcome) = answer(ask(&service, &other(&service), "60s").spawn().unwrap());
    assert_eq!(code, Some(0), "{outcome}");
}

/// A stop undoes the handoff, and the self-upgrade that waits for its end.
#[test]
fn it_is_refused_when_all_is_stopped_meanwhile() {
    let (mut service, upgrading) = in_the_midst();
    let asked = ask(&service, &other(&service), "60s").spawn().unwrap();
    wait_until_asked(&service);
    assert_eq!(service.stop(), Some(0));
    let (code, outcome) = answer(asked);
    assert_eq!((code, outcome["result"].as_str()), (Some(13), Some("refused")), "{outcome}");
    assert_eq!(outcome["reason"], "the supervisor is being stopped", "{outcome}");
    assert_eq!(upgrading.wait().result, "rolled_back");
}

/// Between its trial and its turn a handoff may come.
#[test]
fn what_was_tried_is_what_is_executed() {
    let mut service = Service::place();
    let (script, program) = another_version(service.dir.path());
    service.environment.push(("ANOTHER_VERSION", script));
    service.launch(&programs().kv_a, &[]);
    let fifo = service.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    change(service.dir.path(), &["wait", text(&fifo)]);
    let asked = ask(&service, &program, "60s").spawn().unwrap();
    // Opened when it is opened there.
    let trial = fs::File::options().write(true).open(&fifo).unwrap();
    let upgrading = service.begin_upgrade(&service.faulty("open-waits"), &[]);
    wait_until("the successor opens", || service.path("data/opening").exists().then_some(()));
    drop(trial);
    let tries = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.windows(17).any(|part| part == b"handoff-preflight"))
    };
    wait_until("the trial is over", || {
        (!crate::support::marked(service.dir.path().to_str().unwrap()).iter().any(tries)).then_some(())
    });
    (0..10).for_each(|_| drop(service.status()));
    fs::File::options().append(true).open(&program).unwrap().write_all(b"x").unwrap();
    end(&service);
    assert_eq!(upgrading.wait().code, 0);
    let (code, outcome) = answer(asked);
    assert_eq!(code, Some(13), "{outcome}");
    assert!(outcome["reason"].as_str().unwrap().contains("was written to meanwhile"), "{outcome}");
    assert_eq!(crate::executes(service.supervisor_pid()), service.handoff);
}
