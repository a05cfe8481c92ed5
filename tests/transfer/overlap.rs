//! Overlap mode: the incumbent gives its connections while it drains, to a successor that serves already.

use super::clients::{Client, Load, finish};
use super::sessions::{expect_nothing_lost, server_with};
use super::support::{SIGKILL, Service, lives, signal, wait_until};
use std::fs;

/// Serves in overlap mode, with this in its environment.
fn start(variable: &str) -> Service {
    let mut service = Service::place();
    service.environment.push(("SESSIONS_MODE", "overlap".into()));
    let program = server_with(&service, variable);
    service.launch(&program, &["--max-draining", "2"]);
    service
}

/// A process that gives nothing before this file is there.
pub fn gate(service: &Service, name: &str) -> String {
    format!("SESSIONS_GIVE={}", service.path(name).display())
}

pub fn open(service: &Service, name: &str) {
    fs::write(service.path(name), "").unwrap();
}

/// The pid of the process that was replaced.
fn upgrade(service: &Service, variable: &str) -> i32 {
    let before = service.daemon_pid();
    let upgrade = service.upgrade(&server_with(service, variable), &[]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    before
}

pub fn connect(service: &Service, count: usize) -> Vec<Client> {
    let mut clients: Vec<_> = (0..count).map(|_| Client::connect(service.address)).collect();
    talk(&mut clients);
    clients
}

pub fn talk(clients: &mut [Client]) {
    clients.iter_mut().for_each(|client| client.turn(3));
    finish(clients);
}

pub fn expect_end(pid: i32) {
    wait_until("the end of a process that was replaced", || (!lives(pid)).then_some(()));
}

#[test]
fn connections_live_through_ten_upgrades() {
    let mut service = start("SESSIONS_HELPER=1");
    let load = Load::start(service.address, 2, 20);
    load.wait_for(500);
    for round in 0..10 {
        let hook = ["", " SESSIONS_HOOK=1"][round % 2];
        expect_end(upgrade(&service, &format!("SESSIONS_HELPER={}{hook}", round / 2 % 2)));
        load.wait_for(500);
    }
    load.finish();
    expect_nothing_lost(&service);
    service.stop();
}

#[test]
fn an_incumbent_that_dies_in_the_middle_takes_only_with_it_what_it_has_not_given() {
    let mut service = start("SESSIONS_FAULT=dies-giving");
    let mut clients = connect(&service, 40);
    expect_end(upgrade(&service, "SESSIONS_FAULT=none"));
    clients.retain_mut(Client::survives);
    assert!((1..=5).contains(&clients.len()), "{} of those that were given live", clients.len());
    talk(&mut clients);
    expect_nothing_lost(&service);
    service.stop();
}

#[test]
fn a_successor_that_dies_in_the_middle_takes_only_with_it_what_it_was_given() {
    let mut service = start("SESSIONS_FAULT=none");
    let mut clients = connect(&service, 100);
    let first = upgrade(&service, "SESSIONS_FAULT=dies-taking");
    // The incumbent may have given all by then, and have left.
    wait_until("another process is started", || {
        let status = service.status()?;
        (status["generation"] == 3 && status["state"] == "running").then_some(())
    });
    clients.retain_mut(Client::survives);
    assert!(clients.len() <= 95, "{} live, but five were taken", clients.len());
    talk(&mut clients);
    drop(clients);
    expect_end(first);
    expect_nothing_lost(&service);
    service.stop();
}

#[test]
fn what_can_not_be_given_any_more_is_served_to_its_end() {
    let mut service = start("SESSIONS_FAULT=none");
    let wait = gate(&service, "go");
    let first = service.daemon_pid();
    expect_end(upgrade(&service, &wait));
    assert_ne!(service.daemon_pid(), first);
    let mut clients = connect(&service, 20);
    let second = upgrade(&service, "SESSIONS_FAULT=none");
    let third = service.daemon_pid();
    // Before that the death of its successor would make it serve on.
    wait_until("its last drain", || service.stderr().contains(&format!("{second} leaves")).then_some(()));
    signal(third, SIGKILL);
    // Reaped: before that one of its threads may still have its end of the socket.
    wait_until("its end", || service.stderr().contains("killed by signal 9").then_some(()));
    open(&service, "go");
    talk(&mut clients);
    assert!(lives(second));
    drop(clients);
    expect_end(second);
    expect_nothing_lost(&service);
    service.stop();
}

/// The one gives to the other, which drains as well, and gives everything on.
#[test]
fn two_that_drain_give_in_a_chain() {
    let mut service = start("SESSIONS_FAULT=none");
    expect_end(upgrade(&service, &gate(&service, "one")));
    let mut clients = connect(&service, 20);
    let one = upgrade(&service, &gate(&service, "two"));
    clients.extend(connect(&service, 20));
    let two = upgrade(&service, "SESSIONS_FAULT=none");
    clients.extend(connect(&service, 20));
    open(&service, "one");
    expect_end(one);
    talk(&mut clients);
    assert!(lives(two));
    open(&service, "two");
    expect_end(two);
    talk(&mut clients);
    expect_nothing_lost(&service);
    service.stop();
}

/// Whichever is done first: what it is too late for stays where it is.
#[test]
fn two_that_give_at_once_lose_nothing() {
    let mut service = start("SESSIONS_FAULT=none");
    expect_end(upgrade(&service, &gate(&service, "go")));
    let mut clients = connect(&service, 60);
    let one = upgrade(&service, &gate(&service, "go"));
    clients.extend(connect(&service, 60));
    let two = upgrade(&service, "SESSIONS_FAULT=none");
    open(&service, "go");
    expect_end(two);
    talk(&mut clients);
    drop(clients);
    expect_end(one);
    expect_nothing_lost(&service);
    service.stop();
}

#[test]
fn what_nobody_takes_is_closed() {
    let mut service = start("SESSIONS_FAULT=none");
    let clients = connect(&service, 3);
    expect_end(upgrade(&service, "SESSIONS_FAULT=takes-none"));
    for client in clients {
        wait_until("the end of the connection", || client.has_ended().then_some(()));
    }
    let said = service.stderr();
    assert!(said.contains("connections of the incumbent were not taken"), "{said}");
    service.stop();
}
