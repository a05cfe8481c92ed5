//! Measures of handoffs, and the floor under them, which is taken in the same run: rounds of both alternate, so that
//! whatever else the machine does hits both.

#![allow(dead_code)] // each bench uses a part of this

use handoff::supervisor::{SpawnSpec, Supervisor};
use handoff::sys::clock::monotonic_ns;
use handoff::sys::spawn::{Child, Spawn, spawn};
use handoff::{Deadline, DrainReport, Drainable, HookError, SealReport, StateSnapshot};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

pub const WARM_UP: usize = 20;

/// Set for a program that is to serve until it is replaced.
pub const DAEMON: &str = "BENCH_HANDOFF_DAEMON";
/// Set for a program that is to write a byte to standard output, first of all in main, and to exit.
pub const FLOOR: &str = "BENCH_HANDOFF_FLOOR";

/// An application without data, which does this in its drain.
pub struct OnDrain<F>(pub F);

impl<F: FnMut() -> Result<(), HookError>> Drainable for OnDrain<F> {
    fn drain(&mut self, _: &Deadline<'_>) -> Result<DrainReport, HookError> {
        (self.0)().map(|()| DrainReport::default())
    }

    fn seal(&mut self, _: &Deadline<'_>) -> Result<SealReport, HookError> {
        Ok(SealReport::default())
    }

    fn resume_after_abort(&mut self) -> Result<(), HookError> {
        Ok(())
    }

    fn snapshot_state(&self) -> StateSnapshot {
        StateSnapshot::default()
    }
}

/// A daemon: what is executed, and what it finds in its environment.
pub struct Program {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

impl Program {
    /// By its command line.
    pub fn new(argv: &[PathBuf]) -> Self {
        Self { argv: argv.iter().map(OsString::from).collect(), env: Vec::new() }
    }

    /// With one variable more.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it by itself: vfork and exec.
    pub fn start(&self, env: &[(&str, &str)], fds: &[BorrowedFd<'_>], stdout: Option<BorrowedFd<'_>>) -> Child {
        let mut all = self.env.clone();
        all.extend(env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
        let request = Spawn { env: &all, fds, stdout, ..Spawn::new(Path::new(&self.argv[0]), &self.argv) };
        spawn(&request).expect("a child")
    }

    /// From the spawn to the byte that it writes, told to by this variable.
    pub fn start_ns(&self, role: &str) -> u64 {
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        let start = monotonic_ns();
        let child = self.start(&[(role, "1")], &[], Some(write.as_fd()));
        drop(write);
        let said = nix::unistd::read(&read, &mut [0]).expect("a byte");
        let elapsed = monotonic_ns() - start;
        assert_eq!(said, 1, "{:?} ended without a byte", self.argv);
        reap(&child);
        elapsed
    }

    /// As a supervisor starts it, with its data in this directory.
    pub fn spec(&self, dir: &Path) -> SpawnSpec {
        let spec = SpawnSpec::new(self.argv.clone()).env(DAEMON, "1");
        let spec = self.env.iter().fold(spec, |spec, (name, value)| spec.env(name.clone(), value.clone()));
        spec.data_dir(dir).control_path(dir.join("control"))
    }
}

pub struct Measured {
    pub floor_ns: Vec<u64>,
    pub total_ns: Vec<u64>,
    pub pause_ns: Vec<u64>,
}

/// Handoffs from the program to itself.
pub fn handoffs(program: &Program, listeners: usize, rounds: usize) -> Measured {
    let dir = tempfile::tempdir_in(memory()).expect("a directory");
    let mut supervisor = Supervisor::new().expect("a supervisor").with_journal(dir.path().join("journal"));
    for number in 0..listeners {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        supervisor = supervisor.with_listener(&format!("l{number}"), listener).expect("a listener");
    }
    let spec = program.spec(dir.path());
    let first = supervisor.perform_handoff(&spec).expect("a first start");
    assert!(first.started(), "{}", first.reason);
    let mut measured = Measured { floor_ns: Vec::new(), total_ns: Vec::new(), pause_ns: Vec::new() };
    for round in 0..WARM_UP + rounds {
        settle(&mut supervisor);
        let floor = program.start_ns(FLOOR);
        let outcome = supervisor.perform_handoff(&spec).expect("a handoff");
        assert!(outcome.committed(), "{}", outcome.reason);
        if round >= WARM_UP {
            measured.floor_ns.push(floor);
            measured.total_ns.push(outcome.total_ns);
            measured.pause_ns.push(outcome.pause_ns);
        }
    }
    end(supervisor);
    measured
}

/// A tmpfs, if there is one.
pub fn memory() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() }
}

/// What is left of the round before is not part of the next one.
pub fn settle(supervisor: &mut Supervisor) {
    while supervisor.status().phase != "idle" {
        supervisor.turn(None).expect("a turn");
    }
}

/// Kills the daemon.
pub fn end(mut supervisor: Supervisor) {
    settle(&mut supervisor); // or the incumbent would rightly take over
    supervisor.signal(nix::sys::signal::Signal::SIGKILL as i32).expect("an end");
    while supervisor.status().pid.is_some() {
        supervisor.turn(None).expect("a turn");
    }
}

pub fn reap(child: &Child) {
    wait_readable(child.pidfd.as_fd());
    child.pidfd.wait().expect("its end");
}

pub fn wait_readable(fd: BorrowedFd<'_>) {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::NONE).expect("poll");
}

/// Nearest rank.
pub fn percentile(times: &[u64], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)] as f64
}

pub fn print_head() {
    println!("| | measured | floor | ratio | budget |");
    println!("|---|---|---|---|---|");
}

/// Both in nanoseconds.
pub fn print_row(what: &str, measured: f64, floor: f64, budget: &str) {
    println!("| {what} | {:.1} µs | {:.1} µs | {:.2} | {budget} |", measured / 1e3, floor / 1e3, measured / floor);
}
