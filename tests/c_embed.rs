//! The example of a program that embeds a supervisor, `examples-c/embed.c`, with the store.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use support::{PATIENCE, SIGKILL, SIGTERM, Service, compile, programs, signal, wait_for_death, wait_until};

const SIGHUP: i32 = 1;

/// The example, on any port; what it says.
fn embed(place: &Service) -> (Child, Receiver<String>) {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| compile("embed", "examples-c/embed.c", &[]));
    let mut command = place.other_command(program);
    command.arg(place.dir.path()).arg("0").arg(place.path("store"));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (sender, receiver) = channel();
    thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    (child, receiver)
}

/// The rest of the next line, which begins so.
fn after(lines: &Receiver<String>, start: &str) -> String {
    let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no {start}: {error}"));
    let rest = line.strip_prefix("embed: ").and_then(|line| line.strip_prefix(start));
    rest.unwrap_or_else(|| panic!("{line}, not {start}")).to_owned()
}

/// The process of an outcome, which is the next line.
fn outcome(lines: &Receiver<String>, result: &str) -> i32 {
    let rest = after(lines, result);
    let pid = rest.strip_prefix(": process ").and_then(|rest| rest.split(',').next());
    pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("{result}{rest}"))
}

/// Puts a program in the place of the one before.
fn install(place: &Service, program: &PathBuf) {
    symlink(program, place.path("new")).unwrap();
    fs::rename(place.path("new"), place.path("store")).unwrap();
}

/// The example, whose daemon serves in a new place.
fn started() -> (Service, Child, Receiver<String>, i32) {
    let mut place = Service::place();
    install(&place, &programs().kv_a);
    let (child, lines) = embed(&place);
    let port = after(&lines, "listening on 127.0.0.1:").parse().unwrap();
    place.address = (Ipv4Addr::LOCALHOST, port).into();
    let first = outcome(&lines, "started cold");
    (place, child, lines, first)
}

#[test]
fn starts_upgrades_restarts_and_comes_back() {
    let (place, mut child, lines, first) = started();
    assert_eq!(place.ping(), Some((first, "a".to_owned())));

    install(&place, &programs().kv_b);
    signal(child.id() as i32, SIGHUP);
    let second = outcome(&lines, "committed");
    assert_eq!(place.ping(), Some((second, "b".to_owned())));

    signal(second, SIGKILL);
    after(&lines, "the daemon has died");
    let third = outcome(&lines, "started cold");
    assert_eq!(place.ping(), Some((third, "b".to_owned())));

    child.kill().unwrap();
    child.wait().unwrap();
    let (mut child, lines) = embed(&place);
    assert_eq!(outcome(&lines, "adopted"), third);
    install(&place, &programs().kv_a);
    signal(child.id() as i32, SIGHUP);
    let fourth = outcome(&lines, "committed");
    signal(child.id() as i32, SIGTERM);
    let status = wait_until("a clean end", || child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    wait_for_death(third);
    assert_eq!(place.ping(), Some((fourth, "a".to_owned())), "it lives on");
}

#[test]
fn leaves_in_the_midst_of_a_handoff() {
    let (place, mut child, lines, first) = started();
    install(&place, &place.faulty("hang-open"));
    signal(child.id() as i32, SIGHUP);
    wait_until("the incumbent has sealed", || place.ping().is_none().then_some(()));
    signal(child.id() as i32, SIGTERM);
    assert_eq!(outcome(&lines, "rolled back"), first);
    let status = wait_until("a clean end", || child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    assert_eq!(place.ping(), Some((first, "a".to_owned())));
}
