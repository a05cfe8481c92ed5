//! A reserve that gives no sign of life: nobody waits for it for long, and nobody is killed for its sake.

use super::support::load::verify;
use super::support::{SIGTERM, Service, freeze, lives, programs, signal, thaw, wait_for_death, wait_until};
use super::{LONG, Trial, rollback};
use std::time::{Duration, Instant};

#[test]
fn an_operator_does_not_go_back_to_one_that_is_stopped() {
    let trial = Trial::begin(&LONG);
    let load = trial.load();
    freeze(trial.incumbent);
    let (code, said) = rollback(&trial.service);
    assert_eq!(code, Some(13), "{said}");
    assert!(said.contains(&format!("process {}", trial.incumbent)) && said.contains("is stopped"), "{said}");
    let advice = format!("was left alone: let it go on (kill -CONT {}), or replace that by", trial.incumbent);
    assert!(said.contains(&advice) && said.contains("handoff upgrade --binary"), "{said}");
    assert_eq!(trial.service.ping(), Some((trial.successor, "b".to_owned())));
    let status = trial.service.status().unwrap();
    assert_eq!((&status["phase"], &status["parked_pid"]), (&"probation".into(), &trial.incumbent.into()), "{status}");
    // When it goes on, it is the reserve as before.
    thaw(trial.incumbent);
    let (code, said) = rollback(&trial.service);
    assert_eq!(code, Some(0), "{said}");
    trial.incumbent_takes_over(load);
}

/// The successor is stopped, too, so that it can not go before the reserve.
#[test]
fn a_stop_does_not_wait_for_it() {
    let mut trial = Trial::begin(&LONG);
    freeze(trial.incumbent);
    freeze(trial.successor);
    signal(trial.service.supervisor_pid(), SIGTERM);
    wait_for_death(trial.incumbent);
    assert!(lives(trial.successor), "it has had its stop signal only then");
    thaw(trial.successor);
    assert_eq!(trial.service.wait_for_end(), Some(0));
    assert_eq!(trial.service.daemons(), Vec::<i32>::new());
}

#[test]
fn an_upgrade_says_what_it_waits_for() {
    let trial = Trial::begin(&LONG);
    let load = trial.load();
    freeze(trial.incumbent);
    let mut upgrade = trial.service.command("upgrade");
    let output = upgrade.arg("--binary").arg(&programs().kv_a).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let waits = format!("kv: confirming: process {}, which was the reserve, must end first\n", trial.incumbent);
    assert!(said.contains(&waits), "{said}");
    assert!(!lives(trial.incumbent));
    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(verify(trial.service.address, &report.acknowledged).unwrap(), Vec::<String>::new());
}

/// The successor dies, and its reserve can not take over: nobody says that it runs.
#[test]
fn one_that_can_not_take_over_is_not_said_to_run() {
    let trial = Trial::begin(&LONG);
    let begun = wait_until("the successor is said to run", || {
        Some(started(&trial.service)).filter(|pids| pids.contains(&trial.successor))
    });
    freeze(trial.incumbent);
    signal(trial.successor, super::SIGKILL);
    let third =
        wait_until("a cold start", || trial.service.ping().map(|(pid, _)| pid).filter(|pid| *pid != trial.successor));
    assert_ne!(third, trial.incumbent);
    wait_until("it is said", || started(&trial.service).contains(&third).then_some(()));
    assert_eq!(started(&trial.service)[begun.len()..], [third]);
}

/// The processes that `handoff run` has said to run.
fn started(service: &Service) -> Vec<i32> {
    let said = service.stderr();
    let lines = said.lines().filter_map(|line| line.strip_prefix("handoff: kv: process ")?.split_once(" runs "));
    lines.map(|(pid, _)| pid.parse().unwrap()).collect()
}

/// The supervisor dies, too: the next one gives the reserve as long, and starts the program.
#[test]
fn the_next_supervisor_does_not_wait_for_it_for_ever() {
    let mut trial = Trial::begin(&LONG);
    let load = trial.load();
    freeze(trial.incumbent);
    trial.service.kill_supervisor();
    signal(trial.successor, super::SIGKILL);
    wait_for_death(trial.successor);
    let acknowledged = load.stop().acknowledged;
    trial.service.launch(&programs().kv_a, &[]);
    let third = trial.service.wait_until_served();
    assert!(third != trial.incumbent && third != trial.successor);
    assert_eq!(trial.service.daemons(), [third]);
    let said = trial.service.stderr();
    let waits = format!("kv: waits: process {} (", trial.incumbent);
    assert!(said.contains(&waits) && said.contains("it is a reserve that should take over"), "{said}");
    assert_eq!(verify(trial.service.address, &acknowledged).unwrap(), Vec::<String>::new());
}

/// But for one that has taken over, and was stopped then: it may have said to its clients what nobody else knows.
#[test]
fn one_that_has_taken_over_is_not_killed_by_the_next_supervisor() {
    let mut trial = Trial::begin(&LONG);
    trial.service.kill_supervisor();
    signal(trial.successor, super::SIGKILL);
    wait_for_death(trial.successor);
    assert_eq!(trial.service.wait_until_served(), trial.incumbent);
    freeze(trial.incumbent);
    trial.service.begin_launch(&programs().kv_a, &[]);
    let why = wait_until("what it waits for", || {
        let status = trial.service.status()?;
        status["why"].as_str().filter(|why| why.contains("is stopped")).map(str::to_owned)
    });
    assert!(!why.contains("reserve"), "{why}");
    // By then a reserve would have been killed.
    trial.service.wait_for_phase("adopting");
    thaw(trial.incumbent);
    trial.service.wait_until_running();
    assert_eq!(trial.service.wait_until_served(), trial.incumbent);
}

/// What `status` counts is its own time, and not that of the one that was undone.
#[test]
fn one_that_takes_over_again_has_served_since_its_start() {
    let service = Service::start(&programs().kv_a);
    let uptime = |service: &Service| {
        let status = service.status().unwrap();
        Duration::from_millis(status["uptime_ms"].as_u64().unwrap())
    };
    let (before, since) = (uptime(&service), Instant::now());
    let trial = Trial::of(service, &LONG);
    assert!(uptime(&trial.service) < before + since.elapsed());
    assert_eq!(rollback(&trial.service).0, Some(0));
    let least = before + since.elapsed();
    assert_eq!(trial.service.daemon_pid(), trial.incumbent);
    assert!(uptime(&trial.service) + Duration::from_millis(1) >= least);
}
