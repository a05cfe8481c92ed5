//! A supervisor that is killed, and the next one.

use crate::clients::{Load, replace, request, run, serving, upgrade};
use crate::failures::DEAF;
use crate::harness::{Place, Run, lives, pid_of, signal, text, wait_until};
use crate::small::{own_address, small};
use nix::sys::signal::Signal;

const ARGUMENTS: &str = "--listen web=127.0.0.1:0 --listen other=127.0.0.1:0 --mode overlap --ready notify";

fn killed(mut run: Run<'_>) {
    signal(run.pid(), Signal::SIGKILL);
    run.end();
}

#[test]
fn the_next_supervisor_takes_the_daemon_over_with_its_listeners() {
    let place = Place::new();
    let program = small(&place, "good", "notify say=STATUS=heard");
    let first_run = run(&place, ARGUMENTS, &[text(&program)]);
    let (pid, address) = serving(&first_run);
    let load = Load::start(address);
    let pid = replace(&place, pid, None);
    killed(first_run);
    let run = run(&place, ARGUMENTS, &[text(&program)]);
    assert_eq!(serving(&run), (pid, address));
    run.wait_for_text("adopted");
    // The socket has the same name, and what the daemon sends there now is heard.
    signal(pid, Signal::SIGUSR2);
    run.wait_for("its words", |service| service["says"]["status"] == "heard");
    let next = replace(&place, pid, None);
    load.expect_good(&[pid]);
    assert_eq!(request(address).unwrap(), next);
    // A crash is dealt with as ever.
    signal(next, Signal::SIGKILL);
    let last = wait_until("an answer", || request(address).ok());
    assert_ne!(last, next);
}

#[test]
fn a_successor_that_was_not_ready_is_given_up_by_the_next_supervisor() {
    let place = Place::new();
    let (program, hang) = (small(&place, "good", "notify"), small(&place, "hang", "hang"));
    let first_run = run(&place, ARGUMENTS, &[text(&program)]);
    let (_, address) = serving(&first_run);
    let (mut upgrading, incumbent, successor) = crate::failures::waiting(&place, &first_run, &hang);
    killed(first_run);
    assert_ne!(upgrading.end(), 0);
    let run = run(&place, ARGUMENTS, &[text(&program)]);
    let service = run.wait_for("an outcome", |service| service["last_handoff"]["result"] == "rolled_back");
    assert_eq!(pid_of(&service), incumbent, "{service}");
    wait_until("the successor's end", || (!lives(successor)).then_some(()));
    assert_eq!(request(address).unwrap(), incumbent);
}

#[test]
fn a_successor_that_is_alone_is_kept_by_the_next_supervisor() {
    let place = Place::new();
    let (program, slow) = (small(&place, "good", "notify"), small(&place, "slow", "notify after=1"));
    let first_run = run(&place, ARGUMENTS, &[text(&program)]);
    let (_, address) = serving(&first_run);
    let (_upgrading, incumbent, successor) = crate::failures::waiting(&place, &first_run, &slow);
    killed(first_run);
    signal(incumbent, Signal::SIGKILL);
    wait_until("the incumbent's end", || (!lives(incumbent)).then_some(()));
    let run = run(&place, ARGUMENTS, &[text(&program)]);
    assert_eq!(serving(&run), (successor, address));
    assert_eq!(request(address).unwrap(), successor);
}

/// Only one is left: it was undone, does not end before its grace is over, and has the listener.
#[test]
fn one_that_was_undone_does_not_keep_the_next_supervisor_from_its_address() {
    let place = Place::new();
    let (program, deaf) = (small(&place, "good", "notify"), place.file("deaf", DEAF, 0o755));
    let first_run = run(&place, "--listen web=127.0.0.1:0 --mode overlap --ready notify", &[text(&program)]);
    let (first, address) = serving(&first_run);
    assert_eq!(upgrade(&place, Some(&deaf), "--ready-timeout 300ms --drain-grace 8s").0, 10);
    let service = first_run.wait_for("the undone one", |service| service["draining"][0]["generation"] == 0);
    let undone = service["draining"][0]["pid"].as_i64().unwrap() as i32;
    killed(first_run);
    signal(first, Signal::SIGKILL);
    wait_until("the daemon's end", || (!lives(first)).then_some(()));
    assert!(lives(undone), "it ignores its stop signal");
    let run = run(&place, &format!("--listen web={address} --mode overlap --ready notify"), &[text(&program)]);
    let (next, at) = serving(&run);
    assert_eq!((request(address).unwrap(), at), (next, address));
    let service = run.wait_for("it is known", |service| service["pid"] == next);
    let draining = &service["draining"];
    assert!(!lives(undone) || draining[0]["pid"] == undone, "{service}");
    wait_until("it is killed after its grace", || (!lives(undone)).then_some(()));
    run.wait_for("nobody else has started", |service| service["restarts"] == 0);
    replace(&place, next, Some(&program));
}

/// The same of one that was replaced, and serves its last client; another address can be had meanwhile, too.
#[test]
fn one_that_drains_does_not_either() {
    for other in [false, true] {
        let place = Place::new();
        let go = place.path("go");
        let slow = small(&place, "slow", &format!("notify until={}", text(&go)));
        let good = small(&place, "good", "notify");
        let first_run = run(&place, "--listen web=127.0.0.1:0 --mode overlap --ready notify", &[text(&slow)]);
        let (first, address) = serving(&first_run);
        let answer = std::thread::spawn(move || request(address));
        first_run.wait_for_text("asked");
        let (code, outcome) = upgrade(&place, Some(&good), "");
        assert_eq!(code, 0, "{outcome}");
        killed(first_run);
        let second = pid_of(&outcome);
        signal(second, Signal::SIGKILL);
        wait_until("the successor's end", || (!lives(second)).then_some(()));
        let wanted = if other { own_address() } else { address };
        let run = run(&place, &format!("--listen web={wanted} --mode overlap --ready notify"), &[text(&good)]);
        let (next, at) = serving(&run);
        assert_eq!((request(wanted).unwrap(), at), (next, wanted));
        let service = run.wait_for("the old one drains", |service| service["draining"][0]["pid"] == first);
        assert_eq!(service["draining"][0]["generation"], 1, "{service}");
        std::fs::write(&go, "").unwrap();
        assert_eq!(answer.join().unwrap().unwrap(), first, "its last client");
    }
}
