//! The web server in Go, upgraded while clients ask.

use super::BINDING;
use super::overlap::server as server_of_the_tests;
use super::support::go::{build_go, have_go};
use super::support::{PATIENCE, Service, lives, wait_for_death, wait_until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

const UPGRADES: usize = 24;

const HALF: &str = "GET /half HTTP/1.1\r\nHost: test\r\n\r\n";

fn server(build: &str, flags: &[&str]) -> PathBuf {
    let mut all = vec!["-ldflags"];
    let variable = format!("-X main.build={build}");
    all.push(&variable);
    all.extend(flags);
    build_go(&format!("web-{build}"), BINDING, "./examples/http", &all)
}

/// One connection, on which requests follow each other.
struct Connection {
    stream: TcpStream,
    input: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { input: BufReader::new(stream.try_clone()?), stream })
    }

    /// The body, and whether the connection stays.
    fn get(&mut self, target: &str, keep: bool) -> std::io::Result<(String, bool)> {
        let connection = if keep { "keep-alive" } else { "close" };
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n");
        self.stream.write_all(request.as_bytes())?;
        let (mut size, mut stays, mut status) = (0, true, String::new());
        self.input.read_line(&mut status)?;
        loop {
            let mut line = String::new();
            self.input.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => size = value.parse().map_err(std::io::Error::other)?,
                Some(("connection", "close")) => stays = false,
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; size];
        self.input.read_exact(&mut body)?;
        match status.starts_with("HTTP/1.1 200 ") && size > 0 {
            true => Ok((String::from_utf8_lossy(&body).trim_end().to_owned(), stays)),
            false => Err(std::io::Error::other(format!("status {status:?}, {size} bytes"))),
        }
    }
}

impl Connection {
    /// Reads up to this line of an answer that comes in parts.
    fn skip_to(&mut self, wanted: &str) {
        let mut line = String::new();
        while line.trim_end() != wanted {
            line.clear();
            assert!(self.input.read_line(&mut line).unwrap() > 0, "the end before {wanted}");
        }
    }
}

fn get(address: SocketAddr, target: &str) -> std::io::Result<String> {
    Connection::open(address)?.get(target, false).map(|(body, _)| body)
}

/// Clients that ask without a pause, half of them on one connection, which they keep. No request is repeated.
struct Clients {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Clients {
    fn start(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |number: usize| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                let (mut failures, mut kept) = (Vec::new(), None);
                while !stop.load(Ordering::Relaxed) && failures.len() < 10 {
                    let keep = number.is_multiple_of(2);
                    let asked = kept.take().map_or_else(|| Connection::open(address), Ok).and_then(|mut connection| {
                        let (_, stays) = connection.get("/", keep)?;
                        if keep && !stays {
                            return Err(std::io::Error::other("told to hang up"));
                        }
                        kept = keep.then_some(connection);
                        Ok(())
                    });
                    match asked {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.push(format!("client {number}: {error}")),
                    }
                }
                failures
            })
        };
        let threads = (0..8).map(client).collect();
        Self { stop, answered, threads }
    }

    fn wait_for_more(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        wait_until("answers", || (self.answered.load(Ordering::Relaxed) > before + 50).then_some(()));
    }

    /// No request has failed, and no connection has ended that a client keeps.
    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failures: Vec<String> = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(failures, Vec::<String>::new(), "of {}", self.answered.load(Ordering::Relaxed));
    }
}

fn start(program: &Path) -> (Service, SocketAddr) {
    let service = Service::start_with(program, &["--listen", "http=127.0.0.1:0"]);
    let status = service.status().unwrap();
    let listeners = status["listeners"].as_array().unwrap();
    let http = listeners.iter().find(|listener| listener["name"] == "http").unwrap();
    let address = http["address"].as_str().unwrap().parse().unwrap();
    (service, address)
}

#[test]
fn a_web_server_is_replaced_and_neither_a_request_fails_nor_a_connection_ends() {
    if !have_go() {
        return;
    }
    let (a, b) = (server("a", &[]), server("b", &[]));
    let (mut service, address) = start(&a);
    let clients = Clients::start(address);
    // One that asks nothing while it moves, one that has asked for a half, and one that has not asked at all.
    let (mut idle, mut half) = (Connection::open(address).unwrap(), Connection::open(address).unwrap());
    let silent = Connection::open(address).unwrap();
    assert!(idle.get("/", true).unwrap().1);
    half.stream.write_all(&HALF.as_bytes()[..HALF.len() / 2]).unwrap();
    for round in 0..UPGRADES {
        clients.wait_for_more();
        let before = service.daemon_pid();
        let (binary, build) = if round % 2 == 0 { (&b, "b") } else { (&a, "a") };
        let upgrade = service.upgrade(binary, &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "round {round}: {upgrade:?}");
        wait_for_death(before);
        assert_eq!(get(address, "/").unwrap(), format!("{build} {}", service.daemon_pid()), "round {round}");
    }
    clients.wait_for_more();
    clients.stop();
    half.stream.write_all(&HALF.as_bytes()[HALF.len() / 2..]).unwrap();
    let last = format!("a {}", service.daemon_pid());
    half.skip_to(&last);
    for mut connection in [idle, half, silent] {
        assert_eq!(connection.get("/", true).unwrap(), (last.clone(), true));
    }
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
}

#[test]
fn a_bad_web_server_is_undone_and_no_request_fails() {
    if !have_go() {
        return;
    }
    let race = server("race", &["-race"]);
    let (mut service, address) = start(&race);
    let bad = service.path("bad");
    std::fs::write(&bad, format!("#!/bin/sh\nWEB_FAULT=bad exec {}\n", race.display())).unwrap();
    std::fs::set_permissions(&bad, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let clients = Clients::start(address);
    for _ in 0..3 {
        clients.wait_for_more();
        let pid = service.daemon_pid();
        let upgrade = service.upgrade(&bad, &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
        assert_eq!(get(address, "/").unwrap(), format!("race {pid}"));
        clients.wait_for_more();
        assert_eq!(service.upgrade(&race, &[]).result, "committed");
        wait_for_death(pid);
    }
    clients.stop();
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
    assert!(!service.stderr().contains("DATA RACE"), "{}", service.stderr());
}

#[test]
fn a_request_that_is_under_way_is_answered_at_an_upgrade_and_at_sigterm() {
    if !have_go() {
        return;
    }
    let a = server("slow", &[]);
    let (mut service, address) = start(&a);
    for stop in [false, true] {
        let pid = service.daemon_pid();
        let mut connection = Connection::open(address).unwrap();
        // Answered once, so that it is known to the server.
        assert_eq!(connection.get("/", true).unwrap(), (format!("slow {pid}"), true));
        connection.stream.write_all(b"GET /?ms=1500 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        connection.skip_to("wait");
        if stop {
            assert_eq!(service.stop(), Some(0), "{}", service.stderr());
        } else {
            assert_eq!(service.upgrade(&a, &[]).result, "committed");
        }
        connection.skip_to(&format!("slow {pid}"));
        if !stop {
            connection.skip_to("0"); // the end of a chunked body
            assert_eq!(connection.input.read_line(&mut String::new()).unwrap(), 2);
            let next = format!("slow {}", service.daemon_pid());
            assert_eq!(connection.get("/", true).unwrap(), (next, true), "on the same connection");
        }
    }
}

/// A successor answers on a connection that moved, and dies before it has said that it serves.
#[test]
fn connections_that_a_dead_successor_has_had_are_closed() {
    if !have_go() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&server_of_the_tests(dir.path(), "good", ""));
    let (address, before) = (service.address, service.daemon_pid());
    let mut idle = Connection::open(address).unwrap();
    assert!(idle.get("/", true).unwrap().0.ends_with(&before.to_string()));
    let mut half = Connection::open(address).unwrap();
    half.stream.write_all(&HALF.as_bytes()[..HALF.len() / 2]).unwrap();
    let upgrading = service.begin_upgrade(&server_of_the_tests(dir.path(), "fleeting", "WEB_FAULT=fleeting"), &[]);
    let successor = service.successor_of(before);
    wait_until("the commit", || service.stderr().contains("web: committed").then_some(()));
    half.stream.write_all(&HALF.as_bytes()[HALF.len() / 2..]).unwrap();
    half.skip_to(&format!("dev {successor}"));
    assert_eq!(upgrading.wait().result, "reverted");
    for mut connection in [half, idle] {
        assert_eq!(connection.input.read_line(&mut String::new()).unwrap(), 0);
    }
    assert_eq!(get(address, "/").unwrap(), format!("dev {before}"));
    assert!(!service.stderr().contains("DATA RACE"), "{}", service.stderr());
}

/// On probation a successor has the connections alone: its close is one, though the incumbent lives.
#[test]
fn a_parked_web_server_lets_go_of_what_it_gave() {
    if !have_go() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = server_of_the_tests(dir.path(), "good", "");
    let service = Service::start(&program);
    let incumbent = service.daemon_pid();
    let mut moved = Connection::open(service.address).unwrap();
    assert!(moved.get("/", true).unwrap().1);
    assert_eq!(service.upgrade(&program, &["--probation", "10m"]).result, "committed");
    let answer = (format!("dev {}", service.daemon_pid()), false);
    assert_eq!(moved.get("/", false).unwrap(), answer);
    assert_eq!(moved.input.read_line(&mut String::new()).unwrap(), 0);
    assert!(lives(incumbent) && service.status().unwrap()["phase"] == "probation");
    assert!(!service.stderr().contains("DATA RACE"), "{}", service.stderr());
}
