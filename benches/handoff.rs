//! What a handoff costs, as ratios against floors that are taken in the same run: `cargo bench --bench handoff`.
//!
//! The daemon is this very program: hooks that do nothing, data on a tmpfs if there is one. Rounds of the floor and of the
//! handoff alternate, so that whatever else the machine does hits both.

mod measure;

use handoff::sys::clock::monotonic_ns;
use handoff::sys::seqpacket::{Received, Seqpacket};
use handoff::{Config, Role, detect_role};
use measure::{
    DAEMON, FLOOR, Measured, OnDrain, Program, WARM_UP, handoffs, percentile, print_head, print_row, reap,
    wait_readable,
};
use std::os::fd::AsFd;

const ROUNDS: usize = 400;
const ROUND_TRIPS: usize = 2000;
const BALLAST_BYTES: usize = 1 << 30;

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
    let program = Program::new(&[std::env::current_exe().expect("this program")]);
    let small = handoffs(&program, 1, ROUNDS);
    let many = handoffs(&program, 1000, ROUNDS / 4);
    let ballast = ballast();
    let large = handoffs(&program, 1, ROUNDS);
    drop(ballast);
    let round_trip = round_trips(&program);
    report(&small, &many, &large, round_trip);
}

// ---- the daemon

fn daemon() {
    let begun = match detect_role(&Config::new()).expect("a role") {
        Role::ColdStart(cold) => cold.begin(),
        Role::Successor(successor) => successor.handshake().and_then(|greeted| greeted.wait_for_begin()),
    };
    let mut nothing = OnDrain(|| Ok(()));
    let incumbent = begun.and_then(|begun| begun.announce_and_bind(&nothing)).expect("a commit");
    let _ = incumbent.serve(&mut nothing);
    std::process::exit(0);
}

// ---- the floors

/// Round trips over a Unix socket between two processes: three of them lie in the pause.
fn round_trips(program: &Program) -> Vec<u64> {
    let (ours, theirs) = Seqpacket::pair().expect("a pair");
    let child = program.start(&[(ECHO, "1"), ("HANDOFF_SOCK_FD", "3")], &[theirs.as_fd()], None);
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

fn ballast() -> Vec<u8> {
    let mut memory = vec![0u8; BALLAST_BYTES];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    memory
}

// ---- the table

fn report(small: &Measured, many: &Measured, large: &Measured, round_trip: Vec<u64>) {
    let pause_floor = 3.0 * percentile(&round_trip, 50);
    let row = print_row;
    print_head();
    let total = |measured: &Measured, percent| percentile(&measured.total_ns, percent);
    let floor = |measured: &Measured| percentile(&measured.floor_ns, 50);
    row("whole handoff, p50; floor: vfork + exec of the same program", total(small, 50), floor(small), "≤ 1.25");
    row("the same, p99", total(small, 99), percentile(&small.floor_ns, 99), "");
    row("the same, p50, supervisor of 1 GB; floor: that of a small one", total(large, 50), total(small, 50), "1: flat");
    row("the same, p50, 1000 listeners; floor: that with one", total(many, 50), total(small, 50), "≤ 2");
    row("pause, p50; floor: three round trips", percentile(&small.pause_ns, 50), pause_floor, "≤ 4");
    row("pause, p99; floor: three round trips", percentile(&small.pause_ns, 99), pause_floor, "≤ 10");
}
