//! Daemons that link the library: this test program itself, started with a variable that makes it one.

use crate::harness::{Place, Run, ask, pid_of, signal, text, wait_until};
use handoff::service::Times;
use handoff::{Config, Deadline, DrainReport, Drainable, HookError, Role, SealReport, StateSnapshot, detect_role};
use nix::sys::signal::Signal;
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const BUILD: &str = "PROGRAM_TEST_BUILD";

/// Not a test: the daemon, when it is started as one.
#[test]
fn daemon() {
    let Ok(build) = std::env::var(BUILD) else { return };
    if build == "fails" {
        eprintln!("this build is broken");
        std::process::exit(9);
    }
    let role = detect_role(&Config::new()).unwrap();
    let begun = match role {
        Role::ColdStart(cold) => cold.begin(),
        Role::Successor(successor) => successor.handshake().and_then(|successor| successor.wait_for_begin()),
    };
    let begun = begun.unwrap_or_else(|error| {
        eprintln!("can not begin: {error}");
        std::process::exit(11);
    });
    if build == "slow" {
        std::thread::sleep(Duration::from_secs(2));
    }
    let listener = TcpListener::from(begun.listeners().take(Some("kv"), 0).unwrap());
    let mut store = Store { listener, build, acceptor: None };
    let incumbent = begun.announce_and_bind(&store).unwrap();
    store.accept();
    incumbent.serve(&mut store).unwrap();
    std::process::exit(0);
}

/// Answers with its pid and its build.
struct Store {
    listener: TcpListener,
    build: String,
    acceptor: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Store {
    fn accept(&mut self) {
        let stop = Arc::new(AtomicBool::new(false));
        let (listener, build, stopped) = (self.listener.try_clone().unwrap(), self.build.clone(), stop.clone());
        let acceptor = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        let _ = stream.read(&mut [0; 100]);
                        let _ = stream.write_all(format!("{} {build}", std::process::id()).as_bytes());
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        self.acceptor = Some((stop, acceptor));
    }
}

impl Drainable for Store {
    fn drain(&mut self, _: &Deadline<'_>) -> Result<DrainReport, HookError> {
        if let Some((stop, acceptor)) = self.acceptor.take() {
            stop.store(true, Ordering::Release);
            acceptor.join().unwrap();
        }
        Ok(DrainReport::default())
    }

    fn seal(&mut self, _: &Deadline<'_>) -> Result<SealReport, HookError> {
        Ok(SealReport::default())
    }

    fn resume_after_abort(&mut self) -> Result<(), HookError> {
        self.accept();
        Ok(())
    }

    fn snapshot_state(&self) -> StateSnapshot {
        StateSnapshot::default()
    }
}

/// A script that becomes this build.
fn build(place: &Place, build: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let script = format!("#!/bin/sh\n{BUILD}={build} exec {} --exact linked::daemon --nocapture\n", program.display());
    place.file(&format!("kv-{build}"), script, 0o755)
}

/// Runs build `a` as the service `kv`, until it can be replaced.
fn start(place: &Place) -> Run<'_> {
    start_with(place, None, true)
}

/// The same with this for `HANDOFF_LOG`, and perhaps without a data directory.
fn start_with<'a>(place: &'a Place, log: Option<&str>, has_data: bool) -> Run<'a> {
    std::fs::create_dir(place.path("data")).unwrap();
    let (program, data) = (build(place, "a"), place.path("data"));
    let mut command = place.handoff("run");
    command.args(["--name", "kv", "--listen", "kv=127.0.0.1:0"]);
    if has_data {
        command.arg("--data-dir").arg(&data);
    }
    command.args(["--", text(&program)]);
    command.envs(log.map(|log| ("HANDOFF_LOG", log)));
    let run = place.spawn(command);
    run.wait_for("linked", |service| service["state"] == "running" && service["linked"] == true);
    run
}

#[test]
fn an_upgrade_shows_its_phases_and_how_it_ended() {
    let place = Place::new();
    let run = start(&place);
    let (first, address) = run.running();
    assert_eq!(ask(address, "x"), (first, "a".to_owned()));
    let said = place.output("upgrade", &["--binary", text(&build(&place, "b"))]);
    assert_eq!(said.code, 0, "{said:?}");
    for word in ["kv: warming\n", "kv: draining\n", "kv: opening\n", "kv: committed; process ", "total "] {
        assert!(said.stdout.contains(word), "{word:?} is missing in {said:?}");
    }
    let (second, answered) = ask(address, "x");
    assert_eq!(answered, "b");
    assert_ne!(first, second);
    let service = run.wait_for("idle", |service| service["phase"] == "idle");
    assert_eq!((pid_of(&service), &service["generation"]), (second, &json!(2)));
    assert_eq!(service["last_handoff"]["result"], "committed");

    // The same again, and at once once more: it waits until the incumbent has retired.
    for _ in 0..5 {
        let outcome = place.output("upgrade", &["--json"]).json();
        assert_eq!(outcome["result"], "committed", "{outcome}");
        assert_eq!(ask(address, "x").1, "b");
    }
    // A committed binary is what a crash brings back.
    let (last, _) = ask(address, "x");
    signal(last, Signal::SIGKILL);
    assert_eq!(ask(address, "x").1, "b");
}

#[test]
fn a_bad_binary_changes_nothing_and_says_why() {
    let place = Place::new();
    let run = start(&place);
    let (pid, address) = run.running();
    let said = place.output("upgrade", &["--binary", text(&build(&place, "fails"))]);
    said.expect(10, &["kv: rolled back", "exit status 9", "this build is broken"]);
    place.output("upgrade", &["--binary", "/no/such/file"]).expect(13, &["kv: refused", "/no/such/file"]);
    assert_eq!(ask(address, "x"), (pid, "a".to_owned()));
    signal(pid, Signal::SIGKILL);
    assert_eq!(ask(address, "x").1, "a", "only a binary that committed comes back");
}

#[test]
fn a_rollback_is_said_once() {
    for log in [None, Some("info")] {
        let place = Place::new();
        let run = start_with(&place, log, true);
        let script = place.file("script", "#!/no/such/interpreter\n", 0o755);
        for binary in [build(&place, "fails"), script] {
            assert!([10, 13].contains(&place.output("upgrade", &["--binary", text(&binary)]).code));
        }
        run.wait_for_text("/no/such/interpreter");
        let said = run.stderr();
        let aborts: Vec<_> = said.lines().filter(|line| line.contains("abort handoff_id=")).collect();
        assert_eq!(aborts.is_empty(), log.is_none(), "{said}");
        assert!(!aborts.iter().any(|line| line.contains("pid=0")), "{said}");
        assert!(log.is_some() || !said.contains("WARN"), "{said}");
    }
}

#[test]
fn an_upgrade_that_starts_cold_is_why_it_runs() {
    let place = Place::new();
    let (bad, good) = (build(&place, "fails"), build(&place, "b"));
    let run = place.run(&["--name", "kv", "--listen", "kv=127.0.0.1:0", "--restart", "on-failure", "--", text(&bad)]);
    run.wait_for_text("starts again in");
    // It may just be starting.
    wait_until("a cold start", || (place.output("upgrade", &["--binary", text(&good)]).code == 12).then_some(()));
    let service = run.wait_for("running", |service| service["state"] == "running");
    assert_eq!((&service["why"], &service["linked"]), (&json!("upgraded (started cold)"), &json!(true)));
}

#[test]
fn one_upgrade_at_a_time_and_status_in_the_midst_of_it() {
    let place = Place::new();
    let run = start(&place);
    let slow = build(&place, "slow");
    let mut first = place
        .handoff("upgrade")
        .args(["--json", "--binary", text(&slow)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let service = run.wait_for("opening", |service| service["phase"] == "opening");
    assert_eq!(service["state"], "upgrading");
    let second = place.output("upgrade", &["--json"]);
    assert_eq!((second.code, &second.json()["result"]), (13, &json!("refused")));
    let mut outcome = String::new();
    first.stdout.take().unwrap().read_to_string(&mut outcome).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0), "{outcome}");
}

#[test]
fn a_stop_in_the_midst_of_an_upgrade_undoes_it_first() {
    let place = Place::new();
    let mut run = start(&place);
    let slow = build(&place, "slow");
    let upgrade = place
        .handoff("upgrade")
        .args(["--json", "--binary", text(&slow)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    run.wait_for("opening", |service| service["phase"] == "opening");
    signal(run.pid(), Signal::SIGTERM);
    assert_eq!(run.end(), 128 + 15);
    let upgrade = upgrade.wait_with_output().unwrap();
    assert_eq!(upgrade.status.code(), Some(10), "{upgrade:?}");
}

/// What the next one has no use for is gone; a lock file is never removed.
#[test]
fn a_stop_leaves_nothing_but_locks_and_the_history() {
    let locks = ["kv.control.gate", "kv.control.lock", "kv.history", "kv.lock"];
    for (data, left) in [(true, &["kv.history", "kv.lock"][..]), (false, &locks)] {
        let place = Place::new();
        let mut run = start_with(&place, None, data);
        assert_eq!(place.output("upgrade", &["--binary", text(&build(&place, "b"))]).code, 0);
        let files = || {
            let entries = std::fs::read_dir(place.path("runtime")).unwrap().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let here = files();
        assert!(
            ["kv.control", "kv.journal", "kv.sock"].iter().all(|name| here.iter().any(|file| file == name)),
            "{here:?}"
        );
        signal(run.pid(), Signal::SIGTERM);
        run.end();
        assert_eq!(files(), left);
    }
}

#[test]
fn data_that_somebody_else_serves_ends_the_start_at_once() {
    let place = Place::new();
    let run = start(&place);
    let (pid, _) = run.running();
    let (program, data) = (build(&place, "a"), place.path("data"));
    let second = ["--name", "other", "--listen", "kv=127.0.0.1:0", "--data-dir", text(&data), "--", text(&program)];
    let said = place.output("run", &second);
    said.expect(11, &[&pid.to_string(), "ended: exit status 11"]);
    assert_eq!(said.stderr.matches("can not begin").count(), 1, "{said:?}");
}

#[test]
fn times_of_a_command_win_over_those_of_the_service() {
    let second = Some(Duration::from_secs(1));
    let own = Times { deadline: second, ..Times::default() };
    let all = Times { hello: second, ..Times::default() }.or(own);
    assert_eq!((all.deadline, all.hello, all.ready), (second, second, None));
}
