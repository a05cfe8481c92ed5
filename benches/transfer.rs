//! What it costs that connections and state move, as ratios against the bare cost of sending so many descriptors to another
//! process, taken in the same run: `cargo bench --bench transfer`.
//!
//! The daemon is this very program. It holds TCP connections, and state in a memfd, and gives them on and on.

mod measure;

use handoff::sys::clock::monotonic_ns;
use handoff::sys::seqpacket::{Received, Seqpacket};
use handoff::{Config, HookError, Role, Transfer, detect_role};
use measure::{
    DAEMON, FLOOR, OnDrain, Program, WARM_UP, handoffs, percentile, print_head, print_row, reap, wait_readable,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

const CONNECTIONS: [usize; 3] = [100, 1_000, 10_000];
const STATE_BYTES: [usize; 3] = [0, 1 << 20, 1 << 30];
const ROUNDS: usize = 40;
const BATCH: usize = 250;

const HOW_MANY: &str = "BENCH_TRANSFER_CONNECTIONS";
const HOW_MUCH: &str = "BENCH_TRANSFER_STATE";
/// Takes so many descriptors, says so, closes them, and begins again.
const SINK: &str = "BENCH_TRANSFER_SINK";

fn main() {
    if std::env::var_os(DAEMON).is_some() {
        return daemon();
    }
    if std::env::var_os(FLOOR).is_some() {
        let _ = nix::unistd::write(std::io::stdout(), b"!");
        return;
    }
    if std::env::var_os(SINK).is_some() {
        return sink(number(SINK));
    }
    let _ = handoff::sys::limits::raise_nofile();
    let program = || Program::new(&[std::env::current_exe().expect("this program")]);
    let none = program().env(HOW_MANY, "0").env(HOW_MUCH, "0");
    let base = percentile(&handoffs(&none, 1, ROUNDS).pause_ns, 50);
    print_head();
    for connections in CONNECTIONS {
        let floor = percentile(&bare(&program(), connections), 50);
        for state in STATE_BYTES {
            let program = program().env(HOW_MANY, connections.to_string()).env(HOW_MUCH, state.to_string());
            let pause = percentile(&handoffs(&program, 1, ROUNDS).pause_ns, 50);
            let what = format!("pause, p50, {connections} connections and {} MiB", state >> 20);
            // What does not grow with them weighs little there, and is left in.
            match connections {
                10_000 => print_row(&format!("{what}; floor: sending them"), pause, floor, "≤ 3"),
                _ => print_row(&format!("{what}; floor: sending them, and the pause without"), pause, floor + base, ""),
            }
        }
        let what = format!("sending {connections} descriptors; floor: the pause without any");
        print_row(&what, floor, base, "");
    }
}

fn number(name: &str) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).expect("a number")
}

// ---- the daemon

fn daemon() {
    let (count, bytes) = (number(HOW_MANY), number(HOW_MUCH));
    let (begun, cold) = match detect_role(&Config::new()).expect("a role") {
        Role::ColdStart(cold) => (cold.begin(), true),
        Role::Successor(successor) => (successor.handshake().and_then(|greeted| greeted.wait_for_begin()), false),
    };
    let begun = begun.expect("a begin");
    let transfer = begun.transfer();
    let (mut connections, state) = match cold {
        true => (connect(count), (bytes > 0).then(|| filled(bytes))),
        false => (Vec::new(), (bytes > 0).then(|| transfer.take_state_fd("state").expect("the state"))),
    };
    let incumbent = begun.announce_and_bind(&OnDrain(|| Ok(()))).expect("a commit");
    while let Some(connection) = transfer.next_connection().expect("a connection") {
        connections.push(connection.fd);
    }
    assert_eq!(connections.len(), count);
    let _ = incumbent.serve(&mut OnDrain(|| give(&transfer, &connections, state.as_ref())));
    std::process::exit(0);
}

fn give(transfer: &Transfer, connections: &[OwnedFd], state: Option<&OwnedFd>) -> Result<(), HookError> {
    for connection in connections {
        transfer.put_connection(connection, "c", b"x")?;
    }
    if let Some(state) = state {
        transfer.put_state_fd("state", state)?;
    }
    Ok(())
}

/// The accepted ends; nobody is at the other ends any more, which makes no difference here.
fn connect(count: usize) -> Vec<OwnedFd> {
    let _ = handoff::sys::limits::raise_nofile();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let one = |_| {
        let _client = TcpStream::connect(address).expect("a connection");
        listener.accept().expect("a connection").0.into()
    };
    (0..count).map(one).collect()
}

fn filled(bytes: usize) -> OwnedFd {
    let state = memfd_create("state", MFdFlags::MFD_CLOEXEC).expect("a memfd");
    let mut file = File::from(state.try_clone().expect("a duplicate"));
    let block = vec![1; 1 << 20];
    (0..bytes >> 20).for_each(|_| file.write_all(&block).expect("memory"));
    state
}

// ---- the floor

/// From the first batch to "I have them all".
fn bare(program: &Program, count: usize) -> Vec<u64> {
    let connections = connect(count);
    let (ours, theirs) = Seqpacket::pair().expect("a pair");
    let child = program.start(&[(SINK, &count.to_string()), ("HANDOFF_SOCK_FD", "3")], &[theirs.as_fd()], None);
    drop(theirs);
    let mut times = Vec::new();
    for round in 0..WARM_UP + ROUNDS {
        let start = monotonic_ns();
        for batch in connections.chunks(BATCH) {
            let fds: Vec<_> = batch.iter().map(AsFd::as_fd).collect();
            while let Err(error) = ours.send(&[1; BATCH], &fds) {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
                std::thread::yield_now(); // until it has taken some
            }
        }
        wait_readable(ours.as_fd());
        assert!(matches!(ours.receive(&mut [0; 8]), Ok(Received::Packet(_))));
        if round >= WARM_UP {
            times.push(monotonic_ns() - start);
        }
        ours.send(b"again", &[]).expect("sent");
        wait_readable(ours.as_fd());
        assert!(matches!(ours.receive(&mut [0; 8]), Ok(Received::Packet(_))));
    }
    drop(ours);
    reap(&child);
    times
}

fn sink(count: usize) {
    let _ = handoff::sys::limits::raise_nofile();
    let socket = handoff::sys::env::take().expect("an environment").session.expect("a session");
    let socket = Seqpacket::from_fd(socket).expect("a socket");
    let (mut buffer, mut held) = ([0; BATCH], Vec::with_capacity(count));
    loop {
        wait_readable(socket.as_fd());
        match socket.receive(&mut buffer) {
            Ok(Received::Packet(packet)) if packet.fds.is_empty() => {
                held.clear(); // outside of the measure
                socket.send(b"empty", &[]).expect("sent");
            }
            Ok(Received::Packet(packet)) => {
                held.extend(packet.fds);
                if held.len() == count {
                    socket.send(b"all", &[]).expect("sent");
                }
            }
            Ok(Received::Nothing) => {}
            _ => return,
        }
    }
}
