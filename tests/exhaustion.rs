//! No descriptor left, at every step of each of the three processes: the handoff is refused, undone or through, the reason
//! names the limit, somebody serves all the time, nothing is lost or kept open, and the next handoff commits.
//!
//! A process is given room for none, one, two ... more descriptors than it has, until a handoff commits: so each call that
//! needs one fails once.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use support::{SIGKILL, Service, Upgrade, limit_descriptors, open_descriptors, programs, signal, wait_until, waits};

/// Beyond that the limit is none.
const ROOM_MAX: usize = 40;
const NO_LIMIT: u64 = 4096;
/// The hard limit of a supervisor: the soft one it raises.
const LIMIT: u64 = 64;

fn numbers(pid: i32) -> BTreeSet<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Room for so many more descriptors: the limit is on their numbers.
fn leave_room(pid: i32, room: usize) {
    let open = numbers(pid);
    let limit = (0..).filter(|number| !open.contains(number)).nth(room).unwrap();
    limit_descriptors(pid, limit);
}

struct Scene {
    service: Service,
    incumbent: i32,
    descriptors: (usize, usize),
}

impl Scene {
    fn new() -> Self {
        Self::of(Service::start(&programs().kv_a))
    }

    fn of(service: Service) -> Self {
        assert!(service.ask("SET before 1").unwrap().starts_with("OK "));
        // The first handoff of a process may leave something open for the next ones.
        assert_eq!(service.upgrade(&service.faulty("unhealthy"), &[]).result, "rolled_back");
        let incumbent = service.daemon_pid();
        let mut scene = Self { service, incumbent, descriptors: (0, 0) };
        scene.descriptors = wait_until("quiet", || {
            let before = scene.open();
            std::thread::sleep(std::time::Duration::from_millis(100));
            (before == scene.open()).then_some(before)
        });
        scene
    }

    /// Its supervisor has room for so many more descriptors, as long as these clients are connected.
    fn fill(&self, room: usize) -> Vec<UnixStream> {
        let supervisor = self.service.supervisor_pid();
        let limit = format!("--nofile={LIMIT}:{LIMIT}");
        assert!(Command::new("prlimit").args(["--pid", &supervisor.to_string(), &limit]).status().unwrap().success());
        let mut clients = Vec::new();
        // What it opens for a moment is none that it keeps.
        let rests = || wait_until("it rests", || waits(supervisor).then(|| numbers(supervisor).range(..LIMIT).count()));
        loop {
            let open = rests();
            if open >= LIMIT as usize - room {
                return clients;
            }
            clients.push(UnixStream::connect(self.service.path("run/kv.sock")).unwrap());
            wait_until("it is accepted", || (rests() > open).then_some(()));
        }
    }

    fn open(&self) -> (usize, usize) {
        (open_descriptors(self.service.supervisor_pid()), open_descriptors(self.incumbent))
    }

    /// With the limits gone, the incumbent serves as if nothing had been; true if the handoff has committed instead.
    #[track_caller]
    fn is_through(&self, upgrade: &Upgrade, room: usize) -> bool {
        let told = || format!("room {room}: {upgrade:?}\n{}", self.service.stderr());
        if upgrade.result == "committed" {
            assert_eq!(self.service.ask("GET before").as_deref(), Some("VALUE 1"), "{}", told());
            return true;
        }
        assert!(["rolled_back", "refused"].contains(&upgrade.result.as_str()), "{}", told());
        let names = ["RLIMIT_NOFILE", "Too many open files", "EMFILE", "Error 24", "error 24"];
        assert!(names.iter().any(|name| upgrade.reason.contains(name)), "{}", told());
        assert_eq!(self.service.wait_until_served(), self.incumbent, "{}", told());
        assert_eq!(self.service.ask("GET before").as_deref(), Some("VALUE 1"), "{}", told());
        wait_until(&format!("room {room}: {:?} descriptors, not {:?}", self.descriptors, self.open()), || {
            (self.open() == self.descriptors).then_some(())
        });
        assert_eq!(self.service.daemons(), [self.incumbent], "{}", told());
        assert!(!self.service.stderr().contains("panicked"), "{}", told());
        false
    }

    /// Until a handoff commits.
    fn sweep(self, attempt: impl Fn(&Scene, usize) -> Option<Upgrade>) {
        let through = (0..ROOM_MAX).find(|room| attempt(&self, *room).is_some_and(|it| self.is_through(&it, *room)));
        let through = through.unwrap_or_else(|| panic!("no handoff commits with room for {ROOM_MAX}"));
        assert!(through > 0, "it never came to the limit");
        let next = self.service.upgrade(&programs().kv_b, &[]);
        assert_eq!(next.result, "committed", "{next:?}");
        assert_eq!(self.service.ask("GET before").as_deref(), Some("VALUE 1"));
    }
}

#[test]
fn a_supervisor_without_descriptors() {
    Scene::new().sweep(|scene, room| {
        let binary = if room == 0 { scene.service.faulty("exit-before-hello") } else { programs().kv_b.clone() };
        let clients = scene.fill(room);
        let upgrade = scene.service.upgrade(&binary, &["--timeout", "3s"]);
        drop(clients);
        if room == 0 {
            // Not even the command could be heard. It is still there when there is room, before any other.
            assert_eq!(upgrade.code, 5, "{upgrade:?}");
            scene.service.wait_for_phase("idle");
            assert_eq!(scene.service.wait_until_served(), scene.incumbent);
            return None;
        }
        Some(upgrade)
    });
}

#[test]
fn an_incumbent_without_descriptors() {
    Scene::new().sweep(|scene, room| {
        leave_room(scene.incumbent, room);
        let upgrade = scene.service.upgrade(&programs().kv_b, &[]);
        if upgrade.result != "committed" {
            limit_descriptors(scene.incumbent, NO_LIMIT);
        }
        Some(upgrade)
    });
}

/// The store under this limit, from its start on.
fn limited(service: &Service, limit: usize) -> PathBuf {
    let script = service.path(&format!("limited-{limit}"));
    fs::write(&script, format!("#!/bin/sh\nulimit -Sn {limit}\nexec {}\n", programs().kv_b.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[test]
fn a_successor_without_descriptors() {
    // Three standard ones; two listeners and the session come with it.
    Scene::new().sweep(|scene, room| Some(scene.service.upgrade(&limited(&scene.service, 3 + room), &[])));
}

/// Without any room from this phase on, and with a successor that fails. An application that has closed its listener may not
/// get it again: then its program is started anew.
#[test]
fn an_incumbent_that_loses_all_room_in_mid_handoff_resumes_or_is_started_again() {
    for (phase, results) in [
        ("warming", &["rolled_back"][..]),
        ("draining", &["rolled_back", "started_cold"]),
        ("opening", &["rolled_back", "started_cold"]),
    ] {
        let scene = match phase {
            "draining" => Scene::of(Service::start_faulty("slow-drain=1000")),
            _ => Scene::new(),
        };
        let fault = if phase == "warming" { "slow-warm=600000" } else { "open-waits" };
        let upgrading = scene.service.begin_upgrade(&scene.service.faulty(fault), &[]);
        let successor = scene.service.successor_of(scene.incumbent);
        scene.service.wait_for_phase(phase);
        leave_room(scene.incumbent, 0);
        signal(successor, SIGKILL);
        let upgrade = upgrading.wait();
        assert!(results.contains(&upgrade.result.as_str()), "{phase}: {upgrade:?}");
        if upgrade.result == "rolled_back" {
            limit_descriptors(scene.incumbent, NO_LIMIT);
            assert_eq!(scene.service.wait_until_served(), scene.incumbent, "{phase}");
        }
        scene.service.wait_until_served();
        assert_eq!(scene.service.ask("GET before").as_deref(), Some("VALUE 1"), "{phase}");
        assert_eq!(scene.service.upgrade(&programs().kv_b, &[]).result, "committed", "{phase}");
    }
}

/// The same for a supervisor, whose handoff goes on: it needs nothing more.
#[test]
fn a_supervisor_that_loses_all_room_in_mid_handoff_goes_on() {
    for phase in ["warming", "opening"] {
        let scene = Scene::new();
        let fault = if phase == "warming" { "slow-warm=1000" } else { "slow-open=1000" };
        let upgrading = scene.service.begin_upgrade(&scene.service.faulty(fault), &[]);
        scene.service.wait_for_phase(phase);
        let clients = scene.fill(0);
        let upgrade = upgrading.wait();
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{phase}: {upgrade:?}");
        drop(clients);
        assert_eq!(scene.service.ask("GET before").as_deref(), Some("VALUE 1"), "{phase}");
        assert_eq!(scene.service.upgrade(&programs().kv_b, &[]).result, "committed", "{phase}");
    }
}
