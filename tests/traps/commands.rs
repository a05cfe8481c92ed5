//! Commands and signals that contradict each other, and come in the midst of something.

use crate::support::fleet::Fleet;
use crate::support::{SIGTERM, lives, signal, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const SIGHUP: i32 = 1;
const CLIENTS: usize = 20;
const COMMANDS: usize = 10;

fn linked(fleet: &Fleet, name: &str) -> String {
    format!("[unit.{name}]\n{}restart_limit = {{ count = 10000 }}\n", fleet.acts(name, "linked"))
}

/// The actor, which begins only when there is a file `go`.
fn waiting(fleet: &Fleet) -> String {
    let (path, go) = (fleet.path("waiting"), fleet.path("go"));
    let actor = crate::support::fleet::actor().display();
    let script = format!("#!/bin/sh\nuntil [ -e {} ]; do sleep 0.01; done\nexec {actor} \"$@\"\n", go.display());
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// An upgrade that goes on until there is a file `go`.
fn begin_upgrade(fleet: &Fleet, name: &str) -> Child {
    let mut command = fleet.command("upgrade");
    command.args([name, "--binary", &waiting(fleet)]).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    wait_until("a handoff", || fleet.unit(name).filter(|unit| unit["phase"] != "idle"));
    child
}

fn code(mut child: Child) -> Option<i32> {
    wait_until("its end", || child.try_wait().unwrap()).code()
}

/// Twenty clients, each with ten commands of the four, on two units: one that is replaced by handoffs, and one that is not.
#[test]
fn commands_of_many_at_once() {
    let mut fleet = Fleet::place();
    let (lock, twice) = (fleet.path("lock").display().to_string(), fleet.path("twice"));
    // Whoever has the lock lives.
    let line = format!("exec 9>>{lock}; flock -n 9 || echo twice >>{}; exec sleep 1000", twice.display());
    let alone = format!("[unit.alone]\nshell = true\nexec = {line:?}\nmode = 'none'\nready = 'delay=1ms'\n");
    fleet.configure(&(linked(&fleet, "kv") + &alone));
    fleet.launch();
    ["kv", "alone"].iter().for_each(|name| drop(fleet.wait_for(name, "running")));
    let (over, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    let answers = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(fleet.actors().len(), Ordering::Relaxed);
            }
        });
        let client = |seed: usize| {
            let fleet = &fleet;
            move || {
                let command =
                    |number: usize| ["start", "stop", "restart", "upgrade"][(seed * 7 + number * 5 + number / 3) % 4];
                let unit = ["kv", "alone"][seed % 2];
                (0..COMMANDS).map(|number| fleet.run(command(number), &[unit])).collect::<Vec<_>>()
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|seed| scope.spawn(client(seed))).collect();
        let answers: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        over.store(true, Ordering::Relaxed);
        answers
    });
    assert_eq!(answers.len(), CLIENTS * COMMANDS);
    for answer in &answers {
        assert!([0, 1, 10, 13].contains(&answer.code), "{answer:?}");
        assert!(answer.code == 0 || !answer.stderr.is_empty(), "{answer:?}");
        assert!(!answer.stderr.contains("connection"), "{answer:?}");
    }
    assert!(!twice.exists(), "two processes at once: {}", fleet.log());
    assert!(most.into_inner() <= 2, "an incumbent and a successor at most");
    // The last word counts.
    for (command, state, processes) in [("stop", "stopped", 0), ("start", "running", 1), ("stop", "stopped", 0)] {
        fleet.run(command, &["kv", "alone"]).expect(0, &[]);
        let units = fleet.status().unwrap();
        assert!(units.iter().all(|unit| unit["state"] == state && unit["phase"] == "idle"), "{command}: {units:?}");
        assert_eq!(fleet.actors().len(), processes, "{command}");
    }
}

/// A stop, and in the midst of it a start: the stop has no effect any more, and its client is told.
#[test]
fn a_stop_that_is_overruled_is_answered() {
    let mut fleet = Fleet::place();
    let go = fleet.path("go").display().to_string();
    let line = format!("trap 'until [ -e {go} ]; do sleep 0.01; done; exit 0' TERM; while :; do sleep 0.01; done");
    fleet.configure(&format!("[unit.slow]\nshell = true\nexec = {line:?}\nmode = 'none'\nready = 'delay=100ms'\n"));
    fleet.launch();
    let pid = fleet.wait_for("slow", "running")["pid"].clone();
    let mut stop = fleet.command("stop").arg("slow").stderr(Stdio::piped()).spawn().unwrap();
    fleet.wait_for("slow", "stopping");
    assert!(stop.try_wait().unwrap().is_none());
    fleet.run("start", &["slow", "--no-wait"]).expect(0, &[]);
    let said = stop.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.code() == Some(1) && text.contains("started again meanwhile"), "{said:?}");
    fs::write(go, "").unwrap();
    wait_until("another process", || fleet.unit("slow").filter(|unit| unit["pid"].is_i64() && unit["pid"] != pid));
}

/// A thousand SIGTERMs, and as many SIGHUPs, in the midst of a handoff: it is undone, all end as they should, and the supervisor after them.
#[test]
fn a_storm_of_signals_in_a_handoff() {
    let mut fleet = Fleet::place();
    let slow = "trap 'sleep 0.5; echo ended >\"$0\"; exit 0' TERM; sleep 1000 & wait";
    let ended = fleet.path("ended");
    let slow = format!(
        "[unit.slow]\nexec = ['sh', '-c', {slow:?}, '{}']\nmode = 'none'\nready = 'delay=50ms'\n",
        ended.display()
    );
    fleet.configure(&(linked(&fleet, "kv") + &slow));
    fleet.launch();
    let pids = ["kv", "slow"].map(|name| fleet.wait_for(name, "running")["pid"].as_i64().unwrap() as i32);
    let upgrade = begin_upgrade(&fleet, "kv");
    for _ in 0..1000 {
        signal(fleet.pid(), SIGTERM);
        signal(fleet.pid(), SIGHUP);
    }
    assert_eq!(code(upgrade), Some(10));
    assert_eq!(fleet.wait_for_end(), Some(0));
    assert!(pids.iter().all(|pid| !lives(*pid)));
    assert_eq!(fs::read_to_string(ended).unwrap(), "ended\n", "it had the time that it needs");
    assert_eq!((fleet.processes(), fleet.starts("kv").len()), (Vec::new(), 1));
    assert_eq!(fleet.log().matches("main: stops all units").count(), 1);
}

/// Its unit is taken out of the configuration, or is called otherwise, in the midst of its handoff.
#[test]
fn a_unit_that_is_removed_in_its_handoff() {
    let fleet = {
        let mut fleet = Fleet::place();
        fleet.configure(&(linked(&fleet, "kv") + &linked(&fleet, "other") + &linked(&fleet, "stays")));
        fleet.launch();
        fleet
    };
    let pids = ["kv", "other", "stays"].map(|name| fleet.wait_for(name, "running")["pid"].as_i64().unwrap() as i32);
    let (upgrade, other) = (begin_upgrade(&fleet, "kv"), begin_upgrade(&fleet, "other"));
    fleet.configure(&(linked(&fleet, "new") + &linked(&fleet, "other") + &linked(&fleet, "stays")));
    fleet.run("reload", &[]).expect(0, &["kv: removed: stops", "new: added: starts"]);
    assert_eq!(code(upgrade), Some(10), "undone, not forgotten");
    crate::support::wait_for_death(pids[0]);
    fleet.wait_for("new", "running");
    wait_until("it is gone", || fleet.unit("kv").is_none().then_some(()));
    // That of the other one goes on, and commits.
    assert_ne!(fleet.unit("other").unwrap()["phase"], "idle");
    fs::write(fleet.path("go"), "").unwrap();
    assert_eq!(code(other), Some(0));
    let unit = fleet.wait_for("other", "running");
    assert_eq!((&unit["generation"], &unit["restarts"]), (&2.into(), &0.into()));
    wait_until("its incumbent is gone", || (!lives(pids[1])).then_some(()));
    assert_eq!(fleet.unit("stays").unwrap()["pid"], pids[2]);
    let mut mains: Vec<String> = fleet.actors().into_iter().map(|actor| actor.unit).collect();
    mains.sort();
    assert_eq!(mains, ["new", "other", "stays"]);
}

/// One unit is meant, and a target is named; a signal that is none; a task.
#[test]
fn commands_that_make_no_sense_change_nothing() {
    let mut fleet = Fleet::place();
    let task = "[unit.task]\nexec = ['true']\noneshot = true\n";
    let group = "[target.group]\nunits = ['kv', 'task']\n";
    fleet.configure(&(linked(&fleet, "kv") + task + group));
    fleet.launch();
    let pid = fleet.wait_for("kv", "running")["pid"].clone();
    fleet.wait_for("task", "done");
    for command in ["upgrade", "rollback", "why", "status", "history"] {
        fleet.run(command, &["group"]).expect(4, &["'group' is a target, and this is for one unit: kv, task"]);
    }
    for command in
        ["start", "stop", "restart", "upgrade", "rollback", "kill", "logs", "why", "tree", "status", "history"]
    {
        fleet.run(command, &["nobody"]).expect(4, &["there is no service 'nobody'; there is: kv, task"]);
    }
    for signal in ["0", "-1", "65", "99999999999", "FOO", "TERM KILL", ""] {
        fleet.run("kill", &["--", "kv", signal]).expect(2, &["there is no such signal"]);
    }
    fleet.run("kill", &["task", "KILL"]).expect(1, &["task does not run: there is nothing to signal"]);
    fleet.run("upgrade", &["task"]).expect(13, &["not replaced by a handoff"]);
    for command in ["stop", "restart", "upgrade", "rollback"] {
        fleet.run(command, &[]).expect(2, &["which service? There are: kv, task"]);
    }
    let units = fleet.status().unwrap();
    assert_eq!((&units[0]["pid"], &units[1]["state"]), (&pid, &"done".into()));
    assert_eq!(fleet.starts("kv").len(), 1);
}
