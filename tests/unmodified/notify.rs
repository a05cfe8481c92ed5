//! NOTIFY_SOCKET: what is believed, what is kept, what is left out.

use crate::clients::{replace, request, run, serving, upgrade};
use crate::harness::{Place, pid_of, signal, text};
use crate::small::small;
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

const NOTIFY: &str = "--listen web=127.0.0.1:0 --mode overlap --ready notify";

#[test]
fn a_start_is_over_when_the_daemon_says_so() {
    let place = Place::new();
    let program = small(&place, "late", "notify after=2");
    let run = run(&place, NOTIFY, &[text(&program)]);
    let service = run.wait_for("it starts", |service| service["pid"].is_i64());
    assert_eq!(service["state"], "starting", "{service}");
    let (code, outcome) = upgrade(&place, None, "");
    assert_eq!(code, 13, "{outcome}");
    let service = run.wait_for("it serves", |service| service["state"] == "running");
    assert_eq!(service["says"]["status"], "ready to serve");
    assert_eq!((service["mode"].as_str(), service["ready"].as_str()), (Some("overlap"), Some("notify")));
    let shown = place.output("status", &[]).stdout;
    assert!(shown.contains("says       ready to serve\n") && shown.contains("ready      notify\n"), "{shown}");
}

#[test]
fn a_start_that_takes_too_long_is_ended_and_begun_again() {
    let place = Place::new();
    let script = "#!/bin/sh\ntrap 'echo told to stop >&2; exit' TERM\nwhile :; do sleep 0.1; done\n";
    let program = place.file("never", script, 0o755);
    let run = run(&place, &format!("{NOTIFY} --ready-timeout 1s --restart always"), &[text(&program)]);
    let service = run.wait_for("a restart", |service| service["restarts"].as_u64() > Some(0));
    assert!(run.stderr().contains("was not ready in time"), "{service}");
    run.wait_for_text("told to stop");
}

/// Ten thousand messages of a process that is none of the service's, with a lie in each.
#[test]
fn strangers_are_not_heard_and_keep_nobody_from_his_work() {
    let place = Place::new();
    let (good, hang) = (small(&place, "good", "notify"), small(&place, "hang", "hang"));
    let run = run(&place, NOTIFY, &[text(&good)]);
    let (incumbent, address) = serving(&run);
    let path = place.path("runtime/web.notify");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let liar = std::thread::spawn(move || {
        let socket = UnixDatagram::unbound().unwrap();
        for _ in 0..10_000 {
            socket.send_to(b"READY=1\nSTATUS=a lie\nMAINPID=2\nSTOPPING=1", &path).unwrap();
        }
    });
    let (code, outcome) = upgrade(&place, Some(&hang), "--ready-timeout 1s");
    assert_eq!((code, outcome["reason"].as_str()), (10, Some("the successor was not ready in time")));
    liar.join().unwrap();
    let service = run.wait_for("an answer", |service| service["state"] == "running");
    assert_eq!(
        (pid_of(&service), service["says"]["status"].as_str()),
        (incumbent, Some("ready to serve")),
        "{service}"
    );
    assert_eq!(service["says"]["stopping"], false);
    assert_eq!(request(address).unwrap(), incumbent);
}

#[test]
fn what_a_daemon_says_later_is_shown() {
    let place = Place::new();
    let program = small(&place, "good", "notify say=RELOADING=1,STATUS=reloads");
    let run = run(&place, NOTIFY, &[text(&program)]);
    let (pid, _) = serving(&run);
    signal(pid, Signal::SIGUSR2);
    let service = run.wait_for("its words", |service| service["says"]["status"] == "reloads");
    assert_eq!(service["says"]["reloading"], true);
}

#[test]
fn more_time_is_given_to_who_asks_for_it() {
    let place = Place::new();
    let (good, slow) = (small(&place, "good", "notify"), small(&place, "slow", "notify after=4 more=60"));
    let run = run(&place, NOTIFY, &[text(&good)]);
    let (first, _) = serving(&run);
    // The start of an interpreter fits into its time, what comes after that does not.
    let (code, outcome) = upgrade(&place, Some(&slow), "--ready-timeout 3s");
    assert_eq!((code, outcome["result"].as_str()), (0, Some("committed")), "{outcome}");
    assert_ne!(pid_of(&outcome), first);
}

#[test]
fn descriptors_are_kept_for_the_next_one() {
    let place = Place::new();
    let program = small(&place, "keeper", "notify store=cache");
    let run = run(&place, NOTIFY, &[text(&program)]);
    let (first, _) = serving(&run);
    let second = replace(&place, first, None);
    run.wait_for_text(&format!("found: left by {first}"));
    // A crash leaves them here, too.
    signal(second, Signal::SIGKILL);
    let service = run.wait_for("the next", |service| service["generation"] == 3 && service["state"] == "running");
    assert_ne!(pid_of(&service), second);
    let found = format!("found: left by {first}");
    crate::harness::wait_until("it finds it", || (run.stderr().matches(&found).count() == 2).then_some(()));
}
