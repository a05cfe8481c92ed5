//! What clients feel of upgrades, beside what they feel without: `cargo bench --bench clients`.
//!
//! A stall is the slowest request that overlaps an upgrade; its floor is the slowest one that overlaps as long a time in which
//! nothing happens, of which there is one between any two upgrades.

#[path = "../tests/compiled/mod.rs"]
mod compiled;
mod measure;
#[path = "../tests/support/mod.rs"]
mod support;

use compiled::program;
use handoff::supervisor::{SpawnSpec, Supervisor};
use measure::{Program, end, memory, settle};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::load::{Load, LoadOptions, Report, stall_ms};

const CLIENTS: usize = 32;
/// Between two requests: without it the clients alone keep two cores busy, and starve the successor.
const THINK: Duration = Duration::from_millis(2);
const UPGRADES: usize = 50;
const SLOW_UPGRADES: usize = 5;
/// Between an upgrade and what is compared with it.
const REST: Duration = Duration::from_millis(100);
const DRAIN: Duration = Duration::from_secs(2);
const INITIALISATION: Duration = Duration::from_secs(1);

fn main() {
    println!("| | upgrades | stall p50 | max | without p50 | max | p99.9 of requests without | failed | closed |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let c = |name, source, flags: &[&str]| program(name, source, flags);
    let store = c("bench-kv", "examples-c/kv.c", &["-std=c11", "-O2", "-pthread"]);
    exclusive(&store);
    let beside = c("bench-overlap", "ffi-tests/c/overlap.c", &["-std=c11", "-O2"]);
    overlap(&beside);
    slow_overlap(&beside);
}

/// Half of the clients keep their connection, which moves.
fn exclusive(store: &Path) {
    let mut service = Service::start(store, |spec| spec);
    let kept = service.load(true, "kept");
    let fresh = service.load(false, "fresh");
    let windows = service.upgrades(&kept, UPGRADES);
    let [kept, fresh] = [kept, fresh].map(Load::stop);
    print(&format!("exclusive mode, {CLIENTS} clients that keep their connection"), &windows, &kept);
    print(&format!("at the same time, {CLIENTS} clients with a connection for each request"), &windows, &fresh);
    end(service.supervisor);
}

fn overlap(daemon: &Path) {
    let mut service = Service::start(daemon, |spec| spec);
    let load = service.load(false, "c");
    let windows = service.upgrades(&load, UPGRADES);
    print(&format!("overlap mode, {CLIENTS} clients with a connection for each request"), &windows, &load.stop());
    end(service.supervisor);
}

/// The successor is not ready for a second, and the last client of the incumbent stays for two more.
fn slow_overlap(daemon: &Path) {
    let dir = tempfile::tempdir_in(memory()).expect("a directory");
    let (ready, drained) = (dir.path().join("ready"), dir.path().join("drained"));
    let files = [&ready, &drained].map(|path| path.clone());
    files.iter().for_each(|path| make(path));
    let mut service = Service::start(daemon, |spec| spec.env("OVERLAP_INIT", &ready).env("OVERLAP_DRAIN", &drained));
    let load = service.load(false, "c");
    let windows = service.windows(&load, SLOW_UPGRADES, |supervisor, spec| {
        files.iter().for_each(|path| std::fs::remove_file(path).expect("a removal"));
        let initialised = {
            let ready = ready.clone();
            std::thread::spawn(move || {
                std::thread::sleep(INITIALISATION);
                make(&ready)
            })
        };
        upgrade(supervisor, spec);
        initialised.join().expect("an initialisation");
        turn_for(supervisor, DRAIN);
        make(&drained);
        settle(supervisor);
    });
    let what = format!("the same, with {INITIALISATION:?} of initialisation and {DRAIN:?} of drain");
    print(&what, &windows, &load.stop());
    end(service.supervisor);
}

fn make(path: &Path) {
    std::fs::write(path, b"").expect("a file");
}

struct Service {
    supervisor: Supervisor,
    spec: SpawnSpec,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

/// When upgrades were, and when as long nothing was, in nanoseconds of a load.
struct Windows {
    upgrades: Vec<(u64, u64)>,
    without: Vec<(u64, u64)>,
}

impl Service {
    fn start(daemon: &Path, more: impl FnOnce(SpawnSpec) -> SpawnSpec) -> Self {
        let dir = tempfile::tempdir_in(memory()).expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("its mode");
        let address = listener.local_addr().expect("its address");
        let supervisor = Supervisor::new().expect("a supervisor").with_journal(dir.path().join("journal"));
        let mut supervisor = supervisor.with_listener("kv", listener).expect("a listener");
        let spec = more(Program::new(&[PathBuf::from(daemon)]).spec(dir.path()));
        let first = supervisor.perform_handoff(&spec).expect("a first start");
        assert!(first.started(), "{}", first.reason);
        Self { supervisor, spec, address, _dir: dir }
    }

    /// After its first request a client only reads: what it wrote would have to be read by each successor before it is ready, and
    /// would make the store's own start most of the stall.
    fn load(&self, keep_alive: bool, name: &str) -> Load {
        let options = LoadOptions {
            clients: CLIENTS,
            keep_alive,
            name: name.into(),
            read_every: 1,
            think: THINK,
            ..LoadOptions::new(self.address)
        };
        Load::start(options)
    }

    fn upgrades(&mut self, load: &Load, count: usize) -> Windows {
        self.windows(load, count, |supervisor, spec| {
            upgrade(supervisor, spec);
            settle(supervisor);
        })
    }

    fn windows(&mut self, load: &Load, count: usize, one: impl Fn(&mut Supervisor, &SpawnSpec)) -> Windows {
        let mut windows = Windows { upgrades: Vec::new(), without: Vec::new() };
        for _ in 0..count {
            turn_for(&mut self.supervisor, REST);
            let begin = load.now_ns();
            one(&mut self.supervisor, &self.spec);
            let lasted = load.now_ns() - begin;
            windows.upgrades.push((begin, begin + lasted));
            turn_for(&mut self.supervisor, REST);
            let begin = load.now_ns();
            turn_for(&mut self.supervisor, Duration::from_nanos(lasted));
            windows.without.push((begin, begin + lasted));
        }
        turn_for(&mut self.supervisor, REST);
        windows
    }
}

fn upgrade(supervisor: &mut Supervisor, spec: &SpawnSpec) {
    let outcome = supervisor.perform_handoff(spec).expect("a handoff");
    assert!(outcome.committed(), "{}", outcome.reason);
}

fn turn_for(supervisor: &mut Supervisor, time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        supervisor.turn(Some(left)).expect("a turn");
    }
}

fn print(what: &str, windows: &Windows, report: &Report) {
    let stalls = |windows: &[(u64, u64)]| {
        let mut stalls = stall_ms(&report.samples, windows);
        stalls.sort_by(f64::total_cmp);
        (stalls[stalls.len() / 2], stalls[stalls.len() - 1])
    };
    let (p50, max) = stalls(&windows.upgrades);
    let (without_p50, without_max) = stalls(&windows.without);
    let overlaps = |&(start, took): &(u64, u64)| windows.upgrades.iter().any(|&(b, e)| start <= e && start + took >= b);
    let steady: Vec<u64> = report.samples.iter().filter(|sample| !overlaps(sample)).map(|sample| sample.1).collect();
    println!(
        "| {what} | {} | {p50:.2} ms | {max:.2} ms | {without_p50:.2} ms | {without_max:.2} ms | {:.2} ms | {} of {} | {} |",
        windows.upgrades.len(),
        percentile_of(&steady, 0.999) / 1e6,
        report.failed_requests,
        report.requests,
        report.closed_connections,
    );
    report.failures.iter().for_each(|failure| eprintln!("{failure}"));
}

/// Nearest rank.
fn percentile_of(times: &[u64], part: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() as f64 * part) as usize).min(sorted.len() - 1)] as f64
}
