//! HTTP clients that take a new connection for each request, and close it first; and the scene of some upgrades under them.

use crate::harness::{Place, Run, lives, pid_of, text, wait_until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const CLIENTS: usize = 4;
/// Only ever reached by a request that is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// Clients that ask until they are told to end.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Report>>,
}

/// What they saw.
#[derive(Debug, Default)]
pub struct Report {
    pub requests: usize,
    pub failures: Vec<String>,
    /// How often each process has answered.
    pub servers: BTreeMap<i32, usize>,
}

/// The pid in the answer to one request.
pub fn request(address: SocketAddr) -> io::Result<i32> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /pid HTTP/1.1\r\nHost: test\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        if let Some(body) = body(&String::from_utf8_lossy(&answer))? {
            return body.trim().parse().map_err(|_| io::Error::other(format!("no pid: {body:?}")));
        }
        match stream.read(&mut part)? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("after {} bytes", answer.len()))),
            len => answer.extend_from_slice(&part[..len]),
        }
    }
}

/// The body of an answer that is whole.
fn body(answer: &str) -> io::Result<Option<&str>> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return Ok(None) };
    if !head.contains(" 200 ") {
        return Err(io::Error::other(head.to_owned()));
    }
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let length: usize = length.ok_or_else(|| io::Error::other(format!("no length: {head}")))?;
    Ok((body.len() >= length).then(|| &body[..length]))
}

impl Load {
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = || {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut report = Report::default();
                while !stop.load(Ordering::Relaxed) {
                    report.requests += 1;
                    match request(address) {
                        Ok(pid) => *report.servers.entry(pid).or_default() += 1,
                        Err(error) => report.failures.push(error.to_string()),
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                report
            })
        };
        let clients = (0..CLIENTS).map(|_| client()).collect();
        Self { stop, clients }
    }

    pub fn end(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for client in self.clients {
            let report = client.join().unwrap();
            all.requests += report.requests;
            all.failures.extend(report.failures);
            for (pid, count) in report.servers {
                *all.servers.entry(pid).or_default() += count;
            }
        }
        all
    }

    /// Nothing was refused, nothing failed, and each of these has answered.
    pub fn expect_good(self, servers: &[i32]) {
        let report = self.end();
        assert_eq!(report.failures, Vec::<String>::new(), "of {}", report.requests);
        for pid in servers {
            assert!(report.servers.contains_key(pid), "process {pid} never answered: {report:?}");
        }
        println!("{} requests, {} processes, none failed", report.requests, servers.len());
    }
}

/// The arguments of `handoff run`, as one line of words.
pub fn run<'a>(place: &'a Place, arguments: &str, command: &[&str]) -> Run<'a> {
    let words = arguments.split_whitespace();
    let all: Vec<&str> = words.chain(["--name", "web", "--"]).chain(command.iter().copied()).collect();
    place.run(&all)
}

/// The pid and the address, once it serves.
pub fn serving(run: &Run<'_>) -> (i32, SocketAddr) {
    let service = run.wait_for("it serves", |service| service["state"] == "running");
    (pid_of(&service), service["listeners"][0]["address"].as_str().unwrap().parse().unwrap())
}

/// An upgrade, with these further arguments: its exit code and outcome.
pub fn upgrade(place: &Place, binary: Option<&Path>, arguments: &str) -> (i32, Value) {
    let binary = binary.map(|binary| ["--binary", text(binary)]);
    let arguments = ["--json"].into_iter().chain(arguments.split_whitespace());
    let arguments: Vec<&str> = arguments.chain(binary.iter().flatten().copied()).collect();
    let said = place.output("upgrade", &arguments);
    (said.code, said.json())
}

/// One that commits, and whose predecessor ends by itself; the pid of the successor.
pub fn replace(place: &Place, before: i32, binary: Option<&Path>) -> i32 {
    let (code, outcome) = upgrade(place, binary, "");
    assert_eq!((code, outcome["result"].as_str()), (0, Some("committed")), "{outcome}");
    wait_until("the end of the one before", || (!lives(before)).then_some(()));
    let after = pid_of(&outcome);
    assert_ne!(after, before);
    after
}

/// Replaced `times` times under load, then by something that is undone; nothing fails, and the last good one serves.
pub fn replaced_under_load(
    place: &Place,
    run: &Run<'_>,
    times: usize,
    good: Option<&Path>,
    undone: impl Fn() -> Value,
) {
    let (first, address) = serving(run);
    let mut pids = vec![first];
    let load = Load::start(address);
    let has_answered = |pid: i32| wait_until("its answer", || (request(address).ok()? == pid).then_some(()));
    has_answered(first);
    for _ in 0..times {
        let next = replace(place, pids[pids.len() - 1], good);
        has_answered(next);
        pids.push(next);
    }
    let (last, outcome) = (pids[pids.len() - 1], undone());
    assert_eq!((outcome["result"].as_str(), pid_of(&outcome)), (Some("rolled_back"), last), "{outcome}");
    has_answered(last);
    load.expect_good(&pids);
    let service = run.wait_for("nothing drains", |service| service["draining"].as_array().is_some_and(Vec::is_empty));
    assert_eq!((pid_of(&service), service["state"].as_str()), (last, Some("running")), "{service}");
}
