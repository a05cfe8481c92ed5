//! How a process is stopped.

use super::harness::{Place, lives, wait_until};
use super::{pid_in, shut_down, up, written};
use std::fs;

#[test]
fn a_stop_goes_through_its_steps() {
    let place = Place::new();
    let log = place.path("log");
    // Deaf to all but what it writes down.
    let exec = format!(
        "for s in INT TERM USR1; do trap \"echo $s >> {0}\" $s; done; echo $$ > {0}; while :; do sleep 0.01; done",
        log.display()
    );
    let units = format!(
        "[unit.a]\nshell = true\nexec = '{exec}'\nmode = 'none'\nready = 'delay=1ms'\nstop = ['INT 100ms', 'USR1 100ms', 'TERM 100ms', 'KILL']\n"
    );
    let mut run = up(&place, &units);
    let pid = pid_in(&log);
    let said = place.output("stop", &["a"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(written(&log, 4)[1..], ["INT", "USR1", "TERM"]);
    assert!(!lives(pid));
    shut_down(&mut run);
}

#[test]
fn the_first_step_that_works_is_the_last() {
    let place = Place::new();
    let log = place.path("log");
    let exec = format!(
        "trap \"echo TERM >> {0}\" TERM; trap \"echo INT >> {0}; exit 0\" INT; echo $$ > {0}; while :; do sleep 0.01; done",
        log.display()
    );
    let units = format!(
        "[unit.a]\nshell = true\nexec = '{exec}'\nmode = 'none'\nready = 'delay=1ms'\nstop = ['TERM 100ms', 'INT 60s', 'QUIT 60s', 'KILL']\n"
    );
    let mut run = up(&place, &units);
    pid_in(&log);
    let said = place.output("stop", &["a"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(written(&log, 3)[1..], ["TERM", "INT"]);
    shut_down(&mut run);
}

#[test]
fn helpers_of_a_process_that_has_stopped_are_ended() {
    let place = Place::new();
    let (helper, ready) = (place.path("helper"), place.path("ready"));
    let exec = format!(
        "sleep 1000 & echo $! > {}; trap \"exit 0\" TERM; echo > {}; while :; do sleep 0.01; done",
        helper.display(),
        ready.display()
    );
    let units = format!("[unit.a]\nshell = true\nexec = '{exec}'\nmode = 'none'\nready = 'delay=1ms'\n");
    let mut run = up(&place, &units);
    wait_until("its start", || fs::exists(&ready).unwrap().then_some(()));
    let helper = pid_in(&helper);
    assert!(lives(helper));
    let said = place.output("stop", &["a"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!lives(helper), "it is gone when stop says so");
    shut_down(&mut run);
}
