//! `handoff events`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::metrics::scrape;
use crate::support::{SIGTERM, Service, programs, signal, wait_until};
use crate::{Client, text};

const SIGUSR1: i32 = 10;

/// Each signal that the daemon does not handle is an event.
fn cause_event(service: &Service) {
    signal(service.supervisor_pid(), SIGUSR1);
}

#[test]
fn every_step_is_told_with_its_time_and_its_service() {
    let service = Service::start(&programs().kv_a);
    let mut client = Client::following(&service);
    let upgrade = service.upgrade(&programs().kv_b, &[]);
    assert_eq!(upgrade.code, 0, "{upgrade:?}");
    let (mut phases, mut others) = (Vec::new(), Vec::new());
    loop {
        let message = client.next().expect("events to the end");
        let event = message["params"].clone();
        assert_eq!((&message["method"], &event["service"]), (&json!("event"), &json!("kv")), "{message}");
        let time = event["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
        match event["event"].as_str().unwrap() {
            "phase" => phases.push(event["phase"].as_str().unwrap().to_owned()),
            other => others.push(other.to_owned()),
        }
        let over = phases.last().is_some_and(|phase| phase == "idle");
        if over && ["outcome", "started"].iter().all(|wanted| others.iter().any(|event| event == wanted)) {
            break;
        }
    }
    for phase in ["spawning", "warming", "draining", "sealing", "opening", "committing"] {
        assert!(phases.iter().any(|found| found == phase), "{phase}: {phases:?}");
    }
    let pid = service.daemon_pid();
    signal(pid, crate::support::SIGKILL);
    let restarting = client.event("restarting");
    assert!(restarting["text"].as_str().unwrap().contains("signal 9"), "{restarting}");
    assert_eq!(restarting["cause"], "signal");
    assert_ne!(client.event("started")["pid"], pid);
}

/// Lines of the command, until its end.
fn lines(service: &Service, arguments: &[&str]) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut child = service.command("events").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

#[test]
fn the_command_prints_lines_and_ends_with_the_supervisor() {
    let mut service = Service::start(&programs().kv_a);
    let follower = |arguments: &[&str]| {
        let (child, mut lines) = lines(&service, arguments);
        // It follows when it prints something.
        let (pid, stop) = (service.supervisor_pid(), std::sync::atomic::AtomicBool::new(false));
        let mut first = String::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    signal(pid, SIGUSR1);
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            });
            lines.read_line(&mut first).unwrap();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        (child, lines, first)
    };
    let (mut plain, mut plain_lines, first) = follower(&[]);
    assert!(first.contains("Z kv: SIGUSR1 ignored"), "{first}");
    let (mut json, json_lines, first) = follower(&["--json"]);
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&first["event"], &first["service"]), (&json!("signal"), &json!("kv")));
    signal(service.supervisor_pid(), SIGTERM);
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut plain_lines, &mut rest).unwrap();
    assert!(text(&rest).trim_end().ends_with("kv: ended: exit status 0"), "{}", text(&rest));
    let last = json_lines.lines().map(Result::unwrap).last().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&last).unwrap()["event"], "ended");
    assert_eq!((plain.wait().unwrap().code(), json.wait().unwrap().code()), (Some(0), Some(0)));
    assert_eq!(service.wait_for_end(), Some(0));
}

#[test]
fn who_does_not_read_loses_events_and_hears_how_many() {
    let service = Service::start_with(&programs().kv_a, &["--metrics", "127.0.0.1:0"]);
    let mut client = Client::following(&service);
    let dropped = || {
        let text = scrape(&service);
        let line = text.lines().find_map(|line| line.strip_prefix("handoff_events_dropped_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    wait_until("dropped events", || {
        (0..50).for_each(|_| {
            cause_event(&service);
            std::thread::sleep(std::time::Duration::from_micros(50));
        });
        (dropped() > 0).then_some(())
    });
    // Others are served meanwhile.
    assert_eq!(service.status().unwrap()["state"], "running");
    let told = client.event("dropped")["events"].as_u64().unwrap();
    assert!((1..=dropped()).contains(&told), "{told}");
    cause_event(&service);
    assert_eq!(client.event("signal")["service"], "kv", "it goes on");
}

#[test]
fn followers_have_a_bound_and_others_find_room() {
    let service = Service::start(&programs().kv_a);
    let followers: Vec<Client> = (0..handoff::limits::FOLLOWERS_MAX).map(|_| Client::following(&service)).collect();
    let refused = Client::connect(&service).ask("events", json!({}));
    assert_eq!(refused["error"]["code"], -32_007, "{refused}");
    assert_eq!(service.status().unwrap()["state"], "running");
    drop(followers);
    wait_until("room again", || {
        let answer = Client::connect(&service).ask("events", json!({}));
        (answer["result"]["following"] == true).then_some(())
    });
    let none = Client::connect(&service).ask("events", json!({ "service": "other" }));
    assert_eq!(none["error"]["code"], -32_001, "{none}");
}
