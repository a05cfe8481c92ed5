//! Services that do nothing: memory, wake-ups, the start of a thousand, their stop.

use crate::bed::{Bed, Kind, Unit, rest};
use crate::cost::{Memory, cpu_ms, switches};
use crate::files;
use crate::support::{self, lives, wait_until};
use crate::table::{Table, median, ms, multiple};
use handoff::sys::clock::monotonic_ns;
use std::process::Stdio;
use std::time::{Duration, Instant};

const MANY: usize = 1000;
const ROUNDS: usize = 3;
/// No further round begins after that much.
const ENOUGH: Duration = Duration::from_secs(75);
/// Until what a start leaves behind is over.
const SETTLE: Duration = Duration::from_millis(500);
const REST_S: u64 = 10;

/// One life of a supervisor with so many services.
#[derive(Default)]
struct Life {
    begun_ns: u64,
    said_ns: u64,
    start_cpu_ms: u64,
    memory: Memory,
    switches: u64,
    rest_cpu_ms: u64,
    stop_ns: u64,
}

fn life(kind: Kind, unit: Unit, rests: bool) -> Life {
    let count = unit.count;
    let mut bed = Bed::new(kind, vec![unit]);
    let start = monotonic_ns();
    let last = bed.launch_all();
    let said_ns = monotonic_ns() - start;
    let supervisors = bed.supervisors();
    let start_cpu_ms = cpu_ms(&supervisors);
    rest(SETTLE);
    let mut life = Life { begun_ns: last - start, said_ns, start_cpu_ms, ..Life::default() };
    if rests {
        let before = (switches(&supervisors), cpu_ms(&supervisors));
        rest(Duration::from_secs(REST_S));
        life.switches = switches(&supervisors) - before.0;
        life.rest_cpu_ms = cpu_ms(&supervisors) - before.1;
    }
    life.memory = Memory::of(&supervisors);
    let services: Vec<i32> = bed.starts().iter().map(|start| start.0).collect();
    let stop = monotonic_ns();
    bed.begin_end();
    wait_for_deaths(&services);
    bed.reap();
    wait_for_deaths(&supervisors);
    life.stop_ns = monotonic_ns() - stop;
    let (begun, said, stopped) = (ms(life.begun_ns), ms(life.said_ns), ms(life.stop_ns));
    eprintln!("{kind:?}: {count} have begun after {begun}, it says so after {said}, their end takes {stopped}");
    life
}

/// Looks at each until it has gone, and not at all of them again and again.
fn wait_for_deaths(pids: &[i32]) {
    for pid in pids {
        wait_until("an end", || (!lives(*pid)).then_some(()));
    }
}

/// The same services, started by this program: what nobody can be below.
fn floor() -> u64 {
    let place = support::Service::place();
    let start = monotonic_ns();
    let started: Vec<_> = (0..MANY)
        .map(|_| {
            let mut command = place.other_command(files::service());
            crate::guard::mark(&mut command);
            command.env("BENCH_DIR", place.path("")).stdout(Stdio::null()).spawn().expect("a service")
        })
        .collect();
    let starts = || crate::bed::numbers(&place.path("starts"));
    wait_until("all have begun", || (starts().len() == MANY).then_some(()));
    let last = starts().iter().map(|start| start.1).max().expect("services");
    for mut child in started {
        let _ = child.kill();
        let _ = child.wait();
    }
    last - start
}

fn memory(memory: Memory) -> String {
    let mb = |kb: u64| kb as f64 / 1024.0;
    let processes = if memory.processes == 1 { "1 process".into() } else { format!("{} processes", memory.processes) };
    format!("{:.1} MB ({:.1}; {processes})", mb(memory.pss_kb), mb(memory.rss_kb))
}

pub fn measure() {
    let floor = median((0..ROUNDS).map(|_| floor()).collect());
    let mut small = Table::new("Services that do nothing");
    small.row("memory, 1 service", |kind| memory(life(kind, Unit::new("idle", 1, ""), false).memory));
    small.row("memory, 100 services", |kind| memory(life(kind, Unit::new("idle", 100, ""), false).memory));
    small.row("memory, 100 services whose output goes to files", |kind| {
        memory(life(kind, Unit::new("idle", 100, "").logged(), false).memory)
    });
    // One after the other, so that whatever else the machine does hits all.
    let mut lives: [Vec<Life>; 4] = Default::default();
    let begin = Instant::now();
    for round in (0..ROUNDS).take_while(|round| *round == 0 || begin.elapsed() < ENOUGH) {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.missing().is_none()) {
            lives[kind as usize].push(life(kind, Unit::new("idle", MANY, ""), round == 0));
        }
    }
    let of = |kind: Kind, what: fn(&Life) -> u64| median(lives[kind as usize].iter().map(what).collect());
    let first = |kind: Kind| &lives[kind as usize][0];
    small.row(&format!("memory, {MANY} services"), |kind| memory(first(kind).memory));
    small.row(&format!("wake-ups per second at rest, {MANY} services"), |kind| {
        format!("{:.1}", first(kind).switches as f64 / REST_S as f64)
    });
    small.row(&format!("CPU time in {REST_S} s of rest, {MANY} services"), |kind| {
        format!("{} ms", first(kind).rest_cpu_ms)
    });
    small.row(&format!("{MANY} services have started; alone, without a supervisor: {}", ms(floor)), |kind| {
        let begun = of(kind, |life| life.begun_ns);
        format!("{} ({})", ms(begun), multiple(begun, floor))
    });
    small.row("the same, and the supervisor says that they run", |kind| ms(of(kind, |life| life.said_ns)));
    small.row("CPU time of the supervisor until then", |kind| format!("{} ms", of(kind, |life| life.start_cpu_ms)));
    small.row("the end of the supervisor and of all of them, by its signal", |kind| ms(of(kind, |life| life.stop_ns)));
    let rounds = lives.iter().map(Vec::len).max().unwrap_or(0);
    small.print(&format!(
        "Memory is PSS, which counts a page that n processes share as a nth part, in brackets RSS and processes, of the \
         supervisor and of whatever supervises or logs for it, without the services. A start is from the exec of the \
         supervisor to the first line of main of the last service; one that says so is asked when that was. Wake-ups are \
         context switches of all its threads, voluntary or not. Starts and ends are medians of {rounds}.",
    ));
}
