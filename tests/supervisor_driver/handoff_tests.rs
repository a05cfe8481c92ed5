//! Handoffs, and all that can happen to them.

use crate::support::{LONG, Service, children, open_descriptors, wait_until};
use handoff::limits::RESERVE_SILENCE;
use handoff::supervisor::{Event, OnIncumbentDeath, Supervisor, Verdict};
use handoff::sys::pidfd::Pidfd;
use nix::sys::signal::Signal;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const SOON: Duration = Duration::from_millis(100);

#[test]
fn a_handoff_commits_and_tells_its_times() {
    let mut service = Service::new();
    let first = service.hand_off("normal");
    let outcome = service.hand_off("normal");
    assert!(outcome.committed(), "{}", outcome.reason);
    assert!(outcome.id > 0 && outcome.pid != first.pid);
    assert_eq!((outcome.generation, outcome.reason.as_str()), (2, ""));
    let steps = [outcome.warm_ns, outcome.drain_ns, outcome.seal_ns, outcome.ready_ns, outcome.pause_ns];
    assert!(steps.iter().all(|ns| (1..outcome.total_ns).contains(ns)), "{outcome:?}");
    assert!(!Pidfd::from_fd(outcome.pidfd.unwrap()).unwrap().is_dead());

    let spec = service.peer("normal");
    let third = service.s().perform_handoff(&spec).unwrap();
    assert!(third.committed() && third.id > outcome.id && third.generation == 3);
    let json = serde_json::to_value(&third).unwrap();
    assert_eq!((&json["result"], &json["pid"]), (&"committed".into(), &third.pid.into()));
    assert!(json["pause_ns"].as_u64().unwrap() > 0 && json["handoff_id"] == third.id);
    service.turn_until("the end of the second", |_, _| children() == [(third.pid, false)]);
    let status = service.s().status();
    assert_eq!((status.phase, status.pid, status.generation), ("idle", Some(third.pid), 3));
}

#[test]
fn the_form_that_does_not_block_shows_every_phase() {
    let mut service = Service::new();
    let spec = service.peer("normal");
    service.s().start(&spec).unwrap();
    assert_eq!(service.s().status().phase, "starting");
    assert!(service.s().next_due().is_some());
    service.outcome();
    service.s().start(&spec).unwrap();
    assert!(matches!(service.s().start(&spec), Err(handoff::Error::Busy(_))));
    let status = service.s().status();
    assert!(status.handoff_id.is_some() && status.successor_pid.is_some());
    let (outcome, events) = service.outcome();
    assert!(outcome.committed());
    let phases: Vec<_> =
        events.iter().filter_map(|event| if let Event::Phase(name) = event { Some(*name) } else { None }).collect();
    let expected = ["waiting for Hello", "warming", "draining", "sealing", "opening", "committing", "retiring"];
    assert!(phases.ends_with(&expected), "{phases:?}");
    assert!(events.iter().any(|event| matches!(event, Event::Progress { done: 1, total: 2 })));
    service.turn_until("rest", |supervisor, _| supervisor.status().phase == "idle");
}

/// The incumbent serves on, nobody else is left, and the next handoff works.
fn still_serves(service: &mut Service, pid: i32) {
    assert_eq!(children(), [(pid, false)]);
    assert!(service.s().supports_handoff());
    let outcome = service.hand_off("normal");
    assert!(outcome.committed(), "{}", outcome.reason);
}

#[test]
fn a_successor_that_fails_before_the_drain_disturbs_nobody() {
    let cases = [
        ("die-hello", "exit status 3"),
        ("kill-hello", "killed by signal 9 (SIGKILL)"),
        ("hang-hello", "did not say Hello in time"),
        ("die-warmed", "exit status 3"),
    ];
    for (script, why) in cases {
        let mut service = Service::new();
        let first = service.hand_off("normal");
        let spec = service.peer(script).hello_timeout(SOON);
        // A loaded machine needs more than this for an exec: only the silent one is to be late.
        let spec = if script == "hang-hello" { spec } else { spec.hello_timeout(Duration::from_secs(30)) };
        let outcome = service.s().perform_handoff(&spec).unwrap();
        assert_eq!((outcome.verdict, outcome.pid), (Verdict::RolledBack, first.pid), "{script}: {}", outcome.reason);
        assert!(outcome.reason.contains(why), "{script}: {}", outcome.reason);
        assert!(!service.log().contains("resumed"), "it was never drained");
        still_serves(&mut service, first.pid);
    }
}

#[test]
fn a_successor_of_another_protocol_is_refused() {
    let mut service = Service::new();
    let first = service.hand_off("normal");
    let outcome = service.hand_off("new-protocol");
    assert_eq!((outcome.verdict, outcome.pid), (Verdict::Refused, first.pid));
    assert!(outcome.reason.contains("protocol 7 to 9"), "{}", outcome.reason);
    still_serves(&mut service, first.pid);
}

#[test]
fn a_successor_that_fails_after_the_seal_is_rolled_back() {
    let cases = [
        ("unhealthy", "not healthy: a test"),
        ("loses-writes", "a write would be lost: shard 0 was sealed at revision 5"),
        ("die-begin", "exit status 3"),
        ("kill-begin", "killed by signal 9 (SIGKILL)"),
        ("kill-committed", "killed by signal 9 (SIGKILL)"),
        ("hang-begin", "was not ready in time"),
    ];
    for (script, why) in cases {
        let mut service = Service::new();
        let first = service.hand_off("normal");
        let spec = service.peer(script).ready_timeout(Duration::ZERO);
        let spec = if script == "hang-begin" { spec } else { spec.ready_timeout(Duration::from_secs(30)) };
        let outcome = service.s().perform_handoff(&spec).unwrap();
        assert_eq!((outcome.verdict, outcome.pid), (Verdict::RolledBack, first.pid), "{script}: {}", outcome.reason);
        assert!(outcome.reason.contains(why), "{script}: {}", outcome.reason);
        assert!(service.log().contains(&format!("{} resumed", first.pid)), "{script}");
        still_serves(&mut service, first.pid);
    }
}

#[test]
fn an_incumbent_that_can_not_drain_serves_on() {
    let mut service = Service::new();
    let first = service.hand_off("no-drain");
    let outcome = service.hand_off("normal");
    assert_eq!((outcome.verdict, outcome.pid), (Verdict::RolledBack, first.pid));
    assert!(outcome.reason.contains("could not drain: the disk is full"), "{}", outcome.reason);
    assert_eq!(children(), [(first.pid, false)]);
}

#[test]
fn a_successor_that_dies_after_its_commit_is_reverted() {
    let mut service = Service::new();
    let first = service.hand_off("normal");
    let outcome = service.hand_off("kill-won");
    assert_eq!((outcome.verdict, outcome.pid), (Verdict::Reverted, first.pid), "{}", outcome.reason);
    still_serves(&mut service, first.pid);
}

#[test]
fn a_successor_that_serves_but_is_not_heard_commits_by_the_page() {
    let mut service = Service::new();
    service.hand_off("normal");
    let outcome = service.hand_off("cut-won");
    assert!(outcome.committed(), "{}", outcome.reason);
    service.turn_until("the retirement", |supervisor, _| supervisor.status().phase == "idle");
    assert_eq!(service.s().status().pid, Some(outcome.pid));
    service.turn_until("the loss", |supervisor, _| !supervisor.status().linked);
    assert_eq!(service.hand_off("normal").verdict, Verdict::Refused);
}

#[test]
fn an_incumbent_that_dies_in_its_drain_is_followed() {
    for (trust, verdict, generation) in
        [(OnIncumbentDeath::Promote, Verdict::Committed, 2), (OnIncumbentDeath::StartCold, Verdict::StartedCold, 2)]
    {
        let mut service = Service::new();
        service.hand_off("kill-drain");
        let spec = service.peer("normal").on_incumbent_death(trust);
        let outcome = service.s().perform_handoff(&spec).unwrap();
        assert_eq!((outcome.verdict, outcome.generation), (verdict, generation), "{}", outcome.reason);
        assert_eq!(service.log().contains("recovers"), trust == OnIncumbentDeath::Promote);
        service.turn_until("rest", |supervisor, _| supervisor.status().phase == "idle");
        assert_eq!(children(), [(outcome.pid, false)]);
    }
}

#[test]
fn an_incumbent_that_dies_sealed_is_followed_by_the_successor() {
    let mut service = Service::new();
    let first = service.hand_off("normal");
    let spec = service.peer("hang-begin");
    service.s().start(&spec).unwrap();
    service.wait_for_log("hangs at begin");
    service.s().signal(Signal::SIGKILL as i32).unwrap();
    service.turn_until("the death", |_, _| !children().iter().any(|(pid, _)| *pid == first.pid));
    service.s().cancel("enough");
    let (outcome, _) = service.outcome();
    assert_eq!((outcome.verdict, outcome.generation), (Verdict::StartedCold, 2), "{}", outcome.reason);
    assert!(outcome.reason.contains("enough"), "{}", outcome.reason);
}

#[test]
fn a_handoff_can_be_cancelled() {
    for step in ["warmed", "begin"] {
        let mut service = Service::new();
        let first = service.hand_off("normal");
        service.s().cancel("nothing to cancel");
        let spec = service.peer(&format!("hang-{step}"));
        service.s().start(&spec).unwrap();
        service.wait_for_log(&format!("hangs at {step}"));
        service.s().cancel("changed my mind");
        let (outcome, _) = service.outcome();
        assert_eq!((outcome.verdict, outcome.pid), (Verdict::RolledBack, first.pid));
        assert!(outcome.reason.contains("changed my mind"), "{}", outcome.reason);
        still_serves(&mut service, first.pid);
    }
}

#[test]
fn a_supervisor_that_is_dropped_leaves_the_incumbent_and_no_successor() {
    for step in ["hello", "warmed", "begin"] {
        let mut service = Service::with(|supervisor, dir| supervisor.with_journal(dir.path().join("test.journal")));
        let first = service.hand_off("outlive");
        let spec = service.peer(&format!("hang-{step}"));
        service.s().start(&spec).unwrap();
        service.wait_for_log(&format!("hangs at {step}"));
        drop(service.supervisor.take());
        assert_eq!(children(), [(first.pid, false)], "{step}");
        service.wait_for_log(&format!("{} no supervisor", first.pid));
        assert_eq!(service.log().contains("resumed"), step == "begin");
        let pages = fs::read_dir(service.dir.path()).unwrap().flatten();
        assert!(!pages.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".page")));
    }
}

#[test]
fn a_supervisor_that_is_dropped_spares_a_successor_that_has_committed() {
    let mut service = Service::new();
    service.hand_off("outlive");
    let spec = service.peer("hang-won outlive");
    service.s().start(&spec).unwrap();
    service.wait_for_log("hangs at won");
    let successor = service.s().status().successor_pid.unwrap();
    drop(service.supervisor.take());
    assert!(children().contains(&(successor, false)));
}

#[test]
fn a_retired_incumbent_that_stays_does_not_block_the_next() {
    let mut service = Service::new();
    let first = service.hand_off("hang-retired");
    let second = service.hand_off("normal");
    let third = service.hand_off("normal");
    assert!(second.committed() && third.committed() && third.generation == 3);
    assert!(children().contains(&(first.pid, false)), "it has time to exit");
}

#[test]
fn twenty_handoffs_leave_nothing_behind() {
    let mut service = Service::with(|supervisor, dir| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        supervisor.with_listener("web", listener).unwrap().with_journal(dir.path().join("test.journal"))
    });
    let logs = service.dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let spec = service.peer("normal").capture_output(&logs);
    let rest = |supervisor: &Supervisor| supervisor.status().phase == "idle";
    service.s().perform_handoff(&spec).unwrap();
    service.s().perform_handoff(&spec).unwrap();
    service.turn_until("rest", |supervisor, _| rest(supervisor) && children().len() == 1);
    let before = open_descriptors();
    for generation in 3..23 {
        let outcome = service.s().perform_handoff(&spec).unwrap();
        assert!(outcome.committed() && outcome.generation == generation);
        let bad = service.peer("unhealthy").capture_output(&logs);
        assert_eq!(service.s().perform_handoff(&bad).unwrap().verdict, Verdict::RolledBack);
    }
    service.turn_until("rest", |supervisor, _| rest(supervisor) && children().len() == 1);
    assert_eq!(open_descriptors(), before);
    assert_eq!(fs::read_dir(&logs).unwrap().count(), 3, "the output of the one that serves");
    let mut files: Vec<_> = fs::read_dir(service.dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    files.sort();
    assert_eq!(files, ["log", "logs", "test.journal"]);
    let log = service.log();
    assert!(log.lines().all(|line| !line.contains("started") || line.ends_with("with 1 listeners")), "{log}");
}

#[test]
fn the_journal_tells_of_an_open_handoff() {
    let mut service = Service::with(|supervisor, dir| {
        supervisor.with_journal(dir.path().join("test.journal")).with_build_id(*b"\x0a\x0b")
    });
    let path = service.dir.path().join("test.journal");
    let journal = || fs::read_to_string(&path).unwrap();
    let first = service.hand_off("normal");
    let closed = journal();
    assert!(closed.contains(&format!("\nincumbent={} ", first.pid)) && !closed.contains("handoff="), "{closed}");
    assert!(
        closed.contains("\ngeneration=1\n")
            && closed.contains("\nbuild_id=0a0b\n")
            && closed.contains("\nservice=test\n")
    );
    let spec = service.peer("hang-warmed");
    service.s().start(&spec).unwrap();
    let status = service.s().status();
    let (id, successor) = (status.handoff_id.unwrap(), status.successor_pid.unwrap());
    let open = journal();
    for line in [format!("handoff={id}"), format!("page=test.{id}.page"), format!("successor={successor} ")] {
        assert!(open.contains(&line), "{line} is not in {open}");
    }
    assert!(service.dir.path().join(format!("test.{id}.page")).exists());
    service.s().cancel("");
    service.outcome();
    assert_eq!(journal(), closed);
    assert!(!service.dir.path().join(format!("test.{id}.page")).exists());
}

#[test]
fn what_a_daemon_does_to_a_listener_is_repaired() {
    let mut service = Service::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shared = listener.try_clone().unwrap();
    let supervisor = service.supervisor.take().unwrap();
    service.supervisor = Some(supervisor.with_listener("web", listener).unwrap());
    service.hand_off("normal");
    handoff::sys::listener::listen_again(std::os::fd::AsFd::as_fd(&shared), 0).unwrap();
    assert!(service.hand_off("normal").committed());
    let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(clients.len(), 5);
    wait_until("rest", || children().len() <= 2);
}

#[test]
fn a_peer_that_sends_without_end_does_not_keep_the_supervisor_from_its_work() {
    let mut service = Service::new();
    service.hand_off("normal");
    let spec = service.peer("floods").deadline(Duration::from_millis(500));
    service.s().start(&spec).unwrap();
    let mut last = 0;
    loop {
        let events = service.s().turn(Some(LONG)).unwrap();
        let beats = events.iter().filter_map(|event| match event {
            Event::Progress { done, .. } => Some(*done),
            _ => None,
        });
        let newest = beats.max().unwrap_or(last);
        let read = newest.saturating_sub(last);
        assert!(read < 32 * 1024, "one turn has read {read} messages");
        if events.iter().any(|event| matches!(event, Event::Outcome(_))) {
            return;
        }
        last = newest;
    }
}

/// It lives, and is not stopped, but does not even send heartbeats.
#[test]
fn a_reserve_that_is_not_heard_of_is_no_reason_to_kill_who_serves() {
    let mut service = Service::new();
    let first = service.hand_off("hang-commit");
    let spec = service.peer("normal").probation(LONG);
    let outcome = service.s().perform_handoff(&spec).unwrap();
    assert!(outcome.committed() && service.s().in_probation(), "{}", outcome.reason);
    // There is no event to wait for.
    std::thread::sleep(RESERVE_SILENCE);
    let refused = service.s().condemn("no good").unwrap_err().to_string();
    assert!(refused.contains(&format!("process {}, was not heard of for ", first.pid)), "{refused}");
    let status = service.s().status();
    assert_eq!((status.phase, status.pid, status.parked_pid), ("probation", Some(outcome.pid), Some(first.pid)));
    // It does not retire when it is not needed any more, either.
    service.s().end_probation();
    service.turn_until("its end", |supervisor, _| supervisor.status().phase == "idle");
    still_serves(&mut service, outcome.pid);
}
