//! A service that writes 200 MB a second.

use crate::bed::{Bed, Kind, Unit, numbers, rest};
use crate::cost::cpu_ms;
use crate::support::wait_until;
use crate::table::{Table, ms};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SECONDS: u64 = 5;
const LINE: u64 = 100;
const OFFERED: u64 = 200_000_000 * SECONDS;
/// Nothing more has come to the files for so long.
const QUIET: Duration = Duration::from_millis(1000);

struct Flood {
    written: u64,
    longest_ns: u64,
    arrived: u64,
    told: Option<u64>,
    cpu_ms: u64,
}

fn flood(kind: Kind) -> Flood {
    let mut bed = Bed::new(kind, vec![Unit::new("flood", 1, &format!("flood {SECONDS}")).logged()]);
    bed.launch_all();
    let supervisors = bed.supervisors();
    let (lines, longest_ns) = wait_until("the end of the flood", || numbers(&bed.place.path("flood")).first().copied());
    wait_until_quiet(&bed.place.path("logs"));
    let cpu_ms = cpu_ms(&supervisors);
    let told = (kind == Kind::Handoff).then(|| dropped(&bed));
    bed.begin_end();
    bed.wait_for_end(); // s6-log and svlogd write what they have
    let arrived = files(&bed.place.path("logs")).iter().map(|file| whole_lines(file)).sum::<u64>() * LINE;
    Flood { written: lines * LINE, longest_ns, arrived, told, cpu_ms }
}

fn dropped(bed: &Bed) -> u64 {
    let status: serde_json::Value = serde_json::from_str(&crate::ask::handoff(bed).expect("an answer")).expect("JSON");
    status["result"]["services"][0]["log"]["dropped_bytes"].as_u64().expect("a number")
}

pub fn wait_until_quiet(logs: &Path) {
    let size = || files(logs).iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum::<u64>();
    let mut before = size();
    wait_until("the last line", || {
        rest(QUIET);
        let now = size();
        std::mem::replace(&mut before, now).eq(&now).then_some(())
    });
}

/// All below a directory.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path()) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Those of the service; the supervisor's remarks are shorter.
fn whole_lines(file: &Path) -> u64 {
    let mut reader = BufReader::with_capacity(1 << 20, fs::File::open(file).expect("a file"));
    let (mut line, mut count) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line).expect("a line") > 0 {
        count += u64::from(line.len() as u64 == LINE && line.ends_with(b"xx\n"));
        line.clear();
    }
    count
}

pub fn measure() {
    let mut table = Table::new("A flood of log");
    let mut floods: [Option<Flood>; 4] = Default::default();
    let mb = |bytes: u64| format!("{:.0} MB", bytes as f64 / 1e6);
    let offered = mb(OFFERED);
    table.row(&format!("written by the service in {SECONDS} s, of {offered} that it wants to"), |kind| {
        let flood = floods[kind as usize].insert(flood(kind));
        mb(flood.written)
    });
    let of = |kind: Kind| floods[kind as usize].as_ref().expect("it was measured");
    table.row("its longest write(2)", |kind| ms(of(kind).longest_ns));
    table.row("arrived in files", |kind| mb(of(kind).arrived));
    table.row("lost, and how much of it the supervisor has counted", |kind| {
        let lost = of(kind).written.saturating_sub(of(kind).arrived);
        match of(kind).told {
            _ if lost == 0 => "nothing".to_owned(),
            Some(told) => format!("{}, {} counted", mb(lost), mb(told)),
            None => format!("{}, not counted", mb(lost)),
        }
    });
    table.row("CPU time of supervisor and logger", |kind| format!("{} ms", of(kind).cpu_ms));
    table.print(
        "One service writes lines of 100 bytes, 200 KB in each millisecond unless it is held up; output goes to one file, \
         of runit by svlogd and of s6 by s6-log. handoff never holds a service up and drops what it can not read in time; \
         the others never drop, and hold it up.",
    );
}
