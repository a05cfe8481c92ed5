//! What a handoff costs, as ratios against floors that are taken in the same run: `cargo bench --bench handoff`.
//!
//! The daemon is this very program: hooks that do nothing, data on a tmpfs if there is one. Rounds of the floor and of the
//! handoff alternate, so that whatever else the machine does hits both.

use handoff::supervisor::{SpawnSpec, Supervisor};
use handoff::sys::clock::monotonic_ns;
use handoff::sys::seqpacket::{Received, Seqpacket};
use handoff::sys::spawn::{Child, Spawn, spawn};
use handoff::{Config, Deadline, DrainReport, Drainable, HookError, Role, SealReport, StateSnapshot, detect_role};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

const ROUNDS: usize = 400;
const ROUND_TRIPS: usize = 2000;
const WARM_UP: usize = 20;
const BALLAST_BYTES: usize = 1 << 30;

const DAEMON: &str = "BENCH_HANDOFF_DAEMON";
const FLOOR: &str = "BENCH_HANDOFF_FLOOR";
const ECHO: &str = "BENCH_HANDOFF_ECHO";

fn main() {
    if std::env::var_os(DAEMON).is_some() {
        return daemon();
    }
    if std::env::var_os(FLOOR).is_some() {
        // The first byte of main.
        let _ = nix::unistd::write(std::io::stdout(), b"!");
        return;
    }
    if std::env::var_os(ECHO).is_some() {
        return echo();
    }
    let small = measure(1);
    let many = measure(1000);
    let ballast = ballast();
    let large = measure(1);
    drop(ballast);
    let round_trip = round_trips(&std::env::current_exe().expect("this program"));
    report(&small, &many, &large, round_trip);
}

// ---- the daemon

struct NoOp;

impl Drainable for NoOp {
    fn drain(&mut self, _: &Deadline<'_>) -> Result<DrainReport, HookError> {
        Ok(DrainReport::default())
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

fn daemon() {
    let begun = match detect_role(&Config::new()).expect("a role") {
        Role::ColdStart(cold) => cold.begin(),
        Role::Successor(successor) => successor.handshake().and_then(|greeted| greeted.wait_for_begin()),
    };
    let incumbent = begun.and_then(|begun| begun.announce_and_bind(&NoOp)).expect("a commit");
    let _ = incumbent.serve(&mut NoOp);
    std::process::exit(0);
}

// ---- the measure

struct Measured {
    floor_ns: Vec<u64>,
    total_ns: Vec<u64>,
    pause_ns: Vec<u64>,
}

fn measure(listeners: usize) -> Measured {
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    let dir = tempfile::tempdir_in(base).expect("a directory");
    let program = std::env::current_exe().expect("this program");
    let mut supervisor = Supervisor::new().expect("a supervisor").with_journal(dir.path().join("journal"));
    for number in 0..listeners {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        supervisor = supervisor.with_listener(&format!("l{number}"), listener).expect("a listener");
    }
    let spec = SpawnSpec::new([program.clone()])
        .env(DAEMON, "1")
        .data_dir(dir.path())
        .control_path(dir.path().join("control"));
    let first = supervisor.perform_handoff(&spec).expect("a first start");
    assert!(first.started(), "{}", first.reason);
    let mut measured = Measured { floor_ns: Vec::new(), total_ns: Vec::new(), pause_ns: Vec::new() };
    for round in 0..WARM_UP + ROUNDS / if listeners > 1 { 4 } else { 1 } {
        settle(&mut supervisor);
        let floor = exec_floor(&program);
        let outcome = supervisor.perform_handoff(&spec).expect("a handoff");
        assert!(outcome.committed(), "{}", outcome.reason);
        if round >= WARM_UP {
            measured.floor_ns.push(floor);
            measured.total_ns.push(outcome.total_ns);
            measured.pause_ns.push(outcome.pause_ns);
        }
    }
    settle(&mut supervisor); // or the incumbent would rightly take over
    supervisor.signal(nix::sys::signal::Signal::SIGKILL as i32).expect("an end");
    while supervisor.status().pid.is_some() {
        supervisor.turn(None).expect("a turn");
    }
    measured
}

/// What is left of the round before is not part of the next one.
fn settle(supervisor: &mut Supervisor) {
    while supervisor.status().phase != "idle" {
        supervisor.turn(None).expect("a turn");
    }
}

/// From spawn to the first byte of main, of this very program.
fn exec_floor(program: &Path) -> u64 {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let start = monotonic_ns();
    let child = again(program, FLOOR, &[], Some(write.as_fd()));
    nix::unistd::read(&read, &mut [0]).expect("a byte");
    let elapsed = monotonic_ns() - start;
    reap(&child);
    elapsed
}

/// Round trips over a Unix socket between two processes: three of them lie in the pause.
fn round_trips(program: &Path) -> Vec<u64> {
    let (ours, theirs) = Seqpacket::pair().expect("a pair");
    let child = again(program, ECHO, &[theirs.as_fd()], None);
    drop(theirs);
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    let mut buffer = [0; 64];
    for round in 0..WARM_UP + ROUND_TRIPS {
        let start = monotonic_ns();
        ours.send(b"ping", &[]).expect("sent");
        wait_readable(ours.as_fd());
        assert!(matches!(ours.receive(&mut buffer), Ok(Received::Packet(_))));
        if round >= WARM_UP {
            times.push(monotonic_ns() - start);
        }
    }
    drop(ours);
    reap(&child);
    times
}

/// The other end, at descriptor 3.
fn echo() {
    let socket = handoff::sys::env::take().expect("an environment").session.expect("a session");
    let socket = Seqpacket::from_fd(socket).expect("a socket");
    let mut buffer = [0; 64];
    loop {
        wait_readable(socket.as_fd());
        match socket.receive(&mut buffer) {
            Ok(Received::Packet(packet)) => socket.send(&buffer[..packet.len], &[]).expect("sent"),
            Ok(Received::Nothing) => {}
            _ => return,
        }
    }
}

/// This program again, in another role.
fn again(program: &Path, role: &str, fds: &[BorrowedFd<'_>], stdout: Option<BorrowedFd<'_>>) -> Child {
    let env =
        [(role, "1"), ("HANDOFF_SOCK_FD", "3")].map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let env = if fds.is_empty() { &env[..1] } else { &env[..] };
    let argv = [program.as_os_str().to_owned()];
    let request = Spawn {
        program,
        argv: &argv,
        env,
        dir: None,
        fds,
        stdin_null: true,
        stdout,
        stderr: None,
        listen_pid: false,
        new_session: false,
    };
    spawn(&request).expect("a child")
}

fn reap(child: &Child) {
    wait_readable(child.pidfd.as_fd());
    child.pidfd.wait().expect("its end");
}

fn wait_readable(fd: BorrowedFd<'_>) {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::NONE).expect("poll");
}

fn ballast() -> Vec<u8> {
    let mut memory = vec![0u8; BALLAST_BYTES];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    memory
}

// ---- the table

/// Nearest rank.
fn percentile(times: &[u64], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)] as f64
}

fn report(small: &Measured, many: &Measured, large: &Measured, round_trip: Vec<u64>) {
    let pause_floor = 3.0 * percentile(&round_trip, 50);
    let row = |what: &str, measured: f64, floor: f64, budget: &str| {
        println!("| {what} | {:.1} µs | {:.1} µs | {:.2} | {budget} |", measured / 1e3, floor / 1e3, measured / floor);
    };
    println!("| | measured | floor | ratio | budget |");
    println!("|---|---|---|---|---|");
    let total = |measured: &Measured, percent| percentile(&measured.total_ns, percent);
    let floor = |measured: &Measured| percentile(&measured.floor_ns, 50);
    row("whole handoff, p50; floor: vfork + exec of the same program", total(small, 50), floor(small), "≤ 1.25");
    row("the same, p99", total(small, 99), percentile(&small.floor_ns, 99), "");
    row("the same, p50, supervisor of 1 GB; floor: that of a small one", total(large, 50), total(small, 50), "1: flat");
    row("the same, p50, 1000 listeners; floor: that with one", total(many, 50), total(small, 50), "≤ 2");
    row("pause, p50; floor: three round trips", percentile(&small.pause_ns, 50), pause_floor, "≤ 4");
    row("pause, p99; floor: three round trips", percentile(&small.pause_ns, 99), pause_floor, "≤ 10");
}
