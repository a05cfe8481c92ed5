//! A supervisor is killed, and started again: it takes over the daemon that has served all the time.

mod support;

use std::fs;
use support::load::{Load, LoadOptions, verify};
use support::{SIGKILL, SIGTERM, Service, freeze, lives, programs, signal, thaw, wait_for_death, wait_until};

fn load(service: &Service) -> Load {
    let load = Load::start(LoadOptions { clients: 4, keep_alive: false, ..LoadOptions::new(service.address) });
    wait_until("some writes", || (load.snapshot().acknowledged > 100).then_some(()));
    load
}

/// Everything that was asked was answered, and everything that was acknowledged is there.
fn nothing_is_lost(service: &Service, load: Load) {
    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new());
}

fn upgrade_commits(service: &Service) {
    let upgrade = service.upgrade(&programs().kv_b, &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
    let pid = service.wait_until_served();
    assert_eq!(pid, upgrade.outcome["pid"].as_i64().unwrap() as i32);
    wait_until("one daemon", || (service.daemons() == [pid]).then_some(()));
}

#[test]
fn the_daemon_is_adopted_and_replaced_without_a_refused_connection() {
    let mut service = Service::start(&programs().kv_a);
    let load = load(&service);
    for generation in 1..4 {
        let (pid, address) = (service.daemon_pid(), service.address);
        service.kill_supervisor();
        service.launch(&programs().kv_a, &[]);
        let status = service.status().unwrap();
        assert_eq!((service.daemon_pid(), service.address), (pid, address));
        assert_eq!(status["generation"], generation);
        upgrade_commits(&service);
    }
    nothing_is_lost(&service, load);
    assert_eq!(service.stop(), Some(0));
    assert_eq!(service.daemons(), Vec::<i32>::new());
}

/// kill -9 of the supervisor in this phase of an upgrade, and another one at once: the handoff is ended as the word says.
fn restarted_in(phase: &str, fault: &str, prepare: impl Fn(&Service)) {
    let mut service = Service::start(&programs().kv_a);
    let load = load(&service);
    let incumbent = service.daemon_pid();
    let upgrading = service.begin_upgrade(&service.faulty(fault), &[]);
    let successor = service.successor_of(incumbent);
    service.wait_for_phase(phase);
    service.kill_supervisor();
    drop(upgrading);
    prepare(&service);
    service.launch(&programs().kv_a, &[]);
    wait_for_death(successor);
    assert_eq!(service.daemon_pid(), incumbent);
    wait_until("the outcome", || (service.status()?["phase"] == "idle").then_some(()));
    upgrade_commits(&service);
    nothing_is_lost(&service, load);
}

#[test]
fn restarted_while_the_successor_warms() {
    restarted_in("warming", "slow-warm=1000", |_| {});
}

#[test]
fn restarted_while_the_successor_opens() {
    restarted_in("opening", "slow-open=600000", |_| {});
}

#[test]
fn restarted_while_the_successor_opens_and_the_journal_is_lost() {
    restarted_in("opening", "slow-open=600000", |service| {
        let left = fs::read_dir(service.path("run")).unwrap().map(|entry| entry.unwrap().path());
        left.filter(|path| path.extension().is_some_and(|is| is == "journal" || is == "page"))
            .for_each(|path| fs::remove_file(path).unwrap());
    });
}

#[test]
fn a_runtime_directory_that_was_wiped() {
    let mut service = Service::start(&programs().kv_a);
    let load = load(&service);
    let pid = service.daemon_pid();
    service.kill_supervisor();
    fs::remove_dir_all(service.path("run")).unwrap();
    service.launch(&programs().kv_a, &[]);
    assert_eq!(service.daemon_pid(), pid);
    upgrade_commits(&service);
    nothing_is_lost(&service, load);
}

#[test]
fn restarted_while_the_incumbent_drains() {
    let mut service = Service::start_faulty("slow-drain=3000");
    let incumbent = service.daemon_pid();
    let upgrading = service.begin_upgrade(&programs().kv_b, &[]);
    let successor = service.successor_of(incumbent);
    service.wait_for_phase("draining");
    service.kill_supervisor();
    drop(upgrading);
    service.launch(&programs().kv_a, &[]);
    wait_for_death(successor);
    assert_eq!(service.wait_until_served(), incumbent);
    wait_until("the outcome", || (service.status()?["phase"] == "idle").then_some(()));
    upgrade_commits(&service);
}

#[test]
fn the_program_that_ran_is_the_one_that_is_started_again() {
    let mut service = Service::start(&programs().kv_a);
    upgrade_commits(&service);
    let pid = service.daemon_pid();
    service.kill_supervisor();
    service.launch(&programs().kv_a, &[]);
    let program = service.status().unwrap()["program"].clone();
    assert_eq!(program.as_str(), programs().kv_b.to_str());
    signal(pid, SIGKILL);
    wait_until("another process", || service.status()?["pid"].as_i64().filter(|now| *now != i64::from(pid)));
    let next = service.wait_until_served();
    assert_eq!(service.ping().unwrap(), (next, "b".to_owned()));
    assert_eq!(service.status().unwrap()["restarts"], 1);
}

#[test]
fn how_an_adopted_daemon_ends_is_known() {
    let mut service = Service::start(&programs().kv_a);
    let pid = service.daemon_pid();
    service.kill_supervisor();
    service.launch(&programs().kv_a, &["--restart", "never"]);
    assert_eq!(service.daemon_pid(), pid);
    signal(pid, SIGKILL);
    assert_eq!(service.wait_for_end(), Some(128 + SIGKILL));
}

#[test]
fn a_daemon_that_dies_while_nobody_supervises_is_started_again() {
    let mut service = Service::start(&programs().kv_a);
    let load = load(&service);
    let acknowledged = load.stop().acknowledged;
    let pid = service.daemon_pid();
    service.kill_supervisor();
    signal(pid, SIGKILL);
    wait_until("the death", || (!lives(pid)).then_some(()));
    service.launch(&programs().kv_a, &[]);
    assert_ne!(service.wait_until_served(), pid);
    assert_eq!(verify(service.address, &acknowledged).unwrap(), Vec::<String>::new());
    upgrade_commits(&service);
}

#[test]
fn other_listeners_than_those_of_the_daemon() {
    let mut service = Service::start(&programs().kv_a);
    let pid = service.daemon_pid();
    service.kill_supervisor();
    // Another address under the same name would only be had by a restart of the daemon.
    let mut other = service.command("run");
    other.args(["--listen", "kv=127.0.0.2:0", "--data-dir"]).arg(service.path("data"));
    let output = other.arg("--").arg(&programs().kv_a).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{text}");
    let address = service.address.to_string();
    for word in ["listener 'kv'", &address, "127.0.0.2:0", "stop the daemon first"] {
        assert!(text.contains(word), "{word:?} is missing in {text}");
    }
    assert_eq!(service.ping().unwrap().0, pid, "it serves on");
    // Another name is bound, and the next process gets it.
    service.launch(&programs().kv_a, &["--listen", "more=127.0.0.1:0"]);
    assert_eq!(service.status().unwrap()["listeners"].as_array().unwrap().len(), 3);
    upgrade_commits(&service);
}

#[test]
fn what_the_daemon_writes_is_still_told_and_its_files_go() {
    let mut service = Service::start_faulty("logs");
    service.kill_supervisor();
    service.launch(&programs().kv_a, &[]);
    upgrade_commits(&service);
    wait_until("the incumbent's own words", || service.stderr().contains("seal_complete").then_some(()));
    assert_eq!(service.stop(), Some(0));
    let left: Vec<_> = fs::read_dir(service.path("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let expected = |name: &std::ffi::OsString| !name.to_str().unwrap().ends_with(".stderr");
    assert!(left.iter().all(expected), "{left:?}");
}

/// A daemon that is stopped is not replaced; whoever asks hears of it.
#[test]
fn a_daemon_that_does_not_answer_is_named() {
    let mut service = Service::start(&programs().kv_a);
    let pid = service.daemon_pid();
    service.kill_supervisor();
    freeze(pid);
    for wanted in [false, true] {
        let said = service.stderr().len();
        service.begin_launch(&programs().kv_a, &[]);
        let why = format!("waits: process {pid} (");
        let status = wait_until("what it waits for", || {
            service.status().filter(|status| status["why"].as_str().is_some_and(|text| text.starts_with(&why)))
        });
        assert_eq!((&status["state"], &status["phase"]), (&"starting".into(), &"adopting".into()), "{status}");
        let text = status["why"].as_str().unwrap();
        assert!(text.contains(&format!("it is stopped: kill -CONT {pid}")), "{text}");
        assert!(service.stderr()[said..].contains(text), "{text}: {}", service.stderr());
        if !wanted {
            signal(service.supervisor_pid(), SIGTERM);
            assert_eq!(service.wait_for_end(), Some(125));
            assert!(lives(pid) && service.status().is_none());
            continue;
        }
        // A command that comes now is carried out when there is a daemon.
        let upgrading = service.begin_upgrade(&programs().kv_b, &[]);
        thaw(pid);
        service.wait_until_running();
        assert_eq!(upgrading.wait().result, "committed");
        wait_for_death(pid);
    }
}
