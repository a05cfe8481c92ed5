//! What goes wrong: successors that are no good, deaths, stops.

use crate::clients::{Load, replace, request, run, serving, upgrade};
use crate::harness::{Place, Run, lives, pid_of, signal, text, wait_until};
use crate::small::small;
use crate::support::{compile, programs};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const OVERLAP: &str = "--listen web=127.0.0.1:0 --mode overlap --ready notify";
/// A program that is never ready, and ignores its stop signal.
pub const DEAF: &str = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n";

/// A daemon that runs, and an upgrade of it that waits for the successor's readiness: the pids of both.
pub fn waiting<'a>(place: &'a Place, run: &Run<'_>, binary: &Path) -> (Run<'a>, i32, i32) {
    let (incumbent, _) = serving(run);
    let mut command = place.handoff("upgrade");
    let upgrading = place.spawn({
        command.args(["--binary", text(binary)]);
        command
    });
    run.wait_for("the successor is waited for", |service| service["phase"] == "waiting for readiness");
    let children = wait_until("two daemons", || {
        let children = crate::support::children(run.pid());
        (children.len() == 2).then_some(children)
    });
    let successor = children.into_iter().find(|pid| *pid != incumbent).unwrap();
    (upgrading, incumbent, successor)
}

#[test]
fn a_successor_that_is_never_ready_is_told_to_stop_before_it_is_killed() {
    let place = Place::new();
    // It accepts, and answers, but never says that it is ready.
    let (good, bad) = (small(&place, "good", "notify"), small(&place, "bad", ""));
    let run = run(&place, OVERLAP, &[text(&good)]);
    let (incumbent, address) = serving(&run);
    let load = Load::start(address);
    let (code, outcome) = upgrade(&place, Some(&bad), "--ready-timeout 3s"); // longer than its start takes
    assert_eq!(
        (code, outcome["reason"].as_str(), pid_of(&outcome)),
        (10, Some("the successor was not ready in time"), incumbent)
    );
    run.wait_for("its end", |service| service["draining"].as_array().is_some_and(Vec::is_empty));
    assert!(run.stderr().contains("told to stop"), "{}", run.stderr());
    // What it had accepted, it has answered.
    load.expect_good(&[incumbent]);
}

#[test]
fn a_probation_is_refused() {
    let place = Place::new();
    let good = small(&place, "good", "notify");
    let run = run(&place, OVERLAP, &[text(&good)]);
    let (incumbent, address) = serving(&run);
    let load = Load::start(address);
    let (code, outcome) = upgrade(&place, Some(&good), "--probation 10m");
    let reason = outcome["reason"].as_str().unwrap();
    assert!(code == 13 && reason.contains("has no probation"), "{outcome}");
    load.expect_good(&[incumbent]);
}

#[test]
fn a_successor_that_ignores_its_stop_signal_is_killed_after_the_grace() {
    let place = Place::new();
    let good = small(&place, "good", "notify");
    let deaf = place.file("deaf", DEAF, 0o755);
    let run = run(&place, OVERLAP, &[text(&good)]);
    let (incumbent, _) = serving(&run);
    assert_eq!(upgrade(&place, Some(&deaf), "--ready-timeout 300ms --drain-grace 300ms").0, 10);
    let service = run.wait_for("its end", |service| service["draining"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(pid_of(&service), incumbent);
    wait_until("its end", || (crate::support::children(run.pid()) == [incumbent]).then_some(()));
}

/// Although it could take longer to be ready.
#[test]
fn a_handoff_ends_at_its_deadline() {
    let place = Place::new();
    let good = small(&place, "good", "notify");
    let deaf = place.file("deaf", DEAF, 0o755);
    let run = run(&place, OVERLAP, &[text(&good)]);
    let (incumbent, _) = serving(&run);
    assert_eq!(upgrade(&place, Some(&deaf), "--deadline 300ms --drain-grace 300ms").0, 10);
    assert_eq!(pid_of(&run.wait_for("it is idle", |service| service["phase"] == "idle")), incumbent);
}

/// It never was a process of the service: the next one has that number.
#[test]
fn one_that_is_undone_has_no_number_while_it_drains() {
    let place = Place::new();
    let good = small(&place, "good", "notify");
    let deaf = place.file("deaf", DEAF, 0o755);
    let run = run(&place, OVERLAP, &[text(&good)]);
    serving(&run);
    assert_eq!(upgrade(&place, Some(&deaf), "--ready-timeout 2s").0, 10);
    let service = run.wait_for("it is idle", |service| service["phase"] == "idle");
    let undone = &service["draining"][0];
    assert_eq!((&undone["generation"], &service["generation"]), (&0.into(), &1.into()), "{service}");
    let status = place.output("status", &[]).stdout;
    assert!(status.contains(&format!("draining   process {} (undone), for ", undone["pid"])), "{status}");
    let (code, outcome) = upgrade(&place, Some(&good), "");
    assert_eq!((code, &outcome["generation"]), (0, &2.into()), "{outcome}");
}

#[test]
fn a_program_that_can_not_be_executed_is_refused() {
    let place = Place::new();
    let (good, bad) = (small(&place, "good", "notify"), place.file("bad", "no program", 0o755));
    let run = run(&place, OVERLAP, &[text(&good)]);
    let (incumbent, address) = serving(&run);
    let (code, outcome) = upgrade(&place, Some(&bad), "");
    assert_eq!((code, outcome["result"].as_str()), (13, Some("refused")), "{outcome}");
    assert_eq!(request(address).unwrap(), incumbent);
}

/// The incumbent dies while the successor starts: nobody else is there, and it is not given up.
#[test]
fn an_incumbent_that_dies_leaves_the_service_to_its_successor() {
    let place = Place::new();
    let good = small(&place, "good", "notify");
    let slow = small(&place, "slow", "notify after=2");
    let run = run(&place, OVERLAP, &[text(&good)]);
    let (_, address) = serving(&run);
    let (mut upgrading, incumbent, successor) = waiting(&place, &run, &slow);
    signal(incumbent, Signal::SIGKILL);
    assert_eq!(upgrading.end(), 0, "{}", upgrading.stderr());
    let service = run.wait_for("the successor", |service| service["state"] == "running");
    assert_eq!((pid_of(&service), &service["restarts"]), (successor, &serde_json::json!(0)));
    assert!(service["last_handoff"]["reason"].as_str().unwrap().contains("signal 9"), "{service}");
    assert_eq!(request(address).unwrap(), successor);
    // From here on all is as ever.
    replace(&place, successor, Some(&good));
}

#[test]
fn when_both_die_the_old_program_is_started_again() {
    let place = Place::new();
    let (good, hang) = (small(&place, "good", "notify"), small(&place, "hang", "hang"));
    let run = run(&place, OVERLAP, &[text(&good)]);
    let (_, address) = serving(&run);
    let (mut upgrading, incumbent, successor) = waiting(&place, &run, &hang);
    signal(incumbent, Signal::SIGKILL);
    wait_until("the incumbent's end", || (!lives(incumbent)).then_some(()));
    signal(successor, Signal::SIGKILL);
    assert_eq!(upgrading.end(), 1, "{}", upgrading.stderr());
    let next = wait_until("an answer", || request(address).ok());
    assert!(next != incumbent && next != successor);
    let service = run.wait_for("it serves again", |service| service["state"] == "running");
    assert_eq!((pid_of(&service), service["program"].as_str()), (next, Some(text(&good))), "{service}");
}

#[test]
fn a_stop_ends_both() {
    let place = Place::new();
    let (good, hang) = (small(&place, "good", "notify"), small(&place, "hang", "hang"));
    let mut run = run(&place, OVERLAP, &[text(&good)]);
    let (_, incumbent, successor) = waiting(&place, &run, &hang);
    signal(run.pid(), Signal::SIGTERM);
    assert_eq!(run.end(), 0, "the incumbent's own");
    assert!(!lives(incumbent) && !lives(successor));
    assert!(run.stderr().contains("rolled back"), "{}", run.stderr());
}

/// A long answer is given to its end by a process that was replaced; a stop of the service waits for it, too.
#[test]
fn what_was_accepted_is_answered_by_who_accepted_it() {
    let place = Place::new();
    let (slow, good) = (small(&place, "slow", "notify think=2"), small(&place, "good", "notify"));
    let mut run = run(&place, OVERLAP, &[text(&slow)]);
    let (first, address) = serving(&run);
    let client = std::thread::spawn(move || request(address).unwrap());
    wait_until("the request is accepted", || {
        (std::fs::read_dir(format!("/proc/{first}/task")).unwrap().count() > 1).then_some(())
    });
    let (code, outcome) = upgrade(&place, Some(&good), "");
    assert_eq!(code, 0, "{outcome}");
    let service = run.wait_for("the old one drains", |service| service["pid"] == outcome["pid"]);
    assert_eq!(service["draining"][0]["pid"], first, "{service}");
    signal(run.pid(), Signal::SIGTERM);
    assert_eq!(client.join().unwrap(), first);
    assert_eq!(run.end(), 0);
}

#[test]
fn a_successor_that_links_the_library_is_refused_by_an_incumbent_that_does_not() {
    let kv = programs().kv_a.clone();
    for linked in [kv, overlap_daemon()] {
        let place = Place::new();
        let (good, data) = (small(&place, "good", "notify"), place.path("data"));
        std::fs::create_dir(&data).unwrap();
        let run = run(&place, &format!("{OVERLAP} --data-dir {}", text(&data)), &[text(&good)]);
        let (incumbent, address) = serving(&run);
        let (code, outcome) = upgrade(&place, Some(&linked), "");
        let reason = outcome["reason"].as_str().unwrap();
        assert!(code == 13 && reason.contains("links libhandoff, but the incumbent does not"), "{outcome}");
        assert!(reason.contains("stop the service and start it with the new program"), "{outcome}");
        assert_eq!(request(address).unwrap(), incumbent);
    }
}

/// With a sign and without: what the successor says by it does not count, as the incumbent can be replaced by a Hello only.
#[test]
fn a_successor_that_never_says_hello_does_not_replace_a_daemon_that_links_the_library() {
    for sign in ["--ready notify", ""] {
        let place = Place::new();
        let silent = small(&place, "silent", if sign.is_empty() { "" } else { "notify" });
        let run = run(&place, &format!("--listen kv=127.0.0.1:0 --mode overlap {sign}"), &[text(&overlap_daemon())]);
        let (incumbent, address) = serving(&run);
        run.wait_for("its Hello", |service| service["linked"] == true);
        let (code, outcome) = upgrade(&place, Some(&silent), "--hello-timeout 1s");
        assert_eq!((code, outcome["result"].as_str()), (10, Some("rolled_back")), "{outcome}");
        let reason = outcome["reason"].as_str().unwrap();
        let words = ["did not say Hello in time", "does not link libhandoff", "start it with the new program"];
        assert!(words.iter().all(|word| reason.contains(word)), "{outcome}");
        wait_until("its end", || (crate::support::children(run.pid()) == [incumbent]).then_some(()));
        assert_eq!(answer(address), incumbent);
    }
}

/// The daemon of `tests/overlap`.
fn overlap_daemon() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile("overlap-beside", "ffi-tests/c/overlap.c", &["-DBUILD=\"a\""])).clone()
}

/// The pid in its answer.
fn answer(address: SocketAddr) -> i32 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"PING\n").unwrap();
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).unwrap();
    reply.split(' ').nth(1).and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("{reply:?}"))
}
