//! Whether it answers while services stop slowly.

use crate::ask;
use crate::bed::{Bed, Kind, Unit, succeeds};
use crate::support::{SIGKILL, lives, signal_if_there};
use crate::table::{Table, ms, percentile};
use handoff::sys::clock::monotonic_ns;
use std::process::Stdio;

const SLOW: usize = 20;
const OTHERS: usize = 100;
const PATIENCE_S: u32 = 10;
/// For each of the two ways to ask: together shorter than what the stops take.
const ASK_NS: u64 = 1_500_000_000;

/// The time of each answer while they stop, to a command and over the socket.
fn answers(kind: Kind) -> [Vec<u64>; 2] {
    let slow = Unit { patience_s: PATIENCE_S, ..Unit::new("slow", SLOW, "stubborn") };
    let mut bed = Bed::new(kind, vec![slow, Unit::new("idle", OTHERS, "")]);
    bed.launch_all();
    let mut stops = bed.stop("slow").stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a stop");
    let by_command = ask_for(|| assert!(succeeds(&mut bed.status("idle")), "{kind:?} does not answer"));
    let over_socket = match kind {
        Kind::Handoff => ask_for(|| drop(ask::handoff(&bed).expect("an answer"))),
        Kind::Supervisord => ask_for(|| drop(ask::supervisord(&bed, "getAllProcessInfo").expect("an answer"))),
        Kind::Runit | Kind::S6 => Vec::new(), // a file is read, and nobody asked
    };
    assert_eq!(bed.services().len(), SLOW + OTHERS, "{kind:?} was asked for too long");
    // What is left of them needs no more patience.
    for (pid, _) in bed.starts() {
        if lives(pid) {
            signal_if_there(pid, SIGKILL);
        }
    }
    bed.begin_end();
    let _ = stops.wait();
    bed.wait_for_end();
    [by_command, over_socket]
}

fn ask_for(mut question: impl FnMut()) -> Vec<u64> {
    let begin = monotonic_ns();
    let mut times = Vec::new();
    while monotonic_ns() - begin < ASK_NS {
        let before = monotonic_ns();
        question();
        times.push(monotonic_ns() - before);
    }
    times
}

pub fn measure() {
    let mut table = Table::new("Status during slow stops");
    let mut sockets: [Vec<u64>; 4] = Default::default();
    let show = |times: &mut Vec<u64>| match times.len() {
        0 => "—: a file is read".to_owned(),
        count => format!("{}, {} ({count})", ms(percentile(times, 50)), ms(percentile(times, 99))),
    };
    table.row("status of one service, by command: p50, p99 (answers)", |kind| {
        let [mut by_command, over_socket] = answers(kind);
        sockets[kind as usize] = over_socket;
        show(&mut by_command)
    });
    table.row("status of all, over its socket: p50, p99 (answers)", |kind| show(&mut sockets[kind as usize]));
    table.print(&format!(
        "{SLOW} services that ignore SIGTERM are stopped, with {PATIENCE_S} s until SIGKILL; {OTHERS} others run. Meanwhile \
         one client asks, first by `handoff status`, `supervisorctl status`, `sv status`, `s6-svstat`, whose own start \
         is in the time, then over the socket (`getAllProcessInfo` of supervisord)."
    ));
}
