//! Many, one after the other, under load.

use crate::harness::{PATIENCE, Place, text};
use crate::support::{open_descriptors, programs};
use crate::{executes, must_upgrade, other_program, unit, up, wait_for, wait_for_state, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A child that counts, as fast as it may, and in the end says in a file how far it has come.
const COUNT: &str =
    "trap \"echo \\$i > LAST; exit\" TERM; i=0; while :; do i=$((i+1)); echo count $i. >&2; sleep 0.005; done";

fn units(place: &Place) -> String {
    let data = place.path("data");
    std::fs::create_dir_all(&data).unwrap();
    let count = COUNT.replace("LAST", text(&place.path("last")));
    format!(
        "[unit.kv]\nexec = ['{}']\nlisten = ['kv=127.0.0.1:0']\ndata_dir = '{}'\n\
         [unit.count]\nexec = ['/bin/sh', '-c', '{count}']\nmode = 'none'\nready = 'delay=0ms'\n\
         [unit.requires]\nexec = ['/bin/sleep', '1000']\nmode = 'none'\nready = 'delay=0ms'\nrequires = ['kv']\n",
        text(&programs().kv_a),
        text(&data)
    )
}

/// A connection to the store that lives through everything.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn ask(&mut self, request: &str) -> String {
        self.0.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }
}

/// Asks for the status on a connection of its own each time. None may be refused.
fn hammer(socket: &Path, until: &AtomicBool, asked: &AtomicU64) {
    while !until.load(Ordering::Relaxed) {
        let mut client = UnixStream::connect(socket).expect("the control socket never refuses");
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"{\"handoff\":1,\"id\":1,\"method\":\"status\"}\n").unwrap();
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line).unwrap();
        assert!(line.contains("\"result\""), "{line:?}");
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

/// However it ends.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn rounds(count: usize) {
    let place = Place::new();
    let run = up(&place, &units(&place));
    let linked = |unit: &serde_json::Value| unit["state"] == "running" && unit["linked"] == true;
    wait_for(&place, "kv", "serving", linked);
    // From now on the program before is kept open, as the way back.
    place.output("upgrade", &["kv"]).expect(0, &[]);
    let kv = wait_for(&place, "kv", "serving", linked);
    let pids = ["count", "requires"].map(|name| wait_for_state(&place, name, "running")["pid"].clone());
    let address = kv["listeners"][0]["address"].as_str().unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut kept = Kept(BufReader::new(stream));
    let mut follows = place.handoff("logs");
    follows
        .args(["-f", "-n", "100000", "count", "--json"])
        .stdout(std::fs::File::create(place.path("followed")).unwrap());
    let mut follows = follows.spawn().unwrap();
    let programs = [other_program(&place), executes(run.pid())];
    let (until, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = open_descriptors(run.pid());
    let mut pauses = Vec::new();
    std::thread::scope(|scope| {
        let _end = End(&until);
        scope.spawn(|| hammer(&place.path("runtime/main.sock"), &until, &asked));
        for round in 0..count {
            let outcome = must_upgrade(&place, &programs[round % 2]);
            pauses.push(outcome["pause_ns"].as_u64().unwrap());
            assert_eq!((&executes(run.pid()), &outcome["pid"]), (&programs[round % 2], &run.pid().into()));
            assert!(kept.ask(&format!("SET {round} value{round}")).starts_with("OK"), "round {round}");
            // Every tenth time the store, too.
            if round % 10 == 9 {
                let binary =
                    if round % 20 == 9 { &crate::support::programs().kv_b } else { &crate::support::programs().kv_a };
                place.output("upgrade", &["kv", "--binary", text(binary)]).expect(0, &[]);
            }
        }
    });
    for round in 0..count {
        assert!(kept.ask(&format!("GET {round}")).contains(&format!("value{round}")), "round {round}");
    }
    assert!(asked.load(Ordering::Relaxed) as usize > count);
    for (name, pid) in ["count", "requires"].into_iter().zip(pids) {
        let unit = unit(&place, name);
        assert_eq!((&unit["pid"], &unit["restarts"], &unit["generation"]), (&pid, &0.into(), &1.into()), "{unit}");
    }
    assert_eq!(unit(&place, "kv")["generation"].as_u64(), Some(2 + count as u64 / 10));
    wait_until("as many descriptors as before", || (open_descriptors(run.pid()) == before).then_some(()));
    place.output("stop", &["count"]).expect(0, &[]);
    let last = std::fs::read_to_string(place.path("last")).unwrap().trim().parse().unwrap();
    check_lines(&run.stderr(), "count | ", last);
    // The same on the connection of a reader that was there from the beginning, and in what is kept.
    let text =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].as_str().map(str::to_owned);
    let kept = place.output("logs", &["count", "--json"]);
    wait_until("the reader has all", || {
        std::fs::read_to_string(place.path("followed")).unwrap().contains(&format!("\"count {last}.\"")).then_some(())
    });
    follows.kill().unwrap();
    follows.wait().unwrap();
    let followed = std::fs::read_to_string(place.path("followed")).unwrap();
    for lines in [kept.stdout, followed] {
        let whole = lines.lines().take(lines.matches('\n').count());
        check_lines(&whole.filter_map(text).collect::<Vec<_>>().join("\n"), "", last);
    }
    pauses.sort_unstable();
    println!(
        "{count} self-upgrades: pause {} ms (median), {} ms (longest)",
        pauses[count / 2] / 1_000_000,
        pauses[count - 1] / 1_000_000
    );
}

/// Every number once, in order, up to this one.
fn check_lines(text: &str, prefix: &str, last: u64) {
    let mut seen = 0u64;
    let lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
    for line in lines.filter(|line| line.starts_with("count ") && line.ends_with('.')) {
        let number: u64 = line["count ".len()..line.len() - 1].parse().unwrap();
        assert_eq!(number, seen + 1, "a line is missing, or came twice");
        seen = number;
    }
    assert_eq!(seen, last, "the last lines");
    assert!(last > 100, "{last} lines: it was not tested");
}

#[test]
fn forty_in_a_row_lose_nothing() {
    rounds(40);
}

/// The same for longer: a minute or two.
#[test]
#[ignore = "long: cargo test --test selfup -- --ignored two_hundred"]
fn two_hundred_in_a_row_lose_nothing() {
    rounds(200);
}
