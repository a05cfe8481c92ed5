//! The exit code of the main process is that of the container; signals reach it.

use crate::harness::{Place, signal, wait_until};
use crate::namespace::{can_unshare, closing, init, run};
use nix::sys::signal::Signal;
use std::fs;

#[test]
fn the_exit_code_of_the_main_process_is_ours() {
    if !can_unshare() {
        return;
    }
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 128 + 9), ("kill -TERM $$", 128 + 15)] {
        let place = Place::new();
        let script = format!("(setsid sleep 1000 &); {script}");
        let mut run = run(&place, &[], &["--restart", "never"], &script);
        assert_eq!(run.end(), code, "{script}");
        wait_until("nothing is left in the namespace", || place.living().is_empty().then_some(()));
    }
}

#[test]
fn sigterm_from_outside_and_from_inside_stops_it() {
    if !can_unshare() {
        return;
    }
    let waits = "echo ready >&2; while :; do sleep 0.05; done";
    for (traps, code) in [("trap 'exit 5' TERM;", 5), ("", 128 + 15)] {
        let place = Place::new();
        let mut run = run(&place, &[], &[], &format!("{traps} {waits}"));
        run.wait_for_text("ready");
        signal(init(&run), Signal::SIGTERM);
        assert_eq!(run.end(), code, "{traps}");
    }
    let place = Place::new();
    let mut run = run(&place, &[], &[], &format!("trap 'exit 6' TERM; kill -TERM 1; {waits}"));
    assert_eq!(run.end(), 6);
}

#[test]
fn signals_of_the_table_reach_a_main_process_that_handles_them() {
    if !can_unshare() {
        return;
    }
    let place = Place::new();
    let traps: String =
        ["HUP", "USR1", "USR2", "WINCH"].map(|name| format!("trap 'echo got {name} >&2' {name};")).concat();
    let mut run = run(&place, &[], &[], &format!("{traps} echo ready >&2; while :; do sleep 0.05; done"));
    run.wait_for_text("ready");
    let init = init(&run);
    for name in ["HUP", "USR1", "USR2", "WINCH"] {
        signal(init, format!("SIG{name}").parse().unwrap());
        run.wait_for_text(&format!("got {name}"));
    }
    signal(init, Signal::SIGTERM);
    assert_eq!(run.end(), 128 + 15);
}

#[test]
fn without_standard_descriptors_and_terminal() {
    if !can_unshare() {
        return;
    }
    for redirections in ["<&-", "<&- >&- 2>&-"] {
        let place = Place::new();
        let found = place.path("found");
        let script = format!("for n in 0 1 2; do readlink /proc/self/fd/$n; done > {}; exit 7", found.display());
        let mut run = run(&place, &closing(redirections), &["--restart", "never"], &script);
        assert_eq!(run.end(), 7, "{redirections}");
        // What is its own output is no socket and no lock of ours.
        let found = fs::read_to_string(found).unwrap();
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, "/dev/null"), "{redirections}: {found}");
        assert!(!lines[2].contains("socket:") && !lines[2].ends_with(".lock"), "{found}");
    }
}
