//! What a process leaves behind: workers, and a listener that is shut down.

use crate::clients::{request, run, serving, upgrade};
use crate::harness::{Place, Run, lives, pid_of, signal, text, wait_until};
use crate::small::{own_address, small};
use nix::sys::signal::Signal;

const NOTIFY: &str = "--mode overlap --ready notify";

fn worker_of(run: &Run<'_>) -> i32 {
    run.wait_for_text("worker: ");
    let said = run.stderr();
    said.rsplit_once("worker: ").unwrap().1.split_whitespace().next().unwrap().parse().unwrap()
}

/// Whether it is the supervisor's child or not.
#[test]
fn workers_end_with_a_process_that_is_killed_after_its_grace() {
    for options in ["", "main=exit"] {
        let place = Place::new();
        let deaf = small(&place, "deaf", &format!("notify worker deaf {options}"));
        let good = small(&place, "good", "notify");
        let run = run(&place, &format!("--listen web=127.0.0.1:0 {NOTIFY}"), &[text(&deaf)]);
        let (first, address) = serving(&run);
        let worker = worker_of(&run);
        assert!(lives(worker), "{options}");
        let (code, outcome) = upgrade(&place, Some(&good), "--drain-grace 300ms");
        assert_eq!(code, 0, "{outcome}");
        wait_until("the ends of both", || (!lives(first) && !lives(worker)).then_some(()));
        assert_eq!(request(address).unwrap(), pid_of(&outcome), "{options}");
    }
}

/// And after a crash, as those of any daemon.
#[test]
fn workers_end_with_a_process_that_crashes() {
    for options in ["", "main=exit"] {
        let place = Place::new();
        let program = small(&place, "crashes", &format!("notify worker {options}"));
        let run = run(&place, &format!("--listen web=127.0.0.1:0 {NOTIFY}"), &[text(&program)]);
        let (first, _) = serving(&run);
        let worker = worker_of(&run);
        signal(first, Signal::SIGKILL);
        run.wait_for("the next", |service| service["restarts"] == 1 && service["state"] == "running");
        wait_until("its worker's end", || (!lives(worker)).then_some(()));
    }
}

/// The old one ends the listener for the new one, too, when that serves already; its end is seen.
#[test]
fn a_listener_that_the_old_process_shuts_down_is_opened_again() {
    let place = Place::new();
    let (shuts, good) = (small(&place, "shuts", "notify shut=0.5"), small(&place, "good", "notify"));
    let run = run(&place, &format!("--listen web={} {NOTIFY}", own_address()), &[text(&shuts)]);
    let (first, address) = serving(&run);
    let (code, outcome) = upgrade(&place, Some(&good), "");
    assert_eq!(code, 0, "{outcome}");
    run.wait_for_text("shut down");
    wait_until("its end", || (!lives(first)).then_some(()));
    let answered = wait_until("an answer", || request(address).ok());
    assert_eq!(answered, pid_of(&outcome));
}

/// A daemon that does so and ends is started again, on a listener that listens.
#[test]
fn so_is_one_that_was_shut_down_before_a_restart() {
    let place = Place::new();
    let shuts = small(&place, "shuts", "notify shut=0");
    let arguments = format!("--listen web={} {NOTIFY} --restart always", own_address());
    let run = run(&place, &arguments, &[text(&shuts)]);
    let (first, address) = serving(&run);
    signal(first, Signal::SIGTERM);
    let service = run.wait_for("the next", |service| service["restarts"] == 1 && service["state"] == "running");
    assert_eq!(request(address).unwrap(), pid_of(&service));
}

/// Who serves has ended by itself: the one before may finish, and whoever was the daemon's process before it ends, too.
#[test]
fn nothing_is_left_when_the_service_ends() {
    for options in ["", "main=stay", "main=exit"] {
        let place = Place::new();
        let go = place.path("go");
        let slow = small(&place, "slow", &format!("notify until={} {options}", text(&go)));
        let good = small(&place, "good", &format!("notify {options}"));
        let mut run = run(&place, &format!("--listen web=127.0.0.1:0 {NOTIFY}"), &[text(&slow)]);
        let (first, address) = serving(&run);
        let answer = std::thread::spawn(move || request(address));
        run.wait_for_text("asked");
        let (code, outcome) = upgrade(&place, Some(&good), "");
        assert_eq!(code, 0, "{outcome}");
        let second = pid_of(&outcome);
        let all: Vec<i32> = place.living().into_iter().filter(|pid| *pid != run.pid()).collect();
        assert!(all.contains(&first) && all.contains(&second), "{options}: {all:?}");
        signal(second, Signal::SIGTERM);
        run.wait_for("it waits for the first", |service| service["state"] == "stopping" && service["pid"].is_null());
        std::fs::write(&go, "").unwrap();
        assert_eq!(run.end(), 0, "{options}");
        let left: Vec<i32> = all.into_iter().filter(|pid| lives(*pid)).collect();
        assert!(left.is_empty(), "{options}: {left:?} are left");
        assert_eq!(answer.join().unwrap().unwrap(), first, "{options}");
        let names = std::fs::read_dir(place.path("runtime")).unwrap().map(|entry| entry.unwrap().file_name());
        let output: Vec<_> = names.filter(|name| name.to_str().unwrap().ends_with(".stderr")).collect();
        assert!(output.is_empty(), "{options}: {output:?}");
    }
}
