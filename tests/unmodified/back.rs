//! The way back to the program before.

use crate::clients::{Load, replace, request, run, serving};
use crate::harness::{Place, Run, pid_of, signal, text, wait_until};
use crate::small::small;
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;

/// `handoff rollback` that must come to this: its answer.
fn rollback(place: &Place, code: i32) -> serde_json::Value {
    let said = place.output("rollback", &["--json"]);
    assert_eq!(said.code, code, "{said:?}");
    said.json()
}

/// The service's process, when nothing is left of those before it.
fn alone(run: &Run<'_>) -> i32 {
    let service = run.wait_for("nothing drains", |service| service["draining"].as_array().is_some_and(Vec::is_empty));
    pid_of(&service)
}

/// Another file takes this path.
fn cover(place: &Place, path: &Path) {
    fs::rename(place.file("garbage", "garbage", 0o755), path).unwrap();
}

#[test]
fn a_script_that_is_not_at_its_path_any_more_serves_again() {
    let place = Place::new();
    let (one, two) = (small(&place, "one", "notify say=STATUS=1"), small(&place, "two", "notify say=STATUS=2"));
    let is_one = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("STATUS=1");
    let run = run(&place, "--listen web=127.0.0.1:0 --mode overlap --ready notify", &[text(&one)]);
    let (first, address) = serving(&run);
    assert!(is_one(first));
    let load = Load::start(address);
    wait_until("its answer", || (request(address).ok()? == first).then_some(()));
    let second = replace(&place, first, Some(&two));
    assert!(!is_one(second));
    cover(&place, &one);
    let outcome = rollback(&place, 0);
    let third = pid_of(&outcome);
    assert_eq!((outcome["result"].as_str(), alone(&run)), (Some("committed"), third), "{outcome}");
    assert!(is_one(third));
    wait_until("its answer", || (request(address).ok()? == third).then_some(()));
    load.expect_good(&[first, third]);
    // There is only one way back.
    let refused = rollback(&place, 13);
    assert!(refused["reason"].as_str().unwrap().contains("taken back already"), "{refused}");
    // A crash does not bring the path's own content.
    signal(third, Signal::SIGKILL);
    let fourth = wait_until("an answer", || request(address).ok());
    assert!(fourth != third && is_one(fourth));
}

#[test]
fn so_does_a_binary() {
    let place = Place::new();
    let [one, two] = ["one", "two"].map(|name| place.file(name, fs::read("/bin/sleep").unwrap(), 0o755));
    let run = run(&place, "--mode overlap --ready delay=200ms", &[text(&one), "1000"]);
    let first = pid_of(&run.wait_for("it runs", |service| service["state"] == "running"));
    replace(&place, first, Some(&two));
    cover(&place, &one);
    let third = pid_of(&rollback(&place, 0));
    let executed = fs::read_link(format!("/proc/{third}/exe")).unwrap();
    assert_eq!(text(&executed), format!("{} (deleted)", text(&one)));
    assert_eq!(alone(&run), third);
}
