//! How units end, and what is said of it.

use crate::support::fleet::Fleet;
use crate::support::{SIGKILL, SIGTERM, lives, signal, wait_for_death, wait_until};
use std::fs;

const SIGHUP: i32 = 1;

fn plain(fleet: &Fleet, name: &str, words: &str, more: &str) -> String {
    let exec = fleet.acts(name, &format!("fd=9 {words}"));
    format!("[unit.{name}]\n{exec}mode = \"none\"\nready = \"fd=9\"\n{more}\n")
}

fn start(of: impl Fn(&Fleet) -> String) -> Fleet {
    let mut fleet = Fleet::place();
    fleet.configure(&of(&fleet));
    fleet.launch();
    fleet
}

/// `handoff stop`: they do not run, nor do those that require them; also if they have ended by themselves.
#[test]
fn a_stop_of_what_has_ended_stops_those_that_require_it() {
    let fleet = start(|fleet| {
        let task = format!("[unit.task]\n{}oneshot = true\n", fleet.acts("task", "exit=0"));
        let dead = plain(fleet, "dead", "exit=3 after_ms=300", "restart = \"never\"");
        [task, dead, plain(fleet, "app", "", "requires = [\"task\"]"), plain(fleet, "web", "", "requires = [\"dead\"]")]
            .concat()
    });
    let pids = ["app", "web"].map(|name| fleet.wait_for(name, "running")["pid"].as_i64().unwrap() as i32);
    fleet.wait_for("dead", "failed");
    assert!(pids.iter().all(|pid| lives(*pid)), "a crash stops nobody else");
    fleet.run("stop", &["task", "dead"]).expect(0, &[]);
    pids.into_iter().for_each(wait_for_death);
    for name in ["app", "web"] {
        let unit = fleet.wait_for(name, "blocked");
        assert!(unit["why"].as_str().unwrap().contains("is stopped"), "{unit}");
    }
    fleet.run("start", &["app"]).expect(0, &[]);
    assert_eq!(fleet.starts("app").len(), 2);
}

/// What a process said when it ended is what is told, and the first cause is kept.
#[test]
fn the_cause_is_the_status_that_it_has_ended_with() {
    let fleet = start(|fleet| {
        let quick = "backoff = { first = \"5ms\", max = \"5ms\" }\nrestart_limit = { count = 2, window = \"60s\" }\n";
        let seven = plain(fleet, "seven", "exit=7", quick);
        let zero = plain(fleet, "zero", "exit=0", "");
        [seven, zero, plain(fleet, "killed", "", "restart = \"never\"")].concat()
    });
    fleet.wait_for("killed", "running");
    signal(fleet.pid_of("killed"), SIGKILL);
    let said = |name: &str, state: &str| fleet.wait_for(name, state)["why"].as_str().unwrap().to_owned();
    let seven = said("seven", "failed");
    assert!(seven.contains("exit status 7") && seven.contains("too often"), "{seven}");
    assert_eq!(fleet.starts("seven").len(), 3);
    // It has ended well: that is no failure, and nothing to start again.
    let zero = said("zero", "stopped");
    assert!(zero.contains("exit status 0"), "{zero}");
    assert_eq!(fleet.starts("zero").len(), 1);
    let killed = said("killed", "failed");
    assert!(killed.contains("killed by signal 9"), "{killed}");
}

/// HUP reads the files again; a daemon that would die of it gets none.
#[test]
fn hup_kills_nobody() {
    let fleet = start(|fleet| plain(fleet, "app", "", ""));
    let pid = fleet.wait_for("app", "running")["pid"].as_i64().unwrap() as i32;
    fleet.configure(&(plain(&fleet, "app", "", "") + &plain(&fleet, "more", "", "")));
    signal(fleet.pid(), SIGHUP);
    fleet.wait_for("more", "running");
    assert_eq!((fleet.pid_of("app"), lives(pid)), (pid, true));
    // Files that can not be read leave all as it was.
    fs::remove_file(fleet.path("units.toml")).unwrap();
    signal(fleet.pid(), SIGHUP);
    wait_until("the file is missed", || fleet.log().contains("nothing was changed").then_some(()));
    fleet.run("reload", &[]).expect(1, &["units.toml", "nothing was changed"]);
    assert_eq!(fleet.unit("app").unwrap()["pid"], pid);
    fleet.run("restart", &["more"]).expect(0, &[]);
}

/// SIGTERM ends the supervisor after all that it has started, also what ignores it, was forked, or is being started.
#[test]
fn a_sigterm_orphans_nobody() {
    let mut fleet = start(|fleet| {
        let stop = "stop = [\"TERM 100ms\", \"KILL\"]\n";
        let task = format!("[unit.task]\n{}oneshot = true\n", fleet.acts("task", "exit=0 after_ms=60000"));
        let base = plain(fleet, "base", "helpers=2 orphans=2", "");
        let deaf = plain(fleet, "deaf", "ignore helpers=2", &format!("requires = [\"base\"]\n{stop}"));
        let slow = plain(fleet, "slow", "ready_ms=20000", stop);
        let waits = plain(fleet, "waits", "exit=1", "backoff = { first = \"60s\", max = \"60s\" }");
        [task, base, deaf, slow, waits].concat()
    });
    fleet.wait_for("deaf", "running");
    wait_until("the slow one starts", || (fleet.starts("slow").len() == 1).then_some(()));
    fleet.wait_for("waits", "waiting");
    signal(fleet.pid(), SIGTERM);
    assert_eq!(fleet.wait_for_end(), Some(0));
    assert_eq!(fleet.processes(), Vec::<i32>::new());
    let log = fleet.log();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text:?} is not in: {log}"));
    assert!(at("deaf: ended") < at("base: stops"), "dependents are gone before: {log}");
}

/// `kill` signals the main processes of a group, each once: no group of processes, and not the supervisor.
#[test]
fn kill_of_a_group_signals_its_daemons_alone() {
    let fleet = start(|fleet| {
        let group = "[target.pair]\nunits = [\"one\", \"two\"]\n".to_owned();
        let one = plain(fleet, "one", "term=5 helpers=1", "restart = \"never\"");
        let two = plain(fleet, "two", "term=6", "restart = \"never\"");
        [group, one, two, plain(fleet, "other", "", "")].concat()
    });
    let other = fleet.wait_for("other", "running")["pid"].clone();
    ["one", "two"].iter().for_each(|name| drop(fleet.wait_for(name, "running")));
    fleet.run("kill", &["pair", "TERM"]).expect(0, &[]);
    for (name, status) in [("one", 5), ("two", 6)] {
        let unit = fleet.wait_for(name, "failed");
        assert!(unit["why"].as_str().unwrap().contains(&format!("exit status {status}")), "{unit}");
    }
    assert_eq!(fleet.unit("other").unwrap()["pid"], other);
    fleet.run("kill", &["pair", "TERM"]).expect(1, &["not run"]);
    fleet.run("kill", &["nobody"]).expect(4, &["nobody"]);
}

/// Units that are removed while others end: the end of one is never taken for that of another.
#[test]
fn removed_units_do_not_take_the_ends_of_others() {
    let fleet = Fleet::place();
    let units = |names: &[usize]| -> String {
        let of = |number: &usize| {
            let name = format!("n{number}");
            plain(&fleet, &name, &format!("term={}", number + 10), "restart = \"never\"\n")
        };
        names.iter().map(of).collect()
    };
    let all: Vec<usize> = (0..12).collect();
    let (odd, file) = (units(&[1, 3, 5, 7, 9, 11]), units(&all));
    let mut fleet = fleet;
    fleet.configure(&file);
    fleet.launch();
    let pids: Vec<i32> =
        all.iter().map(|n| fleet.wait_for(&format!("n{n}"), "running")["pid"].as_i64().unwrap() as i32).collect();
    fleet.configure(&odd);
    // The ends of the ones, while the others are removed.
    [1, 5, 9].iter().for_each(|n| signal(pids[*n], SIGTERM));
    fleet.run("reload", &[]).expect(0, &["n0", "n10"]);
    let left = wait_until("the removed ones are gone", || fleet.status().filter(|units| units.len() == 6));
    assert!(left.iter().all(|unit| unit["name"].as_str().unwrap()[1..].parse::<usize>().unwrap() % 2 == 1));
    for n in [1, 5, 9] {
        let unit = fleet.wait_for(&format!("n{n}"), "failed");
        assert!(unit["why"].as_str().unwrap().contains(&format!("exit status {}", n + 10)), "{unit}");
    }
    for n in [3, 7, 11] {
        let unit = fleet.unit(&format!("n{n}")).unwrap();
        assert_eq!((&unit["state"], &unit["pid"]), (&"running".into(), &pids[n].into()));
    }
    let mains: Vec<String> = fleet.actors().into_iter().map(|actor| actor.unit).collect();
    assert_eq!(mains.len(), 3, "{mains:?}");
}

/// Also by way of one that has ended by itself.
#[test]
fn a_stop_reaches_those_behind_one_that_has_ended() {
    let fleet = start(|fleet| {
        let middle = plain(fleet, "middle", "exit=7 after_ms=300", "requires = [\"base\"]\nrestart = \"never\"");
        let top = plain(fleet, "top", "", "requires = [\"middle\"]");
        [plain(fleet, "base", "", ""), middle, top, plain(fleet, "above", "", "requires = [\"top\"]")].concat()
    });
    let pids = ["top", "above"].map(|name| fleet.wait_for(name, "running")["pid"].as_i64().unwrap() as i32);
    fleet.wait_for("middle", "failed");
    fleet.run("stop", &["base"]).expect(0, &[]);
    // They are gone before it, although nothing between them lives.
    assert!(pids.iter().all(|pid| !lives(*pid)));
    ["top", "above"].iter().for_each(|name| drop(fleet.wait_for(name, "blocked")));
}
