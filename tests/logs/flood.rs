//! More than anybody can read.

use crate::harness::Run;
use crate::support::{Service, wait_until};
use serde_json::Value;
use std::fs;
use std::time::Instant;

const LINE: usize = 100;

/// `VmHWM`: the most that it ever had.
fn peak_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// 300 MB as fast as they can be written: the supervisor stays small, answers, and knows of every byte.
#[test]
fn a_flood_is_counted_and_takes_no_memory() {
    let total = 3_000_000 * LINE as u64;
    // cat writes large blocks, as programs with buffers do.
    let text = format!(
        "yes $(printf '%099d' 7) | head -c {total} >flood; i=0; until [ -e go ]; do sleep 0.01; done
        cat flood >&2; echo end >&2; until [ -e stop ]; do sleep 0.01; done"
    );
    let nowhere = fs::File::options().write(true).open("/dev/null").unwrap();
    let run = Run::start_at(Service::place(), &text, &[], nowhere);
    fs::write(run.place.path("go"), "").unwrap();
    let begin = Instant::now();
    let end = |status: &Value| {
        let log = &status["log"];
        log["lines_total"].as_u64().unwrap() * LINE as u64 + log["dropped_bytes"].as_u64().unwrap() >= total
    };
    let mut slowest = begin.elapsed();
    let status = wait_until("the end of the flood", || {
        let asked = Instant::now();
        let status = run.status();
        slowest = slowest.max(asked.elapsed());
        end(&status).then_some(status)
    });
    let (log, time) = (&status["log"], begin.elapsed());
    let (lines, dropped) = (log["lines_total"].as_u64().unwrap(), log["dropped_bytes"].as_u64().unwrap());
    let last = wait_until("the last line", || Some(run.lines()).filter(|lines| lines.last().unwrap()["text"] == "end"));
    assert!(last.len() <= 10_000 && log["bytes"].as_u64().unwrap() <= 1 << 20, "{log}");
    // A remark for each gap, and the last line, are no part of the flood.
    let (more, rest) =
        ((lines * LINE as u64 + dropped - total) / LINE as u64, (lines * LINE as u64 + dropped) % LINE as u64);
    assert_eq!((rest, more > 0 || dropped == 0), (0, true), "{log}");
    assert!(more <= 1 + dropped / (8 << 20), "{more} lines too many: {log}");
    let peak = peak_kib(run.pid());
    assert!(peak < 64 * 1024, "the supervisor had {peak} KiB");
    let spooled: u64 = fs::read_dir(run.place.path("run")).unwrap().map(|entry| blocks(entry.unwrap())).sum();
    assert!(spooled < 8 << 20, "{spooled} bytes are left in the runtime directory");
    println!(
        "{total} bytes in {time:?}, {dropped} of them dropped; {} ticks of a hundredth of a second of CPU; {peak} KiB; slowest \
         status {slowest:?}",
        cpu_ticks(run.pid())
    );
}

fn blocks(entry: fs::DirEntry) -> u64 {
    use std::os::unix::fs::MetadataExt;
    entry.metadata().unwrap().blocks() * 512
}
