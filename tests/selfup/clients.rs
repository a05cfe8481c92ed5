//! Clients of the control socket keep their connections, and get what they wait for.

use crate::harness::{PATIENCE, Place, lives, signal, wait_until};
use crate::{must_upgrade, other_program, unit, up, wait_for_state};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

const UNITS: &str = r#"
[unit.stubborn]
exec = ["/bin/sh", "-c", "trap '' TERM; echo trapped >&2; while :; do sleep 1; done"]
mode = "none"
ready = "delay=0ms"
stop = ["TERM 30m", "KILL"]
[unit.other]
exec = ["/bin/sleep", "1000"]
mode = "none"
ready = "delay=0ms"
restart = "always"
backoff = { first = "10ms", max = "10ms" }
"#;

#[test]
fn clients_that_wait_go_on_waiting() {
    let place = Place::new();
    let run = up(&place, UNITS);
    run.wait_for_text("trapped");
    wait_for_state(&place, "other", "running");
    let mut stop = place.handoff("stop");
    stop.args(["stubborn", "--json"]).stdout(Stdio::piped());
    let mut stop = stop.spawn().unwrap();
    let mut events = place.handoff("events");
    events.args(["--json"]).stdout(Stdio::piped());
    let mut events = events.spawn().unwrap();
    let mut told = BufReader::new(events.stdout.take().unwrap()).lines();
    wait_for_state(&place, "stubborn", "stopping");
    // Half of a request, and one that is whole and was not read to its end.
    let mut half = UnixStream::connect(place.path("runtime/main.sock")).unwrap();
    half.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "{\"jsonrpc\":\"2.0\",\"handoff\":1,\"id\":\"x\",\"method\":\"status\"}\n";
    let (first, second) = request.split_at(30);
    half.write_all(first.as_bytes()).unwrap();
    // It was read, since what comes after it on another connection was answered.
    unit(&place, "other");
    let other = other_program(&place);
    let own = crate::executes(run.pid());
    for program in [&other, &own, &other] {
        must_upgrade(&place, program);
    }
    half.write_all(second.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(&half).read_line(&mut line).unwrap();
    let answer: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&answer["id"], &answer["result"]["supervisor"]["self_upgrades"]), (&"x".into(), &3.into()), "{line}");

    // Events of before and after, in their order, on one connection.
    let pid = unit(&place, "other")["pid"].as_i64().unwrap() as i32;
    signal(pid, Signal::SIGKILL);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|event| event != "started") {
        let event: Value = serde_json::from_str(&told.next().unwrap().unwrap()).unwrap();
        seen.push(event["event"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen.iter().filter(|event| *event == "self_upgrade").count(), 3, "{seen:?}");
    assert!(stop.try_wait().unwrap().is_none() && events.try_wait().unwrap().is_none());

    signal(unit(&place, "stubborn")["pid"].as_i64().unwrap() as i32, Signal::SIGKILL);
    let status = wait_until("stop has its answer", || stop.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    events.kill().unwrap();
    events.wait().unwrap();
    assert!(lives(run.pid()));
}
