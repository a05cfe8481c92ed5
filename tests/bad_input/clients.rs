//! Clients of `handoff up` at their worst: others are answered, its memory stays within what it allows, and no unit hears of it.

use crate::control::{NOBODY, can_chown};
use crate::support::copy::copy_program;
use crate::support::fleet::Fleet;
use crate::support::{SIGKILL, signal, wait_until};
use handoff::limits::{CLIENTS_MAX, HISTORY_MAX, REPLY_BYTES_MAX, REQUEST_BYTES_MAX};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

const MIB: usize = 1024 * 1024;
/// What an allocator keeps, and a poll of so many clients needs, beside what is documented.
const SLACK: usize = 16 * MIB;

/// One that stops at once, and one that does not.
fn fleet() -> (Fleet, Vec<i32>) {
    let mut fleet = Fleet::place();
    let pids = launch(&mut fleet);
    (fleet, pids)
}

fn launch(fleet: &mut Fleet) -> Vec<i32> {
    let unit = |name: &str, words: &str, keys: &str| {
        format!("[unit.{name}]\n{}mode = 'none'\nready = 'fd=9'\n{keys}\n", fleet.acts(name, words))
    };
    let deaf = unit("deaf", "fd=9 ignore", "stop = ['TERM 1h', 'KILL']");
    fleet.configure(&(unit("app", "fd=9", "") + &deaf));
    fleet.launch();
    ["app", "deaf"].map(|name| fleet.wait_for(name, "running")["pid"].as_i64().unwrap() as i32).to_vec()
}

fn connect(fleet: &Fleet) -> UnixStream {
    UnixStream::connect(fleet.path("run/main.sock")).unwrap()
}

fn request(id: Value, method: &str, params: Value) -> String {
    format!("{}\n", json!({ "jsonrpc": "2.0", "handoff": 1, "id": id, "method": method, "params": params }))
}

fn line(client: &mut impl BufRead) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

fn memory(fleet: &Fleet) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", fleet.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().split(' ').next().unwrap().parse::<usize>().unwrap() * 1024
}

/// It answers, the same processes run, and it has not grown by more than this.
#[track_caller]
fn goes_on(fleet: &Fleet, pids: &[i32], before: usize, grown: usize) {
    let status = fleet.run("status", &["--json", "--timeout", "90s"]);
    let status = status.expect(0, &[]).json();
    let found: Vec<i64> =
        status["services"].as_array().unwrap().iter().filter_map(|unit| unit["pid"].as_i64()).collect();
    assert_eq!(found, pids.iter().map(|pid| i64::from(*pid)).collect::<Vec<_>>());
    let now = memory(fleet);
    assert!(now < before + grown, "{before} bytes before, now {now}, and {grown} more are allowed");
}

#[test]
fn requests_that_are_none_are_answered_as_such() {
    let (fleet, pids) = fleet();
    let before = memory(&fleet);
    let mut client = BufReader::new(connect(&fleet));
    let deep = |open: &str, times: usize| format!("{}\n", open.repeat(times));
    let rows: Vec<(Vec<u8>, i64)> = vec![
        (b"\xff\xfe\x00garbage\n".to_vec(), -32700),
        (b"\0\0\0\n".to_vec(), -32700),
        (deep("[", REQUEST_BYTES_MAX / 2).into(), -32700),
        (deep("{\"a\":", REQUEST_BYTES_MAX / 8).into(), -32700),
        (b"{\"handoff\":1e400}\n".to_vec(), -32700),
        (b"null\n".to_vec(), -32003),
        (b"[1]\n".to_vec(), -32003),
        (b"\"status\"\n".to_vec(), -32003),
        (b"{\"handoff\":1,\"method\":7}\n".to_vec(), -32600),
        (request(json!(1), "status", json!({ "service": 5 })).into(), -32602),
        (request(json!(1), "status", json!("app")).into(), -32602),
        (request(json!(1), "stop", json!({ "services": "app" })).into(), -32602),
        (request(json!(1), "kill", json!({ "services": ["app"], "signal": 9 })).into(), -32602),
        (request(json!(1), "kill", json!({ "services": ["app"], "signal": "0" })).into(), -32602),
        (request(json!(1), "kill", json!({ "services": ["app"], "signal": "-9" })).into(), -32602),
        (request(json!(1), "logs", json!({ "lines": -1 })).into(), -32602),
        (request(json!(1), "logs", json!({ "since_ns": 1e300 })).into(), -32602),
        (request(json!(1), "stop", json!({ "services": ["\u{0}"] })).into(), -32001),
        (request(json!(1), "stop", json!({ "services": ["../app"] })).into(), -32001),
    ];
    for (sent, code) in &rows {
        client.get_mut().write_all(sent).unwrap();
        let answer: Value = serde_json::from_str(&line(&mut client)).unwrap();
        assert_eq!(answer["error"]["code"], *code, "{}: {answer}", String::from_utf8_lossy(sent));
    }
    // More without an end than anybody reads.
    let mut endless = connect(&fleet);
    let sent = (0..64).take_while(|_| endless.write_all(&vec![b'x'; MIB]).is_ok()).count();
    assert!(sent < 64, "it is cut off");
    // Half a request, and the end; a whole one, and the end before the answer.
    for part in [&b"{\"handoff\":1,"[..], request(json!(1), "restart", json!({ "services": ["deaf"] })).as_bytes()] {
        for _ in 0..50 {
            connect(&fleet).write_all(&part[..part.len().min(20)]).unwrap();
        }
    }
    goes_on(&fleet, &pids, before, SLACK);
}

/// More of them than there is room for, with half a request each.
#[test]
fn clients_that_say_half_a_line_and_then_nothing() {
    let (fleet, pids) = fleet();
    let before = memory(&fleet);
    let half = vec![b'x'; REQUEST_BYTES_MAX - 1];
    let clients: Vec<UnixStream> = (0..CLIENTS_MAX + 100)
        .map(|_| {
            let mut client = connect(&fleet);
            client.write_all(&half).unwrap();
            client
        })
        .collect();
    goes_on(&fleet, &pids, before, CLIENTS_MAX * 2 * REQUEST_BYTES_MAX + SLACK);
    drop(clients);
}

/// What they have asked for is answered, and they read nothing of it, nor do they ask again.
#[test]
fn clients_that_never_read_keep_nobody_out() {
    let entry = json!({ "time_ms": 1, "kind": "start", "pid": 1, "generation": 1, "adopted": false });
    let end = json!({ "time_ms": 1, "kind": "end", "text": "x".repeat(4 * MIB / 10 / HISTORY_MAX) });
    let mut fleet = Fleet::place();
    fs::create_dir(fleet.path("run")).unwrap();
    fs::set_permissions(fleet.path("run"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(fleet.path("run/app.history"), format!("{entry}\n{}", format!("{end}\n").repeat(HISTORY_MAX))).unwrap();
    let pids = launch(&mut fleet);
    let before = memory(&fleet);
    // A short question with a long answer: more than a socket holds.
    let question = request(json!(1), "history", json!({ "service": "app" }));
    let clients: Vec<UnixStream> = (0..CLIENTS_MAX + 20)
        .map(|_| {
            let mut client = connect(&fleet);
            client.write_all(question.as_bytes()).unwrap();
            client
        })
        .collect();
    for _ in 0..5 {
        goes_on(&fleet, &pids, before, CLIENTS_MAX * MIB + SLACK);
    }
    let mut first = BufReader::new(clients.last().unwrap());
    assert!(line(&mut first).len() > 300_000, "the answer is as long as that");
    drop(clients);
    // One that asks for more than is kept for it.
    let mut one = connect(&fleet);
    let sent = (0..1000).take_while(|_| one.write_all(question.as_bytes()).is_ok()).count();
    assert!(sent < 1000, "it is cut off");
    goes_on(&fleet, &pids, before, CLIENTS_MAX * MIB + REPLY_BYTES_MAX + SLACK);
}

/// They wait for something that does not come.
#[test]
fn clients_that_wait_have_a_bound_and_are_told() {
    let (fleet, pids) = fleet();
    let before = memory(&fleet);
    let stop = request(json!(1), "stop", json!({ "services": ["deaf"], "wait": true }));
    // One of them asks again and again. It is not listened to any more, until something is answered.
    let mut one = connect(&fleet);
    one.set_nonblocking(true).unwrap();
    let full = (0..1_000_000).find_map(|_| one.write_all(stop.as_bytes()).err()).unwrap();
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    goes_on(&fleet, &pids, before, SLACK);
    // The answer to the first request says that the second one is heard.
    let both = request(json!(0), "why", json!({ "service": "app" })) + &stop;
    let mut clients: Vec<BufReader<UnixStream>> = (1..CLIENTS_MAX)
        .map(|_| {
            let mut client = BufReader::new(connect(&fleet));
            client.get_mut().write_all(both.as_bytes()).unwrap();
            assert!(line(&mut client).contains("\"id\":0"));
            client
        })
        .collect();
    fleet.run("status", &[]).expect(1, &["clients wait for something already; end one of them"]);
    drop(clients.pop());
    wait_until("room again", || fleet.unit("deaf").filter(|unit| unit["state"] == "stopping"));
    goes_on(&fleet, &pids, before, SLACK);
    signal(pids[1], SIGKILL);
    // Each gets its answer, also the one that has asked so often.
    clients.iter_mut().for_each(|client| assert!(line(client).contains("\"ok\":true")));
    one.set_nonblocking(false).unwrap();
    let mut one = BufReader::new(one);
    (0..200).for_each(|_| assert!(line(&mut one).contains("\"ok\":true")));
}

/// Also where somebody has opened the socket to all.
#[test]
fn another_user_is_refused_and_hears_why() {
    if !can_chown() {
        return;
    }
    let (fleet, pids) = fleet();
    let before = memory(&fleet);
    let program = fleet.path("handoff");
    copy_program(env!("CARGO_BIN_EXE_handoff"), &program);
    for (name, mode) in [("", 0o755), ("run", 0o755), ("run/main.sock", 0o777), ("handoff", 0o755)] {
        fs::set_permissions(fleet.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for words in [&["stop", "app"][..], &["status"], &["shutdown"], &["kill", "app", "KILL"]] {
        let mut command = std::process::Command::new(&program);
        command.uid(NOBODY).gid(NOBODY).args(words).arg("--socket").arg(fleet.path("run/main.sock"));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("only the same user and root may command this supervisor"), "{said}");
    }
    assert!(fleet.log().contains("another user connected to the control socket"));
    goes_on(&fleet, &pids, before, SLACK);
}
