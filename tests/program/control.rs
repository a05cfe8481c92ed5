//! Commands: how they find a supervisor, and what they say.

use crate::harness::{Place, Run, signal, text, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

fn sleeper<'a>(place: &'a Place, name: &str) -> Run<'a> {
    let run = place.run(&["--name", name, "--", "sleep", "1000"]);
    wait_until("running", || (place.output("status", &["--name", name]).code == 0).then_some(()));
    run
}

#[test]
fn commands_find_their_supervisor() {
    let place = Place::new();
    place.output("status", &[]).expect(3, &["not running"]);
    place.output("upgrade", &[]).expect(3, &["not running"]);
    let failed = place.output("status", &["--json"]);
    assert_eq!(failed.json()["error"]["kind"], "not_running");

    let one = sleeper(&place, "one");
    let only = place.output("status", &["--json"]).json();
    assert_eq!(only["services"][0]["name"], "one");
    assert_eq!(only["supervisor"]["pid"], json!(one.pid()));
    place.output("status", &["none"]).expect(4, &["no service 'none'", "one"]);
    place.output("upgrade", &["none"]).expect(4, &["no service 'none'"]);

    let _two = sleeper(&place, "two");
    place.output("status", &[]).expect(2, &["one, two", "--name"]);
    assert_eq!(place.output("status", &["two", "--json"]).json()["services"][0]["name"], "two");
    assert_eq!(place.output("status", &["--name", "one"]).code, 0);
    place.output("status", &["--name", "three"]).expect(3, &["three"]);
    let socket = place.path("runtime/one.sock");
    assert_eq!(place.output("status", &["--socket", text(&socket)]).code, 0);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(place.path("runtime")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_supervisor_that_does_not_answer_is_not_waited_for() {
    let place = Place::new();
    let run = sleeper(&place, "one");
    signal(run.pid(), Signal::SIGSTOP);
    place.output("status", &["--timeout", "200ms"]).expect(5, &["timed out"]);
    place.output("upgrade", &["--timeout", "200ms"]).expect(5, &["timed out"]);
    signal(run.pid(), Signal::SIGCONT);
    place.output("status", &[]).expect(0, &[]);
}

/// Sends a line, and reads one.
fn talk(stream: &mut BufReader<UnixStream>, line: &str) -> Value {
    stream.get_mut().write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

#[test]
fn clients_that_misbehave_harm_nobody() {
    let place = Place::new();
    let run = sleeper(&place, "one");
    let connect = || BufReader::new(UnixStream::connect(place.path("runtime/one.sock")).unwrap());
    let good = "{\"jsonrpc\":\"2.0\",\"handoff\":1,\"id\":7,\"method\":\"status\"}\n";

    let mut client = connect();
    assert_eq!(talk(&mut client, "nonsense\n")["error"]["code"], -32700);
    assert_eq!(talk(&mut client, "{\"handoff\":99,\"id\":1,\"method\":\"status\"}\n")["error"]["code"], -32003);
    assert_eq!(talk(&mut client, "{\"handoff\":1,\"id\":2,\"method\":\"fly\"}\n")["error"]["code"], -32601);
    let answer = talk(&mut client, good);
    assert_eq!((&answer["id"], &answer["handoff"]), (&json!(7), &json!(1)));
    assert_eq!(answer["result"]["services"][0]["name"], "one");
    // In pieces, and two at once.
    client.get_mut().write_all(&good.as_bytes()[..20]).unwrap();
    assert_eq!(talk(&mut connect(), good)["id"], 7);
    assert_eq!(talk(&mut client, &format!("{}{good}", &good[20..]))["id"], 7);
    let mut second = String::new();
    client.read_line(&mut second).unwrap();
    assert!(second.contains("\"id\":7"));

    // Silent ones, more than there is room for.
    let silent: Vec<_> = (0..handoff::limits::CLIENTS_MAX + 36).map(|_| connect()).collect();
    assert_eq!(place.output("status", &[]).code, 0);
    // One that asks for ever and reads nothing, until it is cut off.
    let mut deaf = connect();
    while deaf.get_mut().write_all(good.repeat(100).as_bytes()).is_ok() {}
    assert_eq!(place.output("status", &[]).code, 0);
    // A line without end.
    let mut long = connect();
    let _ = long.get_mut().write_all(&[b'x'; 64 * 1024]);
    let mut rest = Vec::new();
    let _ = long.read_to_end(&mut rest);
    assert!(String::from_utf8_lossy(&rest).contains("too long"));
    assert_eq!(place.output("status", &[]).code, 0);
    drop(silent);
    let fds = || std::fs::read_dir(format!("/proc/{}/fd", run.pid())).unwrap().count();
    wait_until("closed connections", || (fds() < 25).then_some(()));
}

/// A name that no service can have is not one that does not run.
#[test]
fn impossible_names_are_errors_of_usage() {
    let place = Place::new();
    for name in ["", "a/b", "../x"] {
        for command in ["status", "upgrade", "rollback"] {
            for arguments in [&[name][..], &["--name", name]] {
                let words = format!("'{name}' can not be the name of a service: 1 to 48 letters");
                place.output(command, arguments).expect(2, &[&words]);
            }
        }
    }
}
