//! examples-c/chat.c and examples-c/cache.c: connections that live on, and memory that is handed over.

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod chat;
mod websocket;

use nix::sys::socket::{setsockopt, sockopt};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use support::{Service, Upgrade, Upgrading, compile, wait_for_death, wait_until, waits};

/// The builds of one example.
struct Programs {
    a: PathBuf,
    b: PathBuf,
    faulty: PathBuf,
}

impl Programs {
    fn of(example: &str) -> Self {
        let source = format!("examples-c/{example}.c");
        let faulty = format!("-DPROGRAM=\"../../{source}\"");
        Self {
            a: compile(&format!("{example}-a"), &source, &["-DBUILD=\"a\""]),
            b: compile(&format!("{example}-b"), &source, &["-DBUILD=\"b\""]),
            faulty: compile(&format!("{example}-faulty"), "ffi-tests/c/faulty_session.c", &[&faulty]),
        }
    }
}

/// Runs an example, which takes the listener of its own name, and waits until it serves.
fn launch(service: &mut Service, example: &str, program: &Path) {
    service.launch(program, &["--listen", &format!("{example}=127.0.0.1:0")]);
    service.address = address(service, example);
}

fn address(service: &Service, listener: &str) -> SocketAddr {
    let status = service.status().unwrap();
    let listeners = status["listeners"].as_array().unwrap();
    let of_name = listeners.iter().find(|entry| entry["name"] == listener).unwrap();
    of_name["address"].as_str().unwrap().parse().unwrap()
}

/// The new process serves, and the old one is gone.
#[track_caller]
fn commit(service: &Service, program: &Path) {
    let before = service.daemon_pid();
    let upgrade = service.upgrade(program, &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
    wait_for_death(before);
    assert_eq!(service.daemons(), [service.daemon_pid()]);
}

/// The old process goes on, alone.
#[track_caller]
fn roll_back(service: &Service, upgrade: impl FnOnce() -> Upgrade) {
    let before = service.daemon_pid();
    let upgrade = upgrade();
    assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
    wait_until("the incumbent, and nobody else", || (service.daemons() == [before]).then_some(()));
}

/// A successor that hangs, once it has all that the incumbent gave; its pid.
fn hang(service: &Service, program: &Path) -> (Upgrading, i32) {
    let (before, said) = (service.daemon_pid(), service.stderr().matches("has everything").count());
    let upgrading = service.begin_upgrade(program, &[]);
    wait_until("the successor has everything", || {
        (service.stderr().matches("has everything").count() > said).then_some(())
    });
    (upgrading, service.successor_of(before))
}

/// Writes until nothing more is taken, since the server waits for its own replies to be read; how much was written.
fn write_until_stalled(service: &Service, mut stream: &TcpStream, bytes: &[u8]) -> usize {
    let (server, mut written) = (service.daemon_pid(), 0);
    setsockopt(stream, sockopt::SndBuf, &(64 << 10)).unwrap();
    setsockopt(stream, sockopt::RcvBuf, &(256 << 10)).unwrap();
    stream.set_nonblocking(true).unwrap();
    wait_until("the server takes no more", || {
        let waited = waits(server);
        match stream.write(&bytes[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return waited.then_some(()),
            Err(error) => panic!("{error}"),
        }
        assert!(written < bytes.len(), "everything fitted in somewhere");
        None
    });
    stream.set_nonblocking(false).unwrap();
    written
}
