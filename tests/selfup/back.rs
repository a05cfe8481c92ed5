//! The new program has taken the process, and does not go on: the old one does. And kill -9.

#[path = "../crash_matrix/build.rs"]
mod build;

use crate::support::{Service, freeze, programs, signal, wait_for_death, wait_until};
use build::build;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A store under a program that dies where it is told to.
fn service() -> (Service, PathBuf) {
    let mut service = Service::place();
    service.handoff = build().handoff.clone();
    let points = service.path("points");
    fs::create_dir(&points).unwrap();
    service.environment.push(("CRASH_POINTS", points.clone()));
    service.launch(&build().kv_a, &[]);
    (service, points)
}

fn self_upgrade(service: &Service) -> (Option<i32>, Value) {
    let output = service.command("self-upgrade").arg("--json").output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

fn arm(points: &std::path::Path, order: &str) {
    fs::write(points.join("armed"), format!("{order}\n")).unwrap();
}

#[test]
fn a_program_that_panics_gives_way_to_the_one_before() {
    let (service, points) = service();
    let (daemon, supervisor) = (service.daemon_pid(), service.supervisor_pid());
    for step in ["S:restore", "S:restored"] {
        arm(&points, &format!("panic {step}"));
        let (code, outcome) = self_upgrade(&service);
        assert_eq!((code, outcome["result"].as_str()), (Some(10), Some("rolled_back")), "{outcome}");
        assert!(outcome["reason"].as_str().unwrap().contains("it panicked"), "{outcome}");
        assert!(!points.join("armed").exists(), "it never came to {step}");
        assert_eq!((service.daemon_pid(), service.supervisor_pid()), (daemon, supervisor));
    }
    let status: Value =
        serde_json::from_slice(&service.command("status").arg("--json").output().unwrap().stdout).unwrap();
    assert_eq!(status["supervisor"]["last_self_upgrade"]["result"], "rolled_back");
    assert_eq!(self_upgrade(&service).0, Some(0));
    assert_eq!(service.upgrade(&build().kv_b, &[]).code, 0);
}

#[test]
fn a_program_that_hangs_or_crashes_gives_way_to_the_one_before() {
    let (service, points) = service();
    let (daemon, supervisor) = (service.daemon_pid(), service.supervisor_pid());
    for (number, reason) in [(14, "has not gone on within"), (11, "SIGSEGV")] {
        arm(&points, "stop S:restored");
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| self_upgrade(&service));
            wait_until("it stands still", || (crate::support::process_state(supervisor) == Some('T')).then_some(()));
            if number == 14 {
                // Its time is over when the signal of the alarm waits for it.
                wait_until("its alarm", || is_pending(supervisor, number).then_some(()));
            } else {
                signal(supervisor, number);
            }
            crate::support::thaw(supervisor);
            let (code, outcome) = asked.join().unwrap();
            assert_eq!((code, outcome["result"].as_str()), (Some(10), Some("rolled_back")), "{outcome}");
            assert!(outcome["reason"].as_str().unwrap().contains(reason), "{outcome}");
        });
        assert_eq!((service.daemon_pid(), service.supervisor_pid()), (daemon, supervisor));
    }
    assert_eq!(self_upgrade(&service).0, Some(0));
    assert_eq!(service.upgrade(&build().kv_b, &[]).code, 0);
}

fn is_pending(pid: i32, number: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (number - 1)) != 0
}

/// A child that ends between the two programs: how, is known exactly.
#[test]
fn what_ends_in_the_midst_of_it_has_its_exact_cause() {
    for (step, end, code) in
        [("S:restore", "exit 7", 7), ("S:restored", "exit 0", 0), ("S:restored", "kill -USR1 $$; sleep 1000", 128 + 10)]
    {
        let mut service = Service::place();
        service.handoff = build().handoff.clone();
        let (points, fifo) = (service.path("points"), service.path("fifo"));
        fs::create_dir(&points).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        service.environment.push(("CRASH_POINTS", points.clone()));
        let daemon = service.path("daemon");
        fs::write(&daemon, format!("#!/bin/sh\nread line < {}; {end}\n", fifo.display())).unwrap();
        fs::set_permissions(&daemon, fs::Permissions::from_mode(0o755)).unwrap();
        service.begin_launch(&daemon, &["--restart", "never"]);
        let (daemon, supervisor) = (service.daemon_pid(), service.supervisor_pid());
        arm(&points, &format!("stop {step}"));
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| self_upgrade(&service));
            wait_until("it stands still", || (crate::support::process_state(supervisor) == Some('T')).then_some(()));
            fs::write(&fifo, "go\n").unwrap();
            wait_until("its end", || (crate::support::process_state(daemon) == Some('Z')).then_some(()));
            crate::support::thaw(supervisor);
            let (code, outcome) = asked.join().unwrap();
            assert_eq!(code, Some(0), "{outcome}");
        });
        assert_eq!(service.wait_for_end(), Some(code), "{end}: {}", service.stderr());
    }
}

#[test]
fn a_supervisor_that_is_killed_in_it_is_followed_by_another_one() {
    let (mut service, points) = service();
    let daemon = service.daemon_pid();
    for step in ["S:restore", "S:restored"] {
        arm(&points, &format!("kill {step}"));
        assert_ne!(self_upgrade(&service).0, Some(0));
        service.reap_supervisor();
        service.launch(&build().kv_a, &[]);
        assert_eq!(service.daemon_pid(), daemon);
    }
    assert_eq!(self_upgrade(&service).0, Some(0));
    service.kill_supervisor();
    service.launch(&build().kv_a, &[]);
    assert_eq!(service.daemon_pid(), daemon);
}

/// A daemon that stands still is nobody's reason to wait, and is not lost.
#[test]
fn a_daemon_that_does_not_answer_is_kept() {
    let service = Service::start(&programs().kv_a);
    let daemon = service.daemon_pid();
    freeze(daemon);
    assert_eq!(self_upgrade(&service).0, Some(0));
    assert_eq!(service.daemon_pid(), daemon);
    assert_eq!(service.status().unwrap()["linked"], true);
    crate::support::thaw(daemon);
    assert_eq!(service.upgrade(&programs().kv_b, &[]).code, 0);
    wait_for_death(daemon);
    // A way back is one to the file that was kept open.
    assert_eq!(self_upgrade(&service).0, Some(0));
    assert_eq!(service.command("rollback").output().unwrap().status.code(), Some(0));
}
