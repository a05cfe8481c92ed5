//! Lines of processes that come and go.

use crate::harness::{Follower, Run, script, text};
use crate::support::wait_until;
use serde_json::Value;
use std::collections::BTreeMap;

/// The numbers of each process's lines `PID NUMBER`, in their order.
fn by_process(lines: &[Value]) -> BTreeMap<i64, Vec<u64>> {
    let mut found: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for line in lines {
        let (pid, number) = text(line).split_once(' ').unwrap_or_else(|| panic!("not whole: {line}"));
        assert_eq!(pid, line["pid"].to_string(), "{line}");
        found.entry(pid.parse().unwrap()).or_default().push(number.parse().unwrap());
    }
    found
}

/// Each process ends with a line that has no end.
#[test]
fn nothing_is_lost_through_restarts() {
    let text = "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo \"$$ $i\"; done >&2; printf \"$$ 1001\" >&2; exit 1";
    let run = Run::start(text, &["--restart", "always"]);
    let mut follower = Follower::start(&run.place, &["--json"]);
    let lines: Vec<Value> = (0..3003).map(|_| follower.json().unwrap()).collect();
    let found = by_process(&lines);
    assert!(found.len() >= 3, "{:?}", found.keys());
    // It began with the last ten lines, or fewer, of what was there.
    let (first, whole) = (lines[0]["pid"].as_i64().unwrap(), 1..=1001);
    for (pid, numbers) in found.iter().filter(|(_, numbers)| numbers.last() == Some(&1001)) {
        let from = if *pid == first { numbers[0] } else { 1 };
        assert!(numbers.iter().copied().eq(whole.clone().skip(from as usize - 1)), "process {pid}");
    }
    let generations: Vec<u64> = lines.iter().map(|line| line["generation"].as_u64().unwrap()).collect();
    assert!(generations.is_sorted() && generations[3002] > generations[0]);
}

/// In overlap mode two processes write at the same time.
#[test]
fn those_of_incumbent_and_successor_are_each_whole() {
    let numbers = "trap 'echo \"$$ $((i+1))\" >&2; exit 0' TERM
        i=0; while :; do i=$((i+1)); echo \"$$ $i\" >&2; [ $((i % 20)) = 0 ] && sleep 0.002; done";
    let run = Run::start(numbers, &["--mode", "overlap", "--ready", "delay=50ms"]);
    wait_until("running", || (run.status()["state"] == "running").then_some(()));
    let mut follower = Follower::start(&run.place, &["--json", "-n", "0"]);
    let mut lines = vec![follower.json().unwrap()]; // it reads
    let next = script(run.place.dir.path(), "next", numbers);
    let pid = run.status()["pid"].as_i64().unwrap();
    for _ in 0..2 {
        let upgrade = run.place.upgrade(&next, &[]);
        assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    }
    let last = wait_until("another process", || run.status()["pid"].as_i64().filter(|now| *now != pid));
    while by_process(&lines[lines.len().saturating_sub(1)..]).get(&last).is_none_or(|numbers| numbers[0] < 100) {
        let line = follower.json().unwrap();
        assert_eq!(line["dropped"], Value::Null, "the reader was too slow: {line}");
        lines.push(line);
    }
    let found = by_process(&lines);
    assert!(found.len() >= 3, "{:?}", found.keys());
    for (pid, numbers) in found {
        let from = numbers[0];
        assert!(numbers.iter().copied().eq(from..from + numbers.len() as u64), "process {pid}");
        assert!(from == 1 || pid == lines[0]["pid"].as_i64().unwrap(), "process {pid} begins with {from}");
    }
}
