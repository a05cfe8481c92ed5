//! A daemon that knows nothing of this project: it serves, crashes, is stopped.

use crate::daemons::{refs, web};
use crate::harness::{Place, ask, lives, pid_of, signal, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;
use std::io::Read;
use std::process::Stdio;

#[test]
fn an_unmodified_daemon_serves_and_can_not_be_replaced() {
    for mode in ["plain", "blocking"] {
        let place = Place::new();
        let run = place.run(&refs(&web(&place, mode, &["--hello-timeout", "1s"])));
        let (pid, address) = run.running();
        assert_eq!(ask(address, "hello"), (pid, "hello".to_owned()));
        let service = run.wait_for("settled", |service| service["state"] == "running");
        assert_eq!(service["linked"], false);
        let upgrade = place.output("upgrade", &["--json"]);
        assert_eq!(upgrade.code, 13, "{upgrade:?}");
        let outcome = upgrade.json();
        assert_eq!((&outcome["result"], &outcome["pid"]), (&json!("refused"), &json!(pid)));
        assert!(outcome["reason"].as_str().unwrap().contains("does not link libhandoff"), "{outcome}");
        place.output("upgrade", &["web"]).expect(13, &["web: refused", "does not link libhandoff"]);
        assert_eq!(ask(address, "again"), (pid, "again".to_owned()));
    }
}

#[test]
fn a_daemon_that_is_killed_comes_back_on_the_same_socket() {
    let place = Place::new();
    let run = place.run(&refs(&web(&place, "plain", &[])));
    let (pid, address) = run.running();
    assert_eq!(ask(address, "one").0, pid);
    signal(pid, Signal::SIGKILL);
    // At once: the connection waits in the backlog.
    let (next, word) = ask(address, "two");
    assert_eq!(word, "two");
    assert_ne!(next, pid);
    let service = run.wait_for("the next", |service| service["generation"] == 2);
    assert_eq!((pid_of(&service), &service["restarts"]), (next, &json!(1)));
    assert!(service["why"].as_str().unwrap().contains("signal 9"), "{service}");
    assert_eq!(service["listeners"][0]["address"], json!(address.to_string()));
}

#[test]
fn sigterm_stops_the_daemon_and_its_exit_code_is_ours() {
    for (mode, code) in [("polite", 7), ("plain", 128 + 15)] {
        let place = Place::new();
        let mut run = place.run(&refs(&web(&place, mode, &[])));
        let (pid, _) = run.running();
        run.wait_for_text("serving");
        signal(run.pid(), Signal::SIGTERM);
        assert_eq!(run.end(), code, "{mode}");
        assert!(!lives(pid));
        assert!(!place.path("runtime/web.sock").exists());
        place.output("status", &[]).expect(3, &["not running"]);
    }
}

#[test]
fn a_daemon_that_ignores_sigterm_is_killed() {
    let place = Place::new();
    let mut run = place.run(&refs(&web(&place, "stubborn", &[])));
    let (pid, _) = run.running();
    run.wait_for_text("serving");
    signal(run.pid(), Signal::SIGTERM);
    let service = run.wait_for("stopping", |service| service["state"] == "stopping");
    assert_eq!((&service["want"], pid_of(&service)), (&json!("stopped"), pid));
    assert!(service["why"].as_str().unwrap().contains("SIGTERM"), "{service}");
    assert_eq!(run.end(), 128 + 9);
}

#[test]
fn who_interrupts_twice_does_not_want_to_wait() {
    let place = Place::new();
    let mut run = place.run(&refs(&web(&place, "stubborn", &[])));
    run.running();
    run.wait_for_text("serving");
    signal(run.pid(), Signal::SIGINT);
    run.wait_for_text("stops: SIGINT");
    let begin = std::time::Instant::now();
    signal(run.pid(), Signal::SIGINT);
    assert_eq!(run.end(), 128 + 9);
    assert!(begin.elapsed().as_secs() < 5);
}

#[test]
fn hup_reaches_only_a_daemon_that_handles_it() {
    let place = Place::new();
    let run = place.run(&refs(&web(&place, "reload", &[])));
    run.running();
    run.wait_for_text("serving");
    signal(run.pid(), Signal::SIGHUP);
    run.wait_for_text("reloaded");

    let place = Place::new();
    let run = place.run(&refs(&web(&place, "plain", &[])));
    let (pid, address) = run.running();
    run.wait_for_text("serving");
    signal(run.pid(), Signal::SIGHUP);
    run.wait_for_text("SIGHUP ignored");
    assert_eq!(ask(address, "still").0, pid);
}

#[test]
fn a_reader_that_does_not_read_stops_nobody() {
    let place = Place::new();
    let mut command = place.handoff("run");
    command.args(web(&place, "plain", &[])).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let status = || place.output("status", &["--json"]);
    let service = wait_until("running", || {
        let said = status();
        (said.code == 0).then(|| said.json()["services"][0].clone()).filter(|service| service["pid"].is_i64())
    });
    let address = service["listeners"][0]["address"].as_str().unwrap().parse().unwrap();
    // Two megabytes of standard error into a pipe that nobody reads.
    assert_eq!(ask(address, "flood").1, "flood");
    assert_eq!(status().code, 0);
    assert_eq!(ask(address, "after").1, "after");
    signal(child.id() as i32, Signal::SIGTERM);
    let mut bytes = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert!(bytes.windows(9).any(|part| part == b"serving \xff"), "bytes are copied as they are");
}

#[test]
fn of_more_than_can_wait_the_beginning_is_kept() {
    let place = Place::new();
    let run = place.run(&refs(&web(&place, "plain", &[])));
    let (_, address) = run.running();
    run.wait_for_text("serving");
    // Two megabytes at once, although there is a reader.
    signal(run.pid(), Signal::SIGSTOP);
    assert_eq!(ask(address, "flood").1, "flood");
    signal(run.pid(), Signal::SIGCONT);
    wait_until("some of it", || (run.stderr().len() > 100_000).then_some(()));
}

#[test]
fn events_are_json_if_asked() {
    let place = Place::new();
    let mut run = place.run(&refs(&web(&place, "polite", &["--json"])));
    let (pid, _) = run.running();
    run.wait_for_text("serving");
    signal(run.pid(), Signal::SIGTERM);
    assert_eq!(run.end(), 7);
    let events: Vec<serde_json::Value> = run
        .stderr()
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of =
        |kind: &str| events.iter().find(|event| event["event"] == kind).unwrap_or_else(|| panic!("{kind}: {events:?}"));
    assert_eq!(of("started")["pid"], json!(pid));
    assert_eq!(of("listening")["name"], json!("web"));
    assert_eq!((&of("ended")["code"], &of("ended")["service"]), (&json!(7), &json!("web")));
}

/// SIGTERM would end it with 143.
#[test]
fn a_daemon_is_stopped_by_the_signal_that_it_wants() {
    for name in ["QUIT", "SIGUSR2", "12"] {
        let place = Place::new();
        let script = "trap 'exit 9' QUIT USR2; echo listens >&2; sleep 1000 & wait";
        let mut run = place.run(&["--stop-signal", name, "--", "sh", "-c", script]);
        run.wait_for_text("listens");
        signal(run.pid(), Signal::SIGTERM);
        assert_eq!(run.end(), 9, "{name}");
    }
    let place = Place::new();
    place.output("run", &["--stop-signal", "NOTHING", "--", "true"]).expect(2, &["NOTHING"]);
}

#[test]
fn what_a_daemon_leaves_behind_ends_with_it() {
    let place = Place::new();
    let helper = place.path("helper");
    let script = format!("sleep 1000 & echo $! > {}; wait", helper.display());
    let run = place.run(&["--", "sh", "-c", &script]);
    let helper_pid = || std::fs::read_to_string(&helper).ok()?.trim().parse::<i32>().ok();
    let first = wait_until("a helper", helper_pid);
    signal(pid_of(&run.wait_for("running", |service| service["pid"].is_i64())), Signal::SIGKILL);
    let second = wait_until("another helper", || helper_pid().filter(|pid| *pid != first));
    assert!(!lives(first));
    signal(run.pid(), Signal::SIGTERM);
    wait_until("its end", || (!lives(second)).then_some(()));
}

#[test]
fn a_daemon_whose_supervisor_was_killed_is_not_started_twice() {
    let place = Place::new();
    let arguments = web(&place, "plain", &[]);
    let mut run = place.run(&refs(&arguments));
    let (pid, address) = run.running();
    run.wait_for_text("serving");
    signal(run.pid(), Signal::SIGKILL);
    run.end();
    assert_eq!(ask(address, "on").0, pid, "it lives on");
    let (lives_on, kill) = (format!("but process {pid} ("), format!("(kill {pid})"));
    for which in [&[][..], &["web"], &["--name", "web"]] {
        place
            .output("status", which)
            .expect(3, &["not running: no supervisor named 'web' runs", &lives_on, "systemd.py", &kill]);
    }
    // When it could have said Hello it is taken over as one that does not link the library.
    let again = place.run(&refs(&[vec!["--hello-timeout".to_owned(), "200ms".to_owned()], arguments].concat()));
    assert_eq!(
        again.wait_for("running", |service| service["why"] == "adopted from a supervisor that is gone")["pid"],
        pid
    );
    assert_eq!(ask(address, "and on").0, pid);
    // Its socket alone may be gone: then it is no orphan.
    std::fs::remove_file(place.path("runtime/web.sock")).unwrap();
    let said = place.output("status", &["--name", "web"]);
    assert!(said.code == 3 && !said.stderr.contains("kill"), "{said:?}");
}
