//! A successor serves on probation: the process before it is its reserve, and takes over if it dies.

mod health;
mod reserve;
#[path = "../support/mod.rs"]
mod support;
mod without;

use std::path::Path;
use std::time::Duration;
use support::copy::copy_program;
use support::load::{Load, LoadOptions, verify};
use support::{SIGKILL, Service, freeze, lives, programs, signal, thaw, wait_for_death, wait_until};

/// Longer than any test.
const LONG: [&str; 2] = ["--probation", "10m"];

/// A service whose second process is on probation.
struct Trial {
    service: Service,
    incumbent: i32,
    successor: i32,
}

impl Trial {
    fn begin(arguments: &[&str]) -> Self {
        Self::of(Service::start(&programs().kv_a), arguments)
    }

    fn of(service: Service, arguments: &[&str]) -> Self {
        let incumbent = service.daemon_pid();
        let upgrade = service.upgrade(&programs().kv_b, arguments);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
        let successor = upgrade.outcome["pid"].as_i64().unwrap() as i32;
        assert_eq!(service.ping(), Some((successor, "b".to_owned())));
        Self { service, incumbent, successor }
    }

    fn load(&self) -> Load {
        let options = LoadOptions { clients: 4, keep_alive: false, ..LoadOptions::new(self.service.address) };
        let load = Load::start(options);
        wait_until("some writes", || (load.snapshot().acknowledged > 200).then_some(()));
        load
    }

    /// The incumbent serves, alone, with everything that anybody has acknowledged.
    fn incumbent_takes_over(&self, load: Load) {
        let pid = self.service.wait_until_served();
        assert_eq!(pid, self.incumbent);
        let before = load.snapshot().acknowledged;
        wait_until("writes to the incumbent", || (load.snapshot().acknowledged > before + 100).then_some(()));
        let report = load.stop();
        assert_eq!(verify(self.service.address, &report.acknowledged).unwrap(), Vec::<String>::new());
        assert_eq!(self.service.daemons(), [self.incumbent]);
    }
}

/// `handoff rollback`: its exit code, and what came of it.
fn rollback(service: &Service) -> (Option<i32>, String) {
    let output = service.command("rollback").arg("--json").output().unwrap();
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), format!("{} {}", outcome["result"].as_str().unwrap_or("none"), outcome["reason"]))
}

#[test]
fn the_incumbent_takes_over_from_a_successor_that_dies() {
    let trial = Trial::begin(&LONG);
    let status = trial.service.status().unwrap();
    assert_eq!((&status["phase"], &status["state"]), (&"probation".into(), &"running".into()), "{status}");
    assert_eq!(status["parked_pid"], trial.incumbent);
    assert!(status["probation_left_ms"].as_u64().unwrap() > 1000 * 500, "{status}");
    let load = trial.load();
    signal(trial.successor, SIGKILL);
    trial.incumbent_takes_over(load);
    trial.service.wait_for_phase("idle");
    let status = trial.service.status().unwrap();
    assert_eq!(status["last_handoff"]["result"], "reverted", "{status}");
    assert_eq!((&status["restarts"], &status["parked_pid"]), (&0.into(), &serde_json::Value::Null), "{status}");
    // It can be replaced again, but not by the same program.
    let refused = trial.service.upgrade(&programs().kv_b, &[]);
    assert_eq!((refused.code, refused.result.as_str()), (13, "refused"), "{refused:?}");
    assert!(refused.reason.contains("SHA-256") && refused.reason.contains("signal 9"), "{refused:?}");
    let upgrade = trial.service.upgrade(&programs().kv_b, &["--force"]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    wait_for_death(trial.incumbent);
}

#[test]
fn a_program_that_dies_in_its_probation_is_not_started_twice() {
    let mut service = Service::start(&programs().kv_a);
    let incumbent = service.daemon_pid();
    let bad = service.faulty("dies-serving=200");
    assert_eq!(service.upgrade(&bad, &LONG).result, "committed");
    wait_until("taken over", || (service.status()?["last_handoff"]["result"] == "reverted").then_some(()));
    assert_eq!(service.wait_until_served(), incumbent);
    // A supervisor that comes after it knows that, too.
    service.kill_supervisor();
    service.launch(&programs().kv_a, &[]);
    let refused = service.upgrade(&bad, &[]);
    assert_eq!((refused.code, refused.result.as_str()), (13, "refused"), "{refused:?}");
    assert!(refused.reason.contains("signal 11"), "{refused:?}");
    assert_eq!((service.daemon_pid(), service.wait_until_served()), (incumbent, incumbent));
    // A rollback that was none of its probation is not remembered.
    let unhealthy = service.faulty("unhealthy");
    for _ in 0..2 {
        assert_eq!(service.upgrade(&unhealthy, &LONG).result, "rolled_back");
    }
}

#[test]
fn an_operator_goes_back_in_the_probation() {
    let trial = Trial::begin(&LONG);
    let load = trial.load();
    let (code, said) = rollback(&trial.service);
    assert_eq!(
        (code, said.as_str()),
        (Some(0), "reverted \"rolled back by an operator (the successor: killed by signal 9 (SIGKILL))\"")
    );
    trial.incumbent_takes_over(load);
    let refused = trial.service.upgrade(&programs().kv_b, &[]);
    assert_eq!(refused.code, 13, "{refused:?}");
    let (code, said) = rollback(&trial.service);
    assert_eq!(code, Some(13), "{said}");
    assert!(said.contains("nothing to go back to any more") && said.contains("taken back already"), "{said}");
    assert!(said.contains("upgrade --binary PATH"), "{said}");
}

/// The time without anybody is that of the undo, and not that of the commit before it.
#[test]
fn the_pause_of_an_undo_is_its_own() {
    const LENGTH: Duration = Duration::from_millis(500);
    let trial = Trial::begin(&LONG);
    let service = &trial.service;
    let committed = service.status().unwrap()["last_handoff"]["pause_ns"].as_u64().unwrap();
    freeze(trial.incumbent);
    signal(trial.successor, SIGKILL);
    wait_until("its death is seen", || service.stderr().contains("failed its probation").then_some(()));
    std::thread::sleep(LENGTH);
    thaw(trial.incumbent);
    assert_eq!(service.wait_until_served(), trial.incumbent);
    let reverted = wait_until("the outcome", || {
        Some(service.status()?["last_handoff"].clone()).filter(|last| last["result"] == "reverted")
    });
    let pause = reverted["pause_ns"].as_u64().unwrap();
    assert!(pause >= LENGTH.as_nanos() as u64 && pause != committed, "{committed}: {reverted}");

    let undone = service.upgrade(&service.faulty("unhealthy"), &[]);
    let of = |step: &str| undone.outcome[step].as_u64().unwrap();
    assert!(of("pause_ns") > of("seal_ns") && of("pause_ns") < of("total_ns"), "{undone:?}");
}

#[test]
fn an_operator_goes_back_to_a_file_that_is_not_at_its_path_any_more() {
    let mut service = Service::place();
    let path = service.path("kv");
    let new = service.path("new");
    let put = |from: &Path| {
        copy_program(from, &new);
        std::fs::rename(&new, &path).unwrap();
    };
    let library = service.path("libhandoff.so.0");
    std::os::unix::fs::symlink(programs().kv_a.with_file_name("libhandoff.so.0"), library).unwrap();
    put(&programs().kv_a);
    service.launch(&path, &[]);
    assert_eq!(service.ping().unwrap().1, "a");
    put(&programs().kv_b);
    let upgrade = service.upgrade(&path, &["--probation", "100ms"]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    service.wait_for_phase("idle");
    assert_eq!(service.ping().unwrap().1, "b");
    std::fs::write(&new, "garbage").unwrap();
    std::fs::rename(&new, &path).unwrap();
    let (code, said) = rollback(&service);
    assert_eq!((code, said.as_str()), (Some(0), "committed \"\""));
    let twice =
        wait_until("it can be asked again", || Some(rollback(&service).1).filter(|said| !said.contains("busy")));
    assert!(twice.contains("taken back already"), "{twice}");
    let (pid, build) = service.ping().unwrap();
    assert_eq!(build, "a");
    // A crash does not bring the path's own content back.
    signal(pid, SIGKILL);
    wait_until("started again", || service.ping().filter(|(now, build)| *now != pid && build == "a"));
}

#[test]
fn without_a_supervisor_the_incumbent_still_takes_over() {
    let mut trial = Trial::begin(&LONG);
    let load = trial.load();
    trial.service.kill_supervisor();
    wait_until("more writes", || (load.snapshot().acknowledged > 400).then_some(()));
    assert!(lives(trial.incumbent) && lives(trial.successor));
    signal(trial.successor, SIGKILL);
    trial.incumbent_takes_over(load);
}

#[test]
fn without_a_supervisor_the_probation_ends_by_itself() {
    let mut trial = Trial::begin(&["--probation", "2s"]);
    trial.service.kill_supervisor();
    wait_for_death(trial.incumbent);
    assert_eq!(trial.service.wait_until_served(), trial.successor);
    // The next supervisor finds a probation that is over.
    trial.service.launch(&programs().kv_a, &[]);
    assert_eq!(trial.service.daemon_pid(), trial.successor);
    trial.service.wait_for_phase("idle");
}

#[test]
fn the_next_supervisor_goes_on_with_the_probation() {
    let mut trial = Trial::begin(&LONG);
    let load = trial.load();
    trial.service.kill_supervisor();
    trial.service.launch(&programs().kv_a, &[]);
    let status = trial.service.status().unwrap();
    assert_eq!((&status["phase"], &status["pid"]), (&"probation".into(), &trial.successor.into()), "{status}");
    assert_eq!(status["parked_pid"], trial.incumbent);
    signal(trial.successor, SIGKILL);
    trial.incumbent_takes_over(load);
    wait_until("adopted", || {
        let status = trial.service.status()?;
        (status["linked"] == true && status["phase"] == "idle" && status["pid"] == trial.incumbent).then_some(())
    });
    let upgrade = trial.service.upgrade(&programs().kv_b, &["--force"]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
}

#[test]
fn a_successor_that_dies_while_there_is_no_supervisor() {
    let mut trial = Trial::begin(&LONG);
    let load = trial.load();
    trial.service.kill_supervisor();
    signal(trial.successor, SIGKILL);
    trial.service.launch(&programs().kv_a, &[]);
    assert_eq!(trial.service.daemon_pid(), trial.incumbent);
    trial.incumbent_takes_over(load);
}

#[test]
fn the_successor_is_confirmed_when_its_incumbent_dies() {
    let trial = Trial::begin(&LONG);
    let load = trial.load();
    signal(trial.incumbent, SIGKILL);
    trial.service.wait_for_phase("idle");
    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(trial.service.daemons(), [trial.successor]);
    assert_eq!(trial.service.status().unwrap()["last_handoff"]["result"], "committed");
}

#[test]
fn a_probation_ends_and_nobody_feels_it() {
    let trial = Trial::begin(&["--probation", "1s"]);
    let load = trial.load();
    wait_for_death(trial.incumbent);
    trial.service.wait_for_phase("idle");
    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(trial.service.daemons(), [trial.successor]);
    let mut pages = std::fs::read_dir(trial.service.path("run")).unwrap().flatten();
    assert!(!pages.any(|entry| entry.file_name().to_string_lossy().ends_with(".page")));
}

#[test]
fn an_upgrade_ends_the_probation_first() {
    let trial = Trial::begin(&LONG);
    let load = trial.load();
    let upgrade = trial.service.upgrade(&programs().kv_a, &LONG);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    wait_for_death(trial.incumbent);
    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    let third = trial.service.daemon_pid();
    assert_eq!(trial.service.status().unwrap()["parked_pid"], trial.successor);
    // One that is refused does not.
    let refused = trial.service.upgrade(&trial.service.path("none"), &[]);
    assert_eq!(refused.code, 13, "{refused:?}");
    signal(third, SIGKILL);
    assert_eq!(trial.service.wait_until_served(), trial.successor);
}

#[test]
fn a_stop_in_the_probation_stops_both() {
    let mut trial = Trial::begin(&LONG);
    assert_eq!(trial.service.stop(), Some(0));
    assert_eq!(trial.service.daemons(), Vec::<i32>::new());
}

#[test]
fn a_program_that_obeys_a_stop_has_not_failed_its_probation() {
    let mut trial = Trial::begin(&LONG);
    freeze(trial.incumbent); // so that it can not retire first
    trial.service.stop();
    assert_eq!(trial.service.daemons(), Vec::<i32>::new());
    trial.service.launch(&programs().kv_a, &[]);
    let upgrade = trial.service.upgrade(&programs().kv_b, &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
}

#[test]
fn an_operator_goes_back_from_a_program_that_has_crashed() {
    let trial = Trial::of(Service::start(&programs().kv_a), &[]);
    wait_until("the incumbent is gone", || (trial.service.daemons() == [trial.successor]).then_some(()));
    signal(trial.successor, SIGKILL);
    let again = wait_until("it is started again", || trial.service.ping().filter(|(pid, _)| *pid != trial.successor));
    assert_eq!(again.1, "b");
    let (code, said) =
        wait_until("it can be replaced", || Some(rollback(&trial.service)).filter(|(_, said)| !said.contains("busy")));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(trial.service.ping().map(|(_, build)| build), Some("a".to_owned()));
}

/// That says nothing of the file, but of what it runs or reads: nobody could go on with it.
#[test]
fn a_file_that_is_gone_back_to_is_not_condemned() {
    let service = Service::start(&programs().kv_a);
    let upgrade = service.upgrade(&programs().kv_a, &LONG);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    let back = service.command("rollback").output().unwrap();
    assert_eq!(back.status.code(), Some(0), "{back:?}");
    let again = service.upgrade(&programs().kv_a, &[]);
    assert_eq!(again.result, "committed", "{again:?}");
}
