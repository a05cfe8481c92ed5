//! `handoff up` beside supervisord, runit and s6, with the same services: `benches/supervisors/get.sh && cargo bench --bench
//! supervisors`. It prints the tables of docs/comparison.md.

mod ask;
mod bed;
mod cost;
mod deaths;
mod files;
mod flood;
mod guard;
mod idle;
mod replace;
mod selfup;
mod slow;
#[path = "../../tests/support/mod.rs"]
mod support;
mod table;

/// In the order in which they are measured; with names as arguments only those.
const PARTS: &[(&str, fn())] = &[
    ("idle", idle::measure),
    ("slow", slow::measure),
    ("flood", flood::measure),
    ("selfup", selfup::measure),
    ("replace", replace::measure),
    ("deaths", deaths::measure),
];

fn main() {
    if guard::is_one() {
        return;
    }
    let _guard = guard::start();
    print_machine();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            measure();
        }
    }
}

/// Where all this is true, and who else was busy there.
fn print_machine() {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches(['\t', ' ', ':']);
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.split('.').take(2).collect::<Vec<_>>().join(".");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("Taken with Linux {kernel} on {cores} cores, {model}; load average before it: {load}.");
}
