//! A daemon in overlap mode under `handoff run`, and clients that count.

use crate::support::{Service, compile};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a client waits for an answer before that is a failure.
const ANSWER: Duration = Duration::from_secs(30);

/// The daemon, as builds `a` and `b`.
pub fn program(build: &str) -> &'static Path {
    static PROGRAMS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(|| {
        ["a", "b"].map(|build| {
            let flag = format!("-DBUILD=\"{build}\"");
            compile(&format!("overlap-{build}"), "ffi-tests/c/overlap.c", &[&flag])
        })
    });
    &programs[usize::from(build == "b")]
}

/// A script that becomes build `b` with these variables.
pub fn variant(service: &Service, variables: &[(&str, &str)]) -> PathBuf {
    // A name of its own: a script that another thread has open for writing can not be executed.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let script = service.path(&format!("variant-{number}"));
    let variables: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let text = format!("#!/bin/sh\n{} exec {} \"$@\"\n", variables.join(" "), program("b").display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs build `a`, which says in `log` what it hears.
pub fn start(arguments: &[&str]) -> Service {
    let mut service = Service::place();
    service.environment.push(("OVERLAP_LOG", service.path("log")));
    service.launch(program("a"), arguments);
    service
}

/// What the daemon of this pid has heard.
pub fn heard(service: &Service, pid: i32) -> Vec<String> {
    let log = fs::read_to_string(service.path("log")).unwrap_or_default();
    let own = format!("{pid} ");
    log.lines().filter_map(|line| line.strip_prefix(&own)).map(str::to_owned).collect()
}

/// A connection that stays open.
pub struct Held {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Held {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        let replies = BufReader::new(stream.try_clone().unwrap());
        Self { stream, replies }
    }

    /// Who answers on it; none if it is closed.
    pub fn ask(&mut self) -> Option<i32> {
        self.stream.write_all(b"HOLD\n").ok()?;
        let mut reply = String::new();
        self.replies.read_line(&mut reply).ok()?;
        reply.split(' ').nth(1)?.parse().ok()
    }
}

/// Clients with a connection for each request.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(address: SocketAddr, clients: usize) -> Self {
        let (stop, answered, failures) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Self { stop, answered, failures, clients: Vec::new() };
        for _ in 0..clients {
            let (stop, answered, failures) = (load.stop.clone(), load.answered.clone(), load.failures.clone());
            load.clients.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match request(address) {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.lock().unwrap().push(error.to_string()),
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }));
        }
        load
    }

    /// How many were answered, and what failed.
    pub fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        (self.answered.load(Ordering::Relaxed), std::mem::take(&mut *self.failures.lock().unwrap()))
    }
}

/// One request on a connection of its own: the pid that answers.
pub fn request(address: SocketAddr) -> std::io::Result<i32> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"PING\n")?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply)?;
    let pid = reply.split(' ').nth(1).and_then(|pid| pid.parse().ok());
    pid.ok_or_else(|| std::io::Error::other(format!("the answer was {reply:?}")))
}
