//! The limit on descriptors of a supervisor that runs is lowered from outside.

use crate::scene::{Scene, daemon};
use crate::support::{SIGKILL, signal, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

fn limit(pid: i32, limits: &str) {
    let done = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={limits}")]).status();
    assert!(done.unwrap().success());
}

/// Asks over a connection, and waits for the answer.
fn ask(client: &UnixStream) -> String {
    let mut writer = client;
    writer.write_all(b"{\"jsonrpc\":\"2.0\",\"handoff\":1,\"id\":1,\"method\":\"status\"}\n").unwrap();
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    assert!(line.contains("\"result\""), "{line}");
    line
}

#[test]
fn it_goes_on_with_fewer_descriptors_than_it_polls() {
    let mut scene = Scene::up(&daemon("a", ""));
    scene.all_run(&["a"]);
    let pid = scene.supervisor();
    let clients: Vec<_> = (0..8).map(|_| UnixStream::connect(scene.place.path("run/kv.sock")).unwrap()).collect();
    clients.iter().for_each(|client| drop(ask(client)));
    let daemon = scene.pid("a");
    // The soft limit it raises by itself.
    limit(pid, "5:");
    clients.iter().for_each(|client| drop(ask(client)));
    scene.run("status", &[]).expect(0, &["running"]);
    assert!(!scene.stderr().contains("RLIMIT_NOFILE"), "{}", scene.stderr());
    for hard in ["5:5", "1:1"] {
        limit(pid, hard);
        clients.iter().for_each(|client| drop(ask(client)));
    }
    // A daemon that dies meanwhile is seen.
    signal(daemon, SIGKILL);
    wait_until("its end", || ask(&clients[0]).contains("\"pid\":null").then_some(()));
    limit(pid, "0:0");
    clients.iter().for_each(|client| drop(ask(client)));
    wait_until("it is told", || scene.stderr().contains("RLIMIT_NOFILE was lowered to 5, but").then_some(()));
    assert_eq!(scene.stderr().matches("RLIMIT_NOFILE was lowered").count(), 1, "{}", scene.stderr());
    // The daemon has left a child, which can not be looked for: that is no good end.
    assert_eq!(scene.stop(), 1);
}

/// It polls few, but whatever it opens would get a number that is too high.
#[test]
fn it_is_not_deaf_with_a_soft_limit_below_what_it_has_open() {
    let mut scene = Scene::up(&daemon("a", "backoff = { first = '1ms' }"));
    scene.all_run(&["a"]);
    let before = scene.pid("a");
    limit(scene.supervisor(), "9:");
    signal(before, SIGKILL);
    wait_until("it is started again", || (scene.log() == ["a starts", "a starts"]).then_some(()));
    limit(scene.supervisor(), "9:");
    scene.run("status", &[]).expect(0, &[]);
    limit(scene.supervisor(), "9:");
    scene.run("stop", &["a"]).expect(0, &[]);
    assert_eq!(scene.stop(), 0);
}
