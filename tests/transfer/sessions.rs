//! A server of lines that is replaced while its clients talk: their connections stay, and no byte is lost or comes twice.

use super::clients::{Client, Load, finish};
use super::support::watch::settled_descriptors;
use super::support::{Service, compile, signal, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub fn server() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile("sessions", "ffi-tests/c/sessions.c", &[]))
}

/// A script that becomes the server, with this in its environment.
pub fn server_with(service: &Service, variable: &str) -> PathBuf {
    let script = service.path(&variable.replace('/', "_"));
    fs::write(&script, format!("#!/bin/sh\n{variable} exec {} \"$@\"\n", server().display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

pub fn expect_nothing_lost(service: &Service) {
    let said = service.stderr();
    assert!(!["LOST", "no total", "SIGSEGV"].iter().any(|word| said.contains(word)), "{said}");
}

#[test]
fn no_byte_is_lost_or_comes_twice_in_rollbacks_and_commits() {
    let mut service = Service::start(server());
    let load = Load::start(service.address, 2, 20);
    load.wait_for(500);
    for fault in ["unhealthy", "dies"] {
        let upgrade = service.upgrade(&server_with(&service, &format!("SESSIONS_FAULT={fault}")), &[]);
        assert_eq!(upgrade.result, "rolled_back", "{upgrade:?}");
        load.wait_for(500);
    }
    for helper in 0..4 {
        let upgrade = service.upgrade(&server_with(&service, &format!("SESSIONS_HELPER={}", helper % 2)), &[]);
        assert_eq!(upgrade.result, "committed", "{upgrade:?}");
        assert_eq!(upgrade.outcome["transferred_connections"], 40, "{upgrade:?}");
        assert!(upgrade.outcome["transferred_state_bytes"].as_u64() > Some(40 * 8000), "{upgrade:?}");
        load.wait_for(500);
    }
    load.finish();
    expect_nothing_lost(&service);
    service.stop();
}

#[test]
fn three_thousand_connections_survive_a_rollback_and_a_commit() {
    survive_a_rollback_and_a_commit(3000);
}

#[test]
#[ignore = "20 000 descriptors in one process, and half a minute"]
fn ten_thousand_connections_survive_a_rollback_and_a_commit() {
    survive_a_rollback_and_a_commit(10_000);
}

/// The memory of the state that this server gives.
const STATE: usize = 1;

/// And neither process has a descriptor too many afterwards.
fn survive_a_rollback_and_a_commit(count: usize) {
    let mut service = Service::start(server());
    let unhealthy = server_with(&service, "SESSIONS_FAULT=unhealthy");
    // What was handed over has another session than what was started cold, and what it was given until the next handoff.
    assert_eq!(service.upgrade(server(), &[]).result, "committed");
    assert_eq!(service.upgrade(&unhealthy, &[]).result, "rolled_back");
    let own = wait_until("one daemon", || settled_descriptors(&service)).1;
    let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(service.address)).collect();
    let mut talk = || {
        clients.iter_mut().for_each(|client| client.turn(3));
        finish(&mut clients);
    };
    talk();
    let upgrade = service.upgrade(&unhealthy, &[]);
    assert_eq!(upgrade.result, "rolled_back", "{upgrade:?}");
    talk();
    expect_descriptors(&service, own + count);
    let upgrade = service.upgrade(server(), &[]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    assert_eq!(upgrade.outcome["transferred_connections"], count, "{upgrade:?}");
    talk();
    expect_descriptors(&service, own + STATE + count);
    drop(clients);
    expect_descriptors(&service, own + STATE);
    expect_nothing_lost(&service);
    service.stop();
}

/// Of the daemon that serves.
fn expect_descriptors(service: &Service, count: usize) {
    wait_until("as many descriptors as there are clients", || {
        let now = settled_descriptors(service)?.1;
        (now == count).then_some(())
    });
}

#[test]
fn an_incumbent_whose_supervisor_is_killed_goes_on_with_its_connections() {
    let mut service = Service::start(server());
    let load = Load::start(service.address, 1, 10);
    load.wait_for(100);
    let incumbent = service.daemon_pid();
    let upgrading = service.begin_upgrade(&server_with(&service, "SESSIONS_FAULT=hangs"), &[]);
    service.wait_for_phase("opening");
    let successor = service.successor_of(incumbent);
    signal(successor, super::support::SIGKILL);
    assert_eq!(upgrading.wait().result, "rolled_back");
    load.wait_for(500);
    service.kill_supervisor();
    load.wait_for(500);
    load.finish();
    expect_nothing_lost(&service);
}

#[test]
fn what_nobody_takes_is_closed_counted_and_logged() {
    let service = Service::start(server());
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(service.address)).collect();
    clients.iter_mut().for_each(|client| client.turn(1));
    finish(&mut clients);
    let upgrade = service.upgrade(&server_with(&service, "SESSIONS_FAULT=takes-none"), &[]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    for client in clients {
        wait_until("the end of the connection", || client.has_ended().then_some(()));
    }
    wait_until("a line in the log", || {
        let said = service.stderr();
        let line = said.lines().find(|line| line.contains("connections of the incumbent were not taken"))?;
        assert!(line.contains("connections=3"), "{line}");
        Some(())
    });
}
