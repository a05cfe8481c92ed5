//! Overlap mode without a loop for the library: `handoff_serve` with hooks, in C, and `Incumbent::serve`, in Rust.

use super::clients::Load;
use super::overlap::{connect, expect_end, gate, open, talk};
use super::sessions::expect_nothing_lost;
use super::support::{Service, compile};
use handoff::{Config, Deadline, DrainReport, Drainable, HookError, Mode, Role, SealReport, StateSnapshot, Transfer};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

/// Makes this test program the daemon in Rust.
const DAEMON: &str = "TRANSFER_TEST_DAEMON";

/// A script that becomes the program, with this in its environment.
fn script(service: &Service, program: &str, variable: &str) -> PathBuf {
    let script = service.path(&variable.replace('/', "_"));
    fs::write(&script, format!("#!/bin/sh\n{variable} exec {program}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

fn in_c() -> String {
    compile("serves", "ffi-tests/c/serves.c", &[]).display().to_string()
}

fn in_rust() -> String {
    let own = std::env::current_exe().unwrap();
    format!("env {DAEMON}=1 {} --exact serving::daemon --nocapture", own.display())
}

fn start(program: &str) -> Service {
    let mut service = Service::place();
    let first = script(&service, program, "FIRST=1");
    service.launch(&first, &["--max-draining", "2"]);
    service
}

/// The pid of the process that was replaced.
fn upgrade(service: &Service, program: &str, variable: &str) -> i32 {
    let before = service.daemon_pid();
    let upgrade = service.upgrade(&script(service, program, variable), &[]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    before
}

fn connections_live(program: &str) {
    let mut service = start(program);
    let load = Load::start(service.address, 2, 10);
    load.wait_for(300);
    for round in 0..5 {
        expect_end(upgrade(&service, program, &format!("ROUND={round}")));
        load.wait_for(300);
    }
    load.finish();
    expect_nothing_lost(&service);
    service.stop();
}

/// What comes while the hook of the last drain runs is taken, and given on.
fn two_give_in_a_chain(program: &str) {
    let mut service = start(program);
    expect_end(upgrade(&service, program, &gate(&service, "one")));
    let mut clients = connect(&service, 10);
    let one = upgrade(&service, program, &gate(&service, "two"));
    clients.extend(connect(&service, 10));
    let two = upgrade(&service, program, "LAST=1");
    clients.extend(connect(&service, 10));
    open(&service, "one");
    expect_end(one);
    open(&service, "two");
    expect_end(two);
    talk(&mut clients);
    expect_nothing_lost(&service);
    service.stop();
}

#[test]
fn connections_live_in_c() {
    connections_live(&in_c());
}

#[test]
fn connections_live_in_rust() {
    connections_live(&in_rust());
}

#[test]
fn two_in_c_give_in_a_chain() {
    two_give_in_a_chain(&in_c());
}

#[test]
fn two_in_rust_give_in_a_chain() {
    two_give_in_a_chain(&in_rust());
}

/// Not a test: the daemon, when it is started as one.
#[test]
fn daemon() {
    if std::env::var_os(DAEMON).is_none() {
        return;
    }
    let begun = match handoff::detect_role(&Config::new().mode(Mode::Overlap)).unwrap() {
        Role::ColdStart(cold) => cold.begin(),
        Role::Successor(successor) => successor.handshake().and_then(|successor| successor.wait_for_begin()),
    };
    let begun = begun.unwrap();
    let listener = TcpListener::from(begun.listeners().take(Some("kv"), 0).unwrap());
    let mut server = Server { shared: Arc::default(), transfer: begun.transfer() };
    let incumbent = begun.announce_and_bind(&server).unwrap();
    server.shared.lock().unwrap().listener = Some(listener);
    let shared = Arc::clone(&server.shared);
    spawn(move || {
        loop {
            shared.lock().unwrap().turn();
            sleep(Duration::from_micros(500));
        }
    });
    incumbent.serve(&mut server).unwrap();
    std::process::exit(0);
}

/// The same as `ffi-tests/c/serves.c`.
struct Server {
    shared: Arc<Mutex<Shared>>,
    transfer: Transfer,
}

#[derive(Default)]
struct Shared {
    listener: Option<TcpListener>,
    sessions: Vec<Session>,
}

struct Session {
    stream: TcpStream,
    /// The last number in each direction.
    heard: u64,
    said: u64,
    input: Vec<u8>,
}

impl Shared {
    fn turn(&mut self) {
        self.sessions.retain_mut(Session::hear);
        if let Some(Ok((stream, _))) = self.listener.as_ref().map(TcpListener::accept) {
            stream.set_nonblocking(true).unwrap();
            self.sessions.push(Session { stream, heard: 0, said: 0, input: Vec::new() });
        }
    }
}

impl Session {
    /// False once the client is gone.
    fn hear(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(read) => self.input.extend_from_slice(&bytes[..read]),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let number: u64 = String::from_utf8_lossy(&line).trim().parse().unwrap();
            if number != self.heard + 1 {
                eprintln!("LOST: line {number} after {}", self.heard);
            }
            (self.heard, self.said) = (number, self.said + 1);
            let reply = format!("{} {number}\n", self.said);
            if self.stream.write_all(reply.as_bytes()).is_err() {
                return false;
            }
        }
        true
    }
}

impl Drainable for Server {
    fn drain(&mut self, deadline: &Deadline<'_>) -> Result<DrainReport, HookError> {
        assert!(deadline.is_after_commit());
        drop(self.shared.lock().unwrap().listener.take());
        while std::env::var_os("SESSIONS_GIVE").is_some_and(|gate| !Path::new(&gate).exists()) {
            sleep(Duration::from_millis(1));
        }
        let mut shared = self.shared.lock().unwrap();
        for session in shared.sessions.drain(..) {
            let state = [&session.heard.to_le_bytes()[..], &session.said.to_le_bytes(), &session.input].concat();
            self.transfer.put_connection(&session.stream, "session", &state)?;
        }
        Ok(DrainReport::default())
    }

    fn connections(&mut self) {
        while let Some(moved) = self.transfer.next_connection().unwrap() {
            let number = |at: usize| u64::from_le_bytes(moved.state[at..at + 8].try_into().unwrap());
            let (heard, said, input) = (number(0), number(8), moved.state[16..].to_vec());
            let stream = TcpStream::from(moved.fd);
            self.shared.lock().unwrap().sessions.push(Session { stream, heard, said, input });
        }
    }

    fn seal(&mut self, _: &Deadline<'_>) -> Result<SealReport, HookError> {
        Err("overlap mode has no seal".into())
    }

    fn resume_after_abort(&mut self) -> Result<(), HookError> {
        Err("overlap mode has no resume".into())
    }

    fn snapshot_state(&self) -> StateSnapshot {
        StateSnapshot::default()
    }
}
