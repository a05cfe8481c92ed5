//! Starting processes, and failing to.

use crate::support::{LONG, Service, children, wait_until};
use handoff::supervisor::{Event, SpawnSpec, Stream, Supervisor, Verdict};
use handoff::sys::pidfd::Pidfd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file of this mode.
fn file(dir: &Path, name: &str, mode: u32, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// Programs that can not be executed, and a word of why.
fn bad_programs(dir: &Path) -> Vec<(PathBuf, &'static str)> {
    // An ELF header for a machine that nobody has.
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 0xfe, 0xca]);
    elf.resize(4096, 0);
    vec![
        (dir.join("missing"), "o such file"),
        (file(dir, "plain", 0o644, b"#!/bin/sh\n"), "chmod +x"),
        (dir.to_owned(), "directory"),
        (file(dir, "foreign", 0o755, &elf), "wrong architecture"),
        (file(dir, "script", 0o755, b"#!/no/such/interpreter\n"), "/no/such/interpreter"),
    ]
}

#[test]
fn a_linked_daemon_starts_cold() {
    let mut service = Service::new();
    assert_eq!(service.s().status().phase, "idle");
    let outcome = service.hand_off("normal");
    assert_eq!(outcome.verdict, Verdict::StartedCold, "{}", outcome.reason);
    assert!(outcome.started() && !outcome.committed());
    assert_eq!((outcome.id, outcome.generation, outcome.reason.as_str()), (0, 1, ""));
    assert!(outcome.total_ns > 0 && outcome.pidfd.is_some());
    let status = service.s().status();
    assert_eq!((status.pid, status.generation), (Some(outcome.pid), 1));
    assert!(status.linked && status.serving && service.s().supports_handoff());
}

#[test]
fn a_daemon_that_does_not_link_starts_cold_and_can_not_be_replaced() {
    let mut service = Service::new();
    let sleep = SpawnSpec::new(["sleep", "1000"]).hello_timeout(Duration::from_millis(50));
    let outcome = service.s().perform_handoff(&sleep).unwrap();
    assert_eq!(outcome.verdict, Verdict::StartedCold);
    let status = service.s().status();
    assert!(!status.linked && !status.serving && status.pid == Some(outcome.pid));
    let refused = service.s().perform_handoff(&sleep).unwrap();
    assert_eq!(refused.verdict, Verdict::Refused);
    assert!(refused.reason.contains("never said Hello"), "{}", refused.reason);
    assert_eq!(refused.pid, outcome.pid);
    assert_eq!(children(), [(outcome.pid, false)]);
}

#[test]
fn a_program_that_can_not_be_executed_fails_the_cold_start() {
    let mut service = Service::new();
    let dir = service.dir.path().to_owned();
    for (program, why) in bad_programs(&dir) {
        let outcome = service.s().perform_handoff(&SpawnSpec::new([&program])).unwrap();
        assert_eq!((outcome.verdict, outcome.pid), (Verdict::Failed, 0), "{}", program.display());
        assert!(outcome.reason.contains(why), "{}", outcome.reason);
        assert_eq!(children(), []);
    }
    let outcome = service.hand_off("normal");
    assert_eq!(outcome.verdict, Verdict::StartedCold);
}

#[test]
fn a_loop_around_hears_of_what_failed_at_once() {
    let mut service = Service::new();
    let missing = SpawnSpec::new(["/no/such/program"]);
    service.s().start(&missing).unwrap();
    let supervisor = service.s();
    let mut entry = [PollFd::new(supervisor.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut entry, PollTimeout::from(60_000_u16)), Ok(1));
    assert!(supervisor.next_due().is_some());
    let events = supervisor.turn(None).unwrap();
    let failed =
        |event: &Event| matches!(event, Event::Outcome(outcome) if outcome.errno.is_none() && outcome.pid == 0);
    assert!(events.iter().any(failed), "{events:?}");
}

#[test]
fn a_program_that_can_not_be_executed_disturbs_nobody() {
    let mut service = Service::new();
    let first = service.hand_off("normal");
    let dir = service.dir.path().to_owned();
    for (program, why) in bad_programs(&dir) {
        let spec = service.peer("normal").binary(&program);
        let outcome = service.s().perform_handoff(&spec).unwrap();
        assert_eq!((outcome.verdict, outcome.pid), (Verdict::Refused, first.pid), "{}", program.display());
        assert!(outcome.reason.contains(why), "{}", outcome.reason);
    }
    let nowhere = service.peer("normal").working_dir(dir.join("nowhere"));
    assert_eq!(service.s().perform_handoff(&nowhere).unwrap().verdict, Verdict::Refused);
    let reserved = service.peer("normal").env("HANDOFF_ROLE", "successor");
    assert_eq!(service.s().perform_handoff(&reserved).unwrap().verdict, Verdict::Refused);
    assert_eq!(children(), [(first.pid, false)]);
    assert!(service.s().supports_handoff());
    assert_eq!(fs::read_to_string(dir.join("log")).unwrap().lines().count(), 1, "nobody else ran");
}

#[test]
fn a_daemon_that_dies_at_its_start_is_told_with_its_status() {
    let mut service = Service::new();
    for (script, status) in [("die-hello", "exit status 3"), ("kill-serving", "killed by signal 9 (SIGKILL)")] {
        let outcome = service.hand_off(script);
        assert_eq!((outcome.verdict, outcome.pid), (Verdict::Failed, 0));
        assert!(outcome.reason.contains(status), "{}", outcome.reason);
        assert_eq!(children(), []);
    }
    let spec = service.peer("hang-serving").deadline(Duration::from_millis(50));
    let outcome = service.s().perform_handoff(&spec).unwrap();
    assert_eq!(outcome.verdict, Verdict::Undecided);
    assert!(matches!(service.s().perform_handoff(&spec), Err(handoff::Error::Busy(_))));
}

#[test]
fn a_death_in_between_is_an_event_and_the_restart_is_the_callers() {
    let mut service = Service::new();
    let first = service.hand_off("normal");
    assert!(service.s().restart_cold().is_err(), "it runs");
    service.s().signal(Signal::SIGKILL as i32).unwrap();
    let died = |events: &[Event]| events.iter().any(|event| matches!(event, Event::Exited { .. }));
    let events = service.turn_until("the death", |_, events| died(events));
    let exited = events.iter().find_map(|event| match event {
        Event::Exited { pid, generation, status, text } => {
            Some((*pid, *generation, status.unwrap().signal, text.as_str()))
        }
        _ => None,
    });
    assert_eq!(exited, Some((first.pid, 1, Some(9), "killed by signal 9 (SIGKILL)")));
    assert_eq!(service.s().status().pid, None);
    assert!(service.s().signal(15).is_err());
    service.s().restart_cold().unwrap();
    let (second, _) = service.outcome();
    assert_eq!((second.verdict, second.generation), (Verdict::StartedCold, 2));
    // The blocking form sees by itself that nobody is left.
    let pidfd = Pidfd::from_fd(second.pidfd.unwrap()).unwrap();
    service.s().signal(9).unwrap();
    wait_until("the death", || pidfd.is_dead());
    assert_eq!(service.hand_off("normal").verdict, Verdict::StartedCold);
}

#[test]
fn listeners_environment_and_directory_reach_the_daemon() {
    let mut service = Service::with(|supervisor, _| {
        let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
        supervisor.with_listener("web", listener()).unwrap().with_listener("admin", listener()).unwrap()
    });
    assert_eq!(service.s().listeners().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(), ["web", "admin"]);
    let out = service.dir.path().join("out");
    let script = format!("echo $$ >{0}; env >>{0}; pwd >>{0}; ls /proc/self/fd >>{0}; exec sleep 1000", out.display());
    let spec = SpawnSpec::new(["sh", "-c", &script])
        .env("MINE", "yes")
        .control_path("/run/x.control")
        .data_dir("/data")
        .working_dir("/usr")
        .hello_timeout(Duration::from_millis(300));
    let outcome = service.s().perform_handoff(&spec).unwrap();
    wait_until("the script", || fs::read_to_string(&out).is_ok_and(|text| text.ends_with("5\n6\n")));
    let text = fs::read_to_string(&out).unwrap();
    let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    has(&format!("LISTEN_PID={}", outcome.pid));
    let ours = ["LISTEN_FDS=2", "LISTEN_FDNAMES=web:admin", "HANDOFF_SOCK_FD=5", "MINE=yes", "/usr"];
    ours.into_iter().chain(["HANDOFF_CONTROL=/run/x.control", "HANDOFF_DATA_DIR=/data"]).for_each(has);
    assert!(!text.contains("HANDOFF_ROLE"));
}

#[test]
fn without_listeners_nothing_is_said_of_them() {
    let mut service = Service::new();
    let out = service.dir.path().join("out");
    let script = format!("env >{0}; echo end >>{0}; exec sleep 1000", out.display());
    let spec = SpawnSpec::new(["sh", "-c", &script]).hello_timeout(Duration::from_millis(50));
    service.s().perform_handoff(&spec).unwrap();
    wait_until("the script", || fs::read_to_string(&out).is_ok_and(|text| text.ends_with("end\n")));
    let text = fs::read_to_string(&out).unwrap();
    assert!(text.contains("HANDOFF_SOCK_FD=3\n") && !text.contains("LISTEN_"), "{text}");
}

#[test]
fn output_is_captured_and_outlives_nobody() {
    let mut service = Service::new();
    let dir = service.dir.path().join("logs");
    fs::create_dir(&dir).unwrap();
    let spec = SpawnSpec::new(["sh", "-c", "echo out; echo one >&2; sleep 0.01; echo two >&2; exit 4"]);
    service.s().start(&spec.capture_stderr(&dir)).unwrap();
    let (outcome, events) = service.outcome();
    assert!(outcome.reason.ends_with("exit status 4; its last output: one\ntwo"), "{}", outcome.reason);
    assert_eq!(
        (output(&events, Stream::Stderr), output(&events, Stream::Stdout)),
        ("one\ntwo\n".into(), String::new())
    );
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);

    let script = "echo out; echo err >&2; exec sleep 1000";
    let spec = SpawnSpec::new(["sh", "-c", script]).capture_output(&dir).hello_timeout(LONG);
    service.s().start(&spec).unwrap();
    let wanted = [(Stream::Stdout, "out\n"), (Stream::Stderr, "err\n")];
    service.turn_until("the output", |_, events| wanted.iter().all(|(stream, text)| output(events, *stream) == *text));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "a file for each stream, and how far they were read");
    let missing = SpawnSpec::new(["true"]).capture_stderr(dir.join("missing"));
    assert!(matches!(service.s().start(&missing), Err(handoff::Error::Busy(_))));
}

fn output(events: &[Event], wanted: Stream) -> String {
    let bytes = events.iter().filter_map(|event| match event {
        Event::Output { bytes, stream, .. } if *stream == wanted => Some(bytes.as_slice()),
        _ => None,
    });
    String::from_utf8(bytes.collect::<Vec<_>>().concat()).unwrap()
}

#[test]
fn a_journal_that_can_not_be_written_refuses_the_start() {
    let mut service = Service::with(|supervisor, dir| supervisor.with_journal(dir.path().join("none/test.journal")));
    let outcome = service.hand_off("normal");
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert!(outcome.reason.contains("no journal: cannot write"), "{}", outcome.reason);
    assert_eq!(children(), []);
}

#[test]
fn the_journal_finds_who_lives() {
    let mut service = Service::with(|supervisor, dir| supervisor.with_journal(dir.path().join("test.journal")));
    let path = service.dir.path().join("test.journal");
    let spec = service.peer("normal");
    assert!(service.s().resume_from_journal(&spec).unwrap().is_none());
    let first = service.hand_off("outlive");
    drop(service.supervisor.take());
    let mut next = Supervisor::new().unwrap().with_journal(&path);
    let refusal = next.resume_from_journal(&spec).unwrap_err();
    assert!(matches!(refusal, handoff::Error::Locked(_)));
    assert!(refusal.to_string().contains(&format!("process {}", first.pid)), "{refusal}");
    service.wait_for_log("no supervisor");
    assert_eq!(children(), [(first.pid, false)], "it lives on");
    let pidfd = Pidfd::from_fd(first.pidfd.unwrap()).unwrap();
    pidfd.kill(Signal::SIGKILL).unwrap();
    wait_until("the death", || pidfd.is_dead());
    let mut next = Supervisor::new().unwrap().with_journal(&path);
    assert!(next.resume_from_journal(&spec).unwrap().is_none());
}

/// Whoever is killed just behind the take-over leaves a journal that tells of the sockets.
#[test]
fn the_first_journal_behind_a_take_over_has_the_listeners() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut service = Service::with(|supervisor, dir| {
        supervisor.with_journal(dir.path().join("test.journal")).with_listener("kv", listener).unwrap()
    });
    let path = service.dir.path().join("test.journal");
    let sleep = SpawnSpec::new(["sleep", "1000"]).hello_timeout(Duration::from_millis(50));
    let sleep = sleep.control_path(service.dir.path().join("control"));
    assert_eq!(service.s().perform_handoff(&sleep).unwrap().verdict, Verdict::StartedCold);
    let listeners = || {
        let text = fs::read_to_string(&path).unwrap();
        text.lines().filter(|line| line.starts_with("listener=")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = listeners();
    assert_eq!(before.len(), 1);
    drop(service.supervisor.take());
    let mut next = Supervisor::new().unwrap().with_journal(&path);
    assert!(next.resume_from_journal(&sleep).unwrap().is_none());
    assert!(next.listeners().map(|(name, _)| name).eq(["kv"]));
    assert_eq!(listeners(), before);
}
