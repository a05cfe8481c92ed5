//! A supervisor that is killed, and the next one.

use crate::clients::{Load, replace, request, run, serving};
use crate::harness::{Place, Run, lives, pid_of, signal, text, wait_until};
use crate::small::small;
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
