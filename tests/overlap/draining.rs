//! Processes that were replaced and serve their last clients: who waits for them, and for how long.

use crate::scene::{Held, heard, program, request, start, text, variant};
use crate::support::{SIGINT, SIGSEGV, SIGTERM, Service, freeze, lives, signal, thaw, wait_until};
use serde_json::Value;
use std::fs;
use std::process::{Child, Stdio};

/// An upgrade after which the process before has a client that stays.
fn replace(service: &Service, build: &str, arguments: &[&str]) -> (i32, Held) {
    let pid = service.daemon_pid();
    let mut held = Held::open(service.address);
    assert_eq!(held.ask(), Some(pid));
    assert_eq!(service.upgrade(program(build), arguments).result, "committed");
    wait_until("it drains", || heard(service, pid).contains(&"drain after commit".to_owned()).then_some(()));
    (pid, held)
}

fn draining(service: &Service) -> Vec<i32> {
    let status = service.status().unwrap();
    status["draining"].as_array().unwrap().iter().map(|one| one["pid"].as_i64().unwrap() as i32).collect()
}

#[test]
fn an_upgrade_waits_is_refused_or_ends_the_oldest() {
    let service = start(&["--max-draining", "2"]);
    let (first, mut one) = replace(&service, "b", &[]);
    let (second, mut two) = replace(&service, "a", &[]);
    wait_until("both drain", || (draining(&service) == [first, second]).then_some(()));
    assert_eq!((one.ask(), two.ask()), (Some(first), Some(second)));

    let refused = service.upgrade(program("b"), &["--when-draining", "refuse"]);
    assert_eq!((refused.code, refused.result.as_str()), (13, "refused"), "{refused:?}");
    assert!(refused.reason.contains(&first.to_string()) && refused.reason.contains(&second.to_string()), "{refused:?}");

    let late = service.upgrade(program("b"), &["--deadline", "300ms"]);
    assert_eq!((late.code, late.result.as_str()), (13, "refused"), "{late:?}");
    let said =
        format!("it has waited for 0.3 s for the end of process {first} or {second}: give it longer (--deadline), or");
    assert!(late.reason.contains(&said) && late.reason.ends_with("--when-draining cut"), "{late:?}");

    let waits = service.begin_upgrade(program("b"), &[]);
    let busy = wait_until("it waits", || {
        let other = service.upgrade(program("b"), &["--when-draining", "refuse"]);
        other.reason.contains("upgrade waits already").then_some(other)
    });
    assert_eq!(busy.code, 13);
    let third = service.daemon_pid();
    drop(two);
    assert_eq!(waits.wait().result, "committed", "the second has ended");
    wait_until("the third has nobody to serve", || (!lives(second) && !lives(third)).then_some(()));
    wait_until("the first drains on", || (draining(&service) == [first]).then_some(()));

    let (fourth, mut four) = replace(&service, "a", &[]);
    let cut = service.upgrade(program("b"), &["--when-draining", "cut"]);
    assert_eq!(cut.result, "committed", "{cut:?}");
    wait_until("the oldest is ended", || (!lives(first)).then_some(()));
    assert_eq!(one.ask(), None);
    assert_eq!(four.ask(), Some(fourth));
    wait_until("the other drains on", || (draining(&service) == [fourth]).then_some(()));
    assert_eq!(heard(&service, first).last().unwrap(), "replaced", "it was asked to end, and did");
}

#[test]
fn a_drain_ends_with_its_grace() {
    let service = start(&[]);
    let (first, mut held) = replace(&service, "b", &["--drain-grace", "500ms"]);
    wait_until("its end", || (!lives(first)).then_some(()));
    assert_eq!(held.ask(), None);
    assert_eq!(heard(&service, first), ["begun", "serves", "drain after commit", "replaced"]);
    assert!(request(service.address).is_ok());
}

#[test]
fn one_that_hangs_is_ended() {
    let mut service = Service::place();
    service.environment.push(("OVERLAP_LOG", service.path("log")));
    let hangs = variant(&service, &[("OVERLAP_FAULT", "hangs-in-drain")]);
    service.launch(&hangs, &[]);
    let first = service.daemon_pid();
    assert_eq!(service.upgrade(program("b"), &["--drain-grace", "200ms"]).result, "committed");
    wait_until("it is ended", || (!lives(first)).then_some(()));
    assert_eq!(heard(&service, first), ["begun", "serves", "drain after commit"]);
}

#[test]
fn one_that_crashes_is_in_the_log() {
    let service = start(&[]);
    let (first, held) = replace(&service, "b", &[]);
    signal(first, SIGSEGV);
    let crashed = "a process that was replaced has crashed: killed by signal 11 (SIGSEGV)";
    wait_until("it is said", || service.stderr().contains(crashed).then_some(()));
    drop(held);
}

#[test]
fn a_drain_that_fails_is_the_end_as_well() {
    let mut service = Service::place();
    service.environment.push(("OVERLAP_LOG", service.path("log")));
    let fails = variant(&service, &[("OVERLAP_FAULT", "drain-fails")]);
    service.launch(&fails, &[]);
    let first = service.daemon_pid();
    assert_eq!(service.upgrade(program("b"), &[]).result, "committed");
    wait_until("its end", || (!lives(first)).then_some(()));
    assert_eq!(heard(&service, first), ["begun", "serves", "drain after commit", "replaced"]);
}

#[test]
fn a_stop_ends_those_that_drain_as_well() {
    let mut service = start(&[]);
    let (first, _held) = replace(&service, "b", &[]);
    let second = service.daemon_pid();
    assert_eq!(service.stop(), Some(0));
    assert!(!lives(first) && !lives(second));
    assert_eq!(heard(&service, first).last().unwrap(), "replaced");
    assert_eq!(heard(&service, second).last().unwrap(), "stopped");
}

/// Who serves has ended by itself, and is not started again: nothing of the service is left when `handoff run` ends.
#[test]
fn the_end_of_the_service_ends_those_that_drain_as_well() {
    let mut service = start(&[]);
    let (first, mut held) = replace(&service, "b", &[]);
    let second = service.daemon_pid();
    signal(second, SIGTERM);
    assert_eq!(service.wait_for_end(), Some(0));
    assert!(!lives(first) && !lives(second));
    let said = format!("kv: the daemon has ended: exit status 0; waits for the end of process {first}\n");
    assert!(service.stderr().contains(&said), "{}", service.stderr());
    assert_eq!(held.ask(), None);
    assert_eq!(heard(&service, first).last().unwrap(), "replaced", "it was asked to end, and did");
    let names = fs::read_dir(service.path("run")).unwrap().map(|entry| entry.unwrap().file_name());
    let output: Vec<_> = names.filter(|name| name.to_str().unwrap().ends_with(".stderr")).collect();
    assert!(output.is_empty(), "{output:?}");
}

/// There is nobody to replace any more, and no minute for those that drain.
#[test]
fn what_is_said_while_the_service_ends() {
    let mut service = start(&[]);
    let (first, _held) = replace(&service, "b", &[]);
    let back = service.command("rollback").output().unwrap();
    assert_eq!(back.status.code(), Some(0), "{back:?}");
    service.wait_for_phase("idle");
    assert_eq!(service.status().unwrap()["why"], "rolled back");
    freeze(first);
    signal(service.daemon_pid(), SIGTERM);
    let status = wait_until("its end", || service.status().filter(|status| status["state"] == "stopping"));
    assert_eq!(status["draining"][0]["pid"], first, "{status}");
    assert!(status["draining"][0]["left_ms"].as_u64().unwrap() <= 10_000, "{status}");
    for command in ["upgrade", "rollback"] {
        let refused = service.command(command).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(13) && said.contains("the service is stopping"), "{said}");
    }
    thaw(first);
    assert_eq!(service.wait_for_end(), Some(0));
}

#[test]
fn a_supervisor_that_comes_back_lets_them_drain_on() {
    let mut service = start(&[]);
    let (first, mut held) = replace(&service, "b", &[]);
    let second = service.daemon_pid();
    service.kill_supervisor();
    assert_eq!((held.ask(), request(service.address).unwrap()), (Some(first), second));
    service.launch(program("b"), &[]);
    assert_eq!((service.daemon_pid(), draining(&service)), (second, vec![first]));
    let status = service.status().unwrap();
    assert_eq!((&status["draining"][0]["generation"], &status["mode"]), (&1.into(), &"overlap".into()));
    // It has nearly all of its minute left.
    assert!(status["draining"][0]["left_ms"].as_u64().unwrap() > 10_000, "{status}");
    assert_eq!(service.upgrade(program("a"), &[]).result, "committed");
    assert_eq!(held.ask(), Some(first));
    drop(held);
    wait_until("its end", || draining(&service).is_empty().then_some(()));
    assert!(!lives(first));
}

#[test]
fn one_that_drains_keeps_no_cold_start_out() {
    let service = start(&[]);
    let (first, mut held) = replace(&service, "b", &[]);
    let second = service.daemon_pid();
    crate::support::signal(second, crate::support::SIGKILL);
    let third = wait_until("somebody serves", || request(service.address).ok().filter(|pid| *pid != second));
    assert_ne!(third, first);
    assert_eq!(held.ask(), Some(first), "it serves its client to the end");
    assert_eq!(draining(&service), [first]);
}

/// A command that waits, and what `status` says of it.
fn waits(service: &Service, subcommand: &str, arguments: &[&str]) -> (Child, Value, String) {
    service.wait_for_phase("idle");
    wait_until("one drains", || (!draining(service).is_empty()).then_some(()));
    let mut command = service.command(subcommand);
    let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waits = wait_until("it waits", || Some(service.status()?["waits"].clone()).filter(Value::is_object));
    let said = service.command("status").output().unwrap();
    (child, waits, String::from_utf8_lossy(&said.stdout).into_owned())
}

#[test]
fn what_waits_is_shown_and_ends_with_its_command() {
    let service = start(&["--max-draining", "1"]);
    let (first, mut held) = replace(&service, "b", &[]);
    let second = service.daemon_pid();
    let (child, waits, said) = waits(&service, "upgrade", &["--binary", text(program("a"))]);
    assert_eq!((&waits["what"], &waits["pids"]), (&"upgrade".into(), &serde_json::json!([first])));
    let line = format!("waits      upgrade, for the end of process {first}, for ");
    assert!(said.contains(&line) && said.contains("given up when its command ends"), "{said}");

    // Neither of them takes its place, and none is ended for it.
    for what in ["wait", "refuse", "cut"] {
        let busy = service.upgrade(program("a"), &["--when-draining", what]);
        assert_eq!((busy.code, busy.result.as_str()), (13, "refused"), "{busy:?}");
        let words = [format!("upgrade waits already, for the end of process {first};"), "when its command ends".into()];
        assert!(words.iter().all(|word| busy.reason.contains(word)), "{busy:?}");
    }
    assert_eq!(held.ask(), Some(first));

    signal(child.id() as i32, SIGINT);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, format!("kv: waits for the end of process {first}\n"));
    wait_until("it is given up", || service.status()?["waits"].is_null().then_some(()));
    wait_until("that is said", || service.stderr().contains("given up before it began").then_some(()));
    assert_eq!((service.daemon_pid(), held.ask()), (second, Some(first)));
    let cut = service.upgrade(program("a"), &["--when-draining", "cut"]);
    assert_eq!(cut.result, "committed", "{cut:?}");
    assert_eq!(held.ask(), None);
}

#[test]
fn a_command_that_does_not_wait_so_long_says_that_nothing_has_begun() {
    let service = start(&["--max-draining", "1"]);
    let (first, mut held) = replace(&service, "b", &[]);
    let second = service.daemon_pid();
    for command in ["upgrade", "rollback"] {
        let output = service.command(command).args(["--timeout", "5s"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        let words = format!("timed out: it has not begun, and is given up: waits for the end of process {first}\n");
        assert!(said.contains(&words), "{said}");
        let given_up =
            format!("kv: {command} refused; process {second} serves (generation 2): given up before it began");
        wait_until("it is given up", || service.stderr().contains(&given_up).then_some(()));
    }
    assert_eq!(held.ask(), Some(first));
}

#[test]
fn a_way_back_waits_too_or_not() {
    let service = start(&["--max-draining", "1"]);
    let (first, held) = replace(&service, "b", &[]);
    let refused = service.command("rollback").args(["--when-draining", "refuse"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(13), "{refused:?}");
    let (child, waits, _) = waits(&service, "rollback", &[]);
    assert_eq!((&waits["what"], &waits["pids"]), (&"rollback".into(), &serde_json::json!([first])));
    drop(held);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // Until then the next client may be its.
    wait_until("nobody drains", || (service.daemons() == [service.daemon_pid()]).then_some(()));

    let (second, mut held) = replace(&service, "b", &[]);
    let cut = service.command("rollback").args(["--when-draining", "cut"]).output().unwrap();
    assert_eq!(cut.status.code(), Some(0), "{cut:?}");
    assert_eq!(held.ask(), None);
    wait_until("it is ended", || (!lives(second)).then_some(()));
}
