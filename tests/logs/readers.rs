//! Who reads, and who does not.

use crate::harness::{Follower, Run, lines, logs, text};
use crate::support::{SIGINT, SIGTERM, Service, freeze, open_descriptors, process_state, signal, thaw, wait_until};
use serde_json::Value;

/// Numbered lines, some megabytes a second, until it is told to stop; then a last one.
const NUMBERS: &str = "trap 'echo last >&2; exit 0' TERM
    i=0; while :; do i=$((i+1)); echo \"$i $PADDING\" >&2; [ $((i % 20)) = 0 ] && sleep 0.002; done";

#[test]
fn a_reader_that_stops_loses_lines_and_is_told_and_nobody_else_waits() {
    let mut place = Service::place();
    place.environment.push(("PADDING", "x".repeat(1000).into()));
    let nowhere = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let run = Run::start_at(place, NUMBERS, &[], nowhere);
    let mut follower = Follower::start(&run.place, &["--json", "-n", "0"]);
    follower.json().unwrap();
    freeze(follower.pid());
    let reader_lost = || run.status()["log"]["dropped_from_readers"].as_u64().unwrap();
    assert_eq!(reader_lost(), 0);
    let total = || run.status()["log"]["lines_total"].as_u64().unwrap();
    // More than it could ever have between there and here.
    let from = total();
    wait_until("ten megabytes", || (total() > from + 10_000).then_some(()));
    assert_eq!(process_state(follower.pid()), Some('T'));
    thaw(follower.pid());
    let mut next = None;
    let mut dropped = 0;
    let mut after = 0;
    while dropped == 0 || after < 10 {
        let line = follower.json().unwrap();
        if let Some(lines) = line["dropped"].as_u64() {
            (dropped, next) = (dropped + lines, next.map(|next: u64| next + lines));
            after = 0;
            continue;
        }
        let number: u64 = text(&line).split(' ').next().unwrap().parse().unwrap();
        assert_eq!(number, next.unwrap_or(number), "{dropped} were dropped");
        (next, after) = (Some(number + 1), after + 1);
    }
    assert!(reader_lost() >= dropped);
}

#[test]
fn it_ends_with_the_supervisor_or_by_itself() {
    let run = Run::start(NUMBERS, &[]);
    run.wait_for_lines(1);
    let before = open_descriptors(run.pid());
    let mut gone = Follower::start(&run.place, &[]);
    gone.line().unwrap();
    signal(gone.pid(), SIGINT);
    assert_eq!(gone.end(), None, "killed by the signal");
    let mut closed = Follower::start(&run.place, &[]);
    closed.line().unwrap();
    closed.out = None;
    assert_eq!(closed.end(), Some(0), "nobody reads it");
    wait_until("nothing of them is left", || (open_descriptors(run.pid()) <= before).then_some(()));
    let mut follower = Follower::start(&run.place, &["kv"]);
    follower.line().unwrap();
    signal(run.pid(), SIGTERM);
    let mut last = None;
    while let Some(line) = follower.line() {
        last = Some(line);
    }
    assert_eq!((last.as_deref(), follower.end()), (Some("last"), Some(0)));
}

#[test]
fn which_lines() {
    let run = Run::start("for i in 1 2 3 4 5; do echo $i >&2; done; sleep 0.5; echo 6 >&2; sleep 1000", &[]);
    let all = run.wait_for_lines(6);
    assert_eq!(run.logs(&["-n", "2", "kv"]), b"5\n6\n");
    assert_eq!(run.logs(&["-n", "0"]), b"");
    assert_eq!(run.logs(&["--since", "1h", "-n", "3"]), b"kv | 4\nkv | 5\nkv | 6\n");
    let seconds = all[5]["time_ns"].as_u64().unwrap() / 1_000_000_000;
    assert_eq!(run.logs(&["--since", &format!("@{}", seconds + 1)]), b"");
    let since = |line: &Value| line["time_ns"].as_u64().unwrap() >= seconds * 1_000_000_000;
    assert_eq!(
        lines(&run.place, &["--since", &format!("@{seconds}")]).len(),
        all.iter().filter(|line| since(line)).count()
    );
    for (arguments, code) in
        [(vec!["nobody"], 4), (vec!["--since", "soon"], 2), (vec!["-n", "many"], 2), (vec!["kv", "nobody"], 4)]
    {
        let output = run.place.command("logs").args(&arguments).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{arguments:?}: {output:?}");
    }
    let elsewhere = Service::place();
    let output = elsewhere.command("logs").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(logs(&run.place, &["-n", "1", "kv"]), b"6\n");
}

/// Half of the clients may read; then others still get their answers.
#[test]
fn readers_do_not_keep_commands_out() {
    let run = Run::start("echo up >&2; sleep 1000", &[]);
    run.wait_for_lines(1);
    let mut readers: Vec<Follower> =
        (0..handoff::limits::READERS_MAX).map(|_| Follower::start(&run.place, &["kv"])).collect();
    readers.iter_mut().for_each(|reader| assert_eq!(reader.line().as_deref(), Some("up")));
    let one_more = run.place.command("logs").arg("-f").output().unwrap();
    assert_eq!(one_more.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&one_more.stderr).contains("clients read output already"), "{one_more:?}");
    assert_eq!(run.status()["name"], "kv");
    drop(readers.pop());
    wait_until("room for another", || run.place.command("logs").output().unwrap().status.success().then_some(()));
}
