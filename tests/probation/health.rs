//! Whoever serves on probation is asked whether it is well.

use super::support::load::verify;
use super::support::{SIGKILL, Service, freeze, programs, signal, wait_for_death, wait_until};
use super::{LONG, Trial};

/// A service that asks, and its incumbent. The address must be known to ask: so this is a supervisor's second life.
fn asking(scheme: &str) -> (Service, i32) {
    let mut service = Service::start(&programs().kv_a);
    ask_from_now_on(&mut service, scheme);
    let incumbent = service.daemon_pid();
    (service, incumbent)
}

fn ask_from_now_on(service: &mut Service, scheme: &str) {
    service.kill_supervisor();
    let url = format!("{scheme}://{}", service.address);
    service.launch(&programs().kv_a, &["--health", &url]);
}

/// The incumbent serves again, and it is said why.
fn expect_undone(service: &Service, incumbent: i32, scheme: &str) {
    let reason = wait_until("the successor is undone", || {
        let last = &service.status()?["last_handoff"];
        (last["result"] == "reverted").then(|| last["reason"].as_str().unwrap_or_default().to_owned())
    });
    assert!(reason.starts_with(&format!("unhealthy: {scheme}://{}", service.address)), "{reason}");
    assert!(reason.contains("3 times in a row"), "{reason}");
    assert_eq!(service.wait_until_served(), incumbent);
    assert_eq!(service.daemons(), [incumbent]);
    let refused = service.upgrade(&programs().kv_b, &[]);
    assert_eq!((refused.code, refused.result.as_str()), (13, "refused"), "{refused:?}");
    assert!(refused.reason.contains("failed its probation") && refused.reason.contains("unhealthy"), "{refused:?}");
}

#[test]
fn one_that_stops_answering_is_undone() {
    let (service, incumbent) = asking("tcp");
    let trial = Trial::of(service, &LONG);
    assert_eq!(trial.incumbent, incumbent);
    let report = trial.load().stop();
    freeze(trial.successor);
    expect_undone(&trial.service, incumbent, "tcp");
    assert_eq!(verify(trial.service.address, &report.acknowledged).unwrap(), Vec::<String>::new());
}

/// Its time is shorter than what the probes need to notice it.
#[test]
fn one_that_does_not_answer_when_its_time_is_over_is_not_confirmed() {
    let (service, incumbent) = asking("tcp");
    let trial = Trial::of(service, &["--probation", "5s"]);
    freeze(trial.successor);
    expect_undone(&trial.service, incumbent, "tcp");
}

#[test]
fn one_that_answers_something_else_is_undone() {
    let (service, incumbent) = asking("http");
    let upgrade = service.upgrade(&programs().kv_b, &LONG);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    expect_undone(&service, incumbent, "http");
}

#[test]
fn one_that_is_well_stays() {
    let (service, incumbent) = asking("tcp");
    let trial = Trial::of(service, &["--probation", "6s"]);
    let load = trial.load();
    wait_for_death(incumbent);
    trial.service.wait_for_phase("idle");
    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(trial.service.status().unwrap()["last_handoff"]["result"], "committed");
    assert_eq!(trial.service.daemons(), [trial.successor]);
}

#[test]
fn the_next_supervisor_asks_too() {
    let mut trial = Trial::begin(&LONG);
    ask_from_now_on(&mut trial.service, "tcp");
    assert_eq!(trial.service.daemon_pid(), trial.successor);
    freeze(trial.successor);
    expect_undone(&trial.service, trial.incumbent, "tcp");
}

/// A reserve that dies makes the successor the only one: it is not killed, whatever it answers.
#[test]
fn one_without_a_reserve_is_not_undone() {
    let (service, incumbent) = asking("http");
    let upgrade = service.upgrade(&programs().kv_b, &LONG);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    signal(incumbent, SIGKILL);
    service.wait_for_phase("idle");
    assert_eq!(service.status().unwrap()["last_handoff"]["result"], "committed");
    assert_eq!(service.ping().unwrap().1, "b");
}
