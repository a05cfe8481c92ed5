//! A supervisor that comes back finds what it does not expect: files that are no files, processes that hold what they should
//! not, a daemon that does not answer, an operator who does not want to wait.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use support::load::{Load, LoadOptions, verify};
use support::{
    SIGCONT, SIGKILL, SIGTERM, Service, freeze, lives, open_descriptors, process_state, programs, signal,
    wait_for_death, wait_until,
};

fn fifo(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn upgrade_commits(service: &Service) {
    let upgrade = service.upgrade(&programs().kv_b, &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
}

/// Files of the service in its runtime directory, with this extension.
fn files(service: &Service, extension: &str) -> Vec<std::path::PathBuf> {
    let all = fs::read_dir(service.path("run")).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.extension().is_some_and(|is| is == extension)).collect()
}

#[test]
fn a_child_that_a_dead_daemon_left_behind_does_not_keep_the_next_one_away() {
    let mut service = Service::start_faulty("fork-serving");
    let before = service.daemons();
    assert_eq!(before.len(), 2, "the store and its child");
    let pid = service.daemon_pid();
    service.kill_supervisor();
    signal(pid, SIGKILL);
    wait_for_death(pid);
    service.launch(&programs().kv_a, &[]);
    let next = service.wait_until_served();
    before.into_iter().for_each(wait_for_death);
    assert_eq!(service.daemons(), [next]);
}

/// The same, where it dies only while the next supervisor waits for its answer, and the child, which has the sockets, dies slowly.
#[test]
fn nor_does_the_child_of_one_that_dies_while_it_is_waited_for() {
    const PAGES: u64 = (512 << 20) / 4096;
    let mut service = Service::start_faulty("fork-serving,heavy");
    let (before, pid) = (service.daemons(), service.daemon_pid());
    let child = *before.iter().find(|child| **child != pid).unwrap();
    wait_until("the child has memory of its own", || {
        let statm = fs::read_to_string(format!("/proc/{child}/statm")).unwrap();
        let resident: u64 = statm.split(' ').nth(1)?.parse().ok()?;
        (resident > PAGES).then_some(())
    });
    service.kill_supervisor();
    freeze(pid);
    service.begin_launch(&programs().kv_a, &[]);
    wait_until("it is waited for", || (service.status()?["phase"] == "adopting").then_some(()));
    signal(pid, SIGKILL);
    service.wait_until_running();
    let next = service.wait_until_served();
    before.into_iter().for_each(wait_for_death);
    assert_eq!(service.daemons(), [next]);
}

#[test]
fn a_runtime_directory_behind_a_symbolic_link() {
    let outer = tempfile::tempdir().unwrap();
    fs::create_dir(outer.path().join("real")).unwrap();
    symlink("real", outer.path().join("link")).unwrap();
    let mut service = Service::place();
    service.dir = tempfile::tempdir_in(outer.path().join("link")).unwrap();
    fs::create_dir(service.path("data")).unwrap();
    let program = service.faulty("logs");
    service.launch(&program, &[]);
    assert_eq!(files(&service, "stderr").len(), 1);
    service.kill_supervisor();
    service.launch(&program, &[]);
    assert_eq!(files(&service, "stderr").len(), 1, "it is still written to");
    upgrade_commits(&service);
    wait_until("the incumbent's own words", || service.stderr().contains("seal_complete").then_some(()));
}

fn restarted_over(prepare: impl Fn(&Service)) {
    let mut service = Service::start(&programs().kv_a);
    let incumbent = service.daemon_pid();
    let upgrading = service.begin_upgrade(&service.faulty("slow-open=600000"), &[]);
    let successor = service.successor_of(incumbent);
    service.wait_for_phase("opening");
    service.kill_supervisor();
    drop(upgrading);
    prepare(&service);
    service.launch(&programs().kv_a, &[]);
    wait_for_death(successor);
    assert_eq!(service.wait_until_served(), incumbent);
    upgrade_commits(&service);
}

fn replace_page(service: &Service, make: impl Fn(&Path)) {
    let page = files(service, "page").pop().expect("a page");
    fs::remove_file(&page).unwrap();
    make(&page);
}

#[test]
fn a_page_that_is_empty() {
    restarted_over(|service| replace_page(service, |page| fs::write(page, "").unwrap()));
}

#[test]
fn a_page_that_is_a_fifo() {
    restarted_over(|service| replace_page(service, fifo));
}

#[test]
fn a_page_that_is_a_directory() {
    restarted_over(|service| replace_page(service, |page| fs::create_dir(page).unwrap()));
}

#[test]
fn a_journal_that_is_a_fifo() {
    restarted_over(|service| fifo(&service.path("run/kv.journal")));
}

#[test]
fn a_journal_that_is_cut() {
    restarted_over(|service| {
        let path = service.path("run/kv.journal");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 12]).unwrap();
    });
}

/// The page went, but the journal that no handoff is open could not be written.
#[test]
fn a_journal_of_a_handoff_that_is_over() {
    let mut service = Service::start(&programs().kv_a);
    let first = service.daemon_pid();
    upgrade_commits(&service);
    let second = service.wait_until_served();
    wait_for_death(first);
    wait_until("idle", || (service.status()?["phase"] == "idle").then_some(()));
    service.kill_supervisor();
    let path = service.path("run/kv.journal");
    let text = fs::read_to_string(&path).unwrap();
    let stale = format!("incumbent={first} 1\nhandoff=1\npage=kv.1.page\nsuccessor=");
    fs::write(&path, text.replace("incumbent=", &stale)).unwrap();
    service.launch(&programs().kv_a, &[]);
    assert_eq!(service.daemon_pid(), second);
    upgrade_commits(&service);
}

#[test]
fn a_signal_while_the_daemon_does_not_answer() {
    let mut service = Service::start(&programs().kv_a);
    let pid = service.daemon_pid();
    service.kill_supervisor();
    freeze(pid);
    let mut run = service.command("run");
    run.args(["--listen", "kv=127.0.0.1:0", "--data-dir"]).arg(service.path("data")).arg("--").arg(&programs().kv_a);
    let run = run.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let id = run.id() as i32;
    let named = [format!("process {pid} ("), format!("kill -CONT {pid}")];
    wait_until("it says for whom it waits", || {
        let status = service.status().filter(|status| status["phase"] == "adopting")?;
        named.iter().all(|part| status["why"].as_str().unwrap_or_default().contains(part)).then_some(())
    });
    fs::remove_file(service.path("run/kv.sock")).unwrap();
    let said = service.command("status").output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(3), "{text}");
    assert!(text.contains(&format!("process {id} (")) && text.contains("the socket was removed"), "{text}");
    signal(id, SIGTERM);
    let output = run.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("SIGTERM"), "{text}");
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(lives(pid) && process_state(pid) == Some('T'), "nothing happened to it");
    signal(pid, SIGCONT);
    service.launch(&programs().kv_a, &[]);
    assert_eq!(service.daemon_pid(), pid);
}

/// It has retired, but does not exit: the next supervisor ends it, as the one before would have.
#[test]
fn an_incumbent_that_lingers_after_the_commit() {
    let mut service = Service::start_faulty("lingers");
    let first = service.daemon_pid();
    upgrade_commits(&service);
    let second = service.wait_until_served();
    wait_until("idle", || (service.status()?["phase"] == "idle").then_some(()));
    assert!(lives(first));
    service.kill_supervisor();
    service.launch(&programs().kv_a, &[]);
    assert_eq!(service.daemon_pid(), second);
    wait_for_death(first);
    upgrade_commits(&service);
}

/// Half of the restarts meet a daemon that has just been replaced.
#[test]
fn supervisors_that_are_killed_again_and_again_leave_nothing_behind() {
    const ROUNDS: usize = 40;
    let mut service = Service::start(&programs().kv_a);
    let load = Load::start(LoadOptions { clients: 4, keep_alive: false, ..LoadOptions::new(service.address) });
    let mut descriptors = None;
    for round in 0..ROUNDS {
        if round % 2 == 0 {
            upgrade_commits(&service);
        }
        service.kill_supervisor();
        service.launch(&programs().kv_a, &[]);
        assert_eq!(service.status().unwrap()["generation"], 2 + round / 2);
        let (supervisor, daemon) = (service.supervisor_pid(), service.daemon_pid());
        wait_until("one daemon", || (service.daemons() == [daemon]).then_some(()));
        if round % 2 == 0 {
            // The connection of a command may still be open there for a moment.
            let now = || support::waits(supervisor).then(|| open_descriptors(supervisor));
            let first = *descriptors.get_or_insert_with(|| wait_until("settled", now));
            wait_until("as many descriptors as the first had", || (now() == Some(first)).then_some(()));
        }
    }
    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new());
    let pid = service.daemon_pid();
    service.kill_supervisor();
    let before = wait_until("settled", || support::waits(pid).then(|| open_descriptors(pid)));
    for _ in 0..ROUNDS {
        service.launch(&programs().kv_a, &[]);
        service.kill_supervisor();
    }
    wait_until("as many descriptors", || (open_descriptors(pid) == before).then_some(()));
    assert_eq!(files(&service, "page").len(), 0);
    assert_eq!(files(&service, "stderr").len(), 1);
}

#[test]
fn the_generation_when_the_journal_is_lost() {
    let mut service = Service::start(&programs().kv_a);
    upgrade_commits(&service);
    wait_until("idle", || (service.status()?["phase"] == "idle").then_some(()));
    service.kill_supervisor();
    fs::remove_file(service.path("run/kv.journal")).unwrap();
    service.launch(&programs().kv_b, &[]);
    assert_eq!(service.status().unwrap()["generation"], 2);
}

#[test]
fn six_hundred_listeners_and_other_kinds() {
    let mut service = Service::place();
    let socket = format!("sock=unix:{}", service.path("s").display());
    let mut arguments = vec!["--listen".to_owned(), "u=udp:127.0.0.1:0".into(), "--listen".into(), socket];
    for number in 0..600 {
        arguments.extend(["--listen".to_owned(), format!("extra{number}=127.0.0.1:0")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    service.launch(&programs().kv_a, &arguments);
    let listeners = service.status().unwrap()["listeners"].clone();
    let pid = service.daemon_pid();
    service.kill_supervisor();
    service.launch(&programs().kv_a, &arguments);
    assert_eq!(service.daemon_pid(), pid);
    assert_eq!(service.status().unwrap()["listeners"], listeners);
    upgrade_commits(&service);
}

/// Each of these is one process's own end, which the next supervisor must understand.
#[test]
fn how_an_adopted_daemon_ends_decides_what_follows() {
    for (policy, with, code) in [
        ("never", SIGTERM, Some(0)),
        ("on-failure", SIGTERM, Some(0)),
        ("never", SIGKILL, Some(128 + SIGKILL)),
        ("always", SIGTERM, None),
        ("on-failure", SIGKILL, None),
    ] {
        let mut service = Service::start(&programs().kv_a);
        let pid = service.daemon_pid();
        service.kill_supervisor();
        service.launch(&programs().kv_a, &["--restart", policy]);
        signal(pid, with);
        match code {
            Some(_) => assert_eq!(service.wait_for_end(), code, "{policy} {with}"),
            None => {
                wait_for_death(pid);
                assert_ne!(service.wait_until_served(), pid, "{policy} {with}");
            }
        }
    }
}

#[test]
fn silent_connections_to_the_control_path() {
    let mut service = Service::start(&programs().kv_a);
    let pid = service.daemon_pid();
    service.kill_supervisor();
    let path = service.path("run/kv.control");
    let before = open_descriptors(pid);
    let mut silent = Vec::new();
    wait_until("a thousand connections", || {
        silent.extend(handoff::sys::seqpacket::Seqpacket::connect(&path));
        (silent.len() >= 1000).then_some(())
    });
    service.launch(&programs().kv_a, &[]);
    assert_eq!(service.daemon_pid(), pid);
    assert!(open_descriptors(pid) < before + 20);
    upgrade_commits(&service);
}
