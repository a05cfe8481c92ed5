//! Who is started, beside whom, and how often.

use crate::support::fleet::{Fleet, actor};
use crate::support::{SIGKILL, lives, signal, wait_for_death, wait_until};
use serde_json::json;
use std::fs;

const QUICK: &str = "backoff = { first = \"5ms\", max = \"20ms\" }\n";

/// A daemon that does not link the library, and tells when it is ready.
fn plain(fleet: &Fleet, name: &str, words: &str, more: &str) -> String {
    let exec = fleet.acts(name, &format!("fd=9 {words}"));
    format!("[unit.{name}]\n{exec}mode = \"none\"\nready = \"fd=9\"\n{QUICK}{more}\n")
}

fn task(fleet: &Fleet, name: &str, words: &str, more: &str) -> String {
    format!("[unit.{name}]\n{}oneshot = true\n{more}\n", fleet.acts(name, words))
}

/// Configures, starts, and waits until this unit is in this state.
fn up(mut fleet: Fleet, units: &str, name: &str, state: &str) -> Fleet {
    fleet.configure(units);
    fleet.launch();
    fleet.wait_for(name, state);
    fleet
}

/// What must not run twice at once is not replaced side by side, whoever asks.
#[test]
fn what_must_not_run_beside_itself_is_not_upgraded() {
    let fleet = Fleet::place();
    let units = plain(&fleet, "db", "", "") + &task(&fleet, "move", "exit=0 after_ms=600000", "start_timeout = \"1h\"");
    let fleet = up(fleet, &units, "db", "running");
    wait_until("the task runs", || (fleet.starts("move").len() == 1).then_some(()));
    let pid = fleet.pid_of("db");
    for name in ["db", "move"] {
        fleet.run("upgrade", &[name]).expect(13, &["not replaced by a handoff", "handoff restart"]);
        fleet.run("upgrade", &[name, "--dry-run"]).expect(13, &["not replaced"]);
        assert_eq!(fleet.starts(name).len(), 1);
    }
    assert_eq!(fleet.pid_of("db"), pid);
    assert!(lives(pid));
}

/// A refusal changes nothing, also not how the next process is to be run.
#[test]
fn a_unit_stays_stale_when_its_upgrade_is_refused() {
    let fleet = Fleet::place();
    let unit = plain(&fleet, "db", "", "");
    let fleet = up(fleet, &unit, "db", "running");
    fleet.configure(&format!("{unit}env = {{ NEW = \"1\" }}\n"));
    fleet.run("reload", &[]).expect(0, &["env"]);
    fleet.run("upgrade", &["db"]).expect(13, &[]);
    assert_eq!(fleet.unit("db").unwrap()["stale"], json!(["env"]));
    fleet.run("restart", &["db"]).expect(0, &[]);
    assert_eq!(fleet.unit("db").unwrap()["stale"], json!([]));
    let environ = fs::read(format!("/proc/{}/environ", fleet.pid_of("db"))).unwrap();
    assert!(environ.split(|byte| *byte == 0).any(|entry| entry == b"NEW=1"));
}

/// `exec PROG` and `A=1 PROG` of a shell are the daemon itself, whatever its name is: also to the supervisor that comes after.
#[test]
fn a_daemon_behind_a_shell_is_not_started_twice() {
    let mut fleet = Fleet::place();
    let (actor, dir) = (actor().display(), fleet.dir.path().display());
    let line = |name: &str, before: &str, after: &str| {
        let command = format!("{before}{actor} {name} {dir} fd=9{after}");
        format!("[unit.{name}]\nshell = true\nexec = {command:?}\nmode = \"none\"\nready = \"fd=9\"\n{QUICK}\n")
    };
    let units = [line("exec", "exec ", ""), line("with", "A=1 ", ""), line("below", "", "; exit $?")].concat();
    fleet.configure(&units);
    fleet.launch();
    let names = ["exec", "with", "below"];
    let pids = names.map(|name| fleet.wait_for(name, "running")["pid"].as_i64().unwrap());
    fleet.kill_supervisor();
    fleet.launch();
    let adopted = names.map(|name| fleet.wait_for(name, "running")["pid"].as_i64().unwrap());
    assert_eq!(adopted, pids);
    names.iter().for_each(|name| assert_eq!(fleet.starts(name).len(), 1, "{name}"));
    for name in names {
        fleet.run("restart", &[name]).expect(0, &[]);
        assert_eq!(fleet.starts(name).len(), 2, "{name}");
        assert_eq!(fleet.actors().iter().filter(|actor| actor.unit == name).count(), 1, "{name}");
    }
}

/// A task that is done is done: for dependents that come and go, for a reload, and for the next supervisor.
#[test]
fn a_done_task_does_not_run_again() {
    let mut fleet = Fleet::place();
    let both = |edition: &str| {
        let env = format!("env = {{ EDITION = {edition:?} }}");
        task(&fleet, "move", "exit=0 after_ms=10", &env) + &plain(&fleet, "app", "", "requires = [\"move\"]")
    };
    let (first, second) = (both("1"), both("2"));
    fleet.configure(&first);
    fleet.launch();
    fleet.wait_for("app", "running");
    fleet.run("restart", &["app"]).expect(0, &[]);
    fleet.run("stop", &["app"]).expect(0, &[]);
    fleet.run("start", &["app"]).expect(0, &[]);
    fleet.run("start", &["move"]).expect(0, &[]);
    fleet.configure(&second);
    fleet.run("reload", &[]).expect(0, &[]);
    fleet.run("restart", &["app"]).expect(0, &[]);
    signal(fleet.pid_of("app"), SIGKILL);
    fleet.wait_for("app", "running");
    fleet.kill_supervisor();
    fleet.launch();
    fleet.wait_for("app", "running");
    assert_eq!(fleet.unit("move").unwrap()["state"], "done");
    fleet.run("restart", &["app"]).expect(0, &[]);
    assert_eq!(fleet.starts("move").len(), 1);
    // An operator may want it once more.
    fleet.run("restart", &["move"]).expect(0, &[]);
    assert_eq!(fleet.starts("move").len(), 2);
}

/// What waits for a task waits for its end, and for a good one.
#[test]
fn a_dependent_starts_when_its_task_is_done_and_not_when_it_is_spawned() {
    let fleet = Fleet::place();
    let units = [
        task(&fleet, "move", "exit=0 after_ms=150", ""),
        plain(&fleet, "app", "", "requires = [\"move\"]"),
        task(&fleet, "bad", "exit=3 after_ms=20", "restart = \"never\""),
        plain(&fleet, "never", "", "requires = [\"bad\"]"),
    ];
    let fleet = up(fleet, &units.concat(), "app", "running");
    fleet.wait_for("bad", "failed");
    let blocked = fleet.wait_for("never", "blocked");
    assert!(blocked["why"].as_str().unwrap().contains("bad"), "{blocked}");
    let log = fleet.log();
    let (ended, began) = (log.find("move: ended: exit status 0").unwrap(), log.find("app: process").unwrap());
    assert!(ended < began, "{log}");
    assert_eq!((fleet.starts("bad").len(), fleet.starts("never").len()), (1, 0));
    fleet.run("why", &["never"]).expect(0, &["bad", "exit status 3"]);
}

/// Helpers that a crash leaves behind are gone before the next process begins.
#[test]
fn helpers_of_a_crash_are_gone_before_the_restart() {
    let fleet = Fleet::place();
    let unit = plain(&fleet, "app", "helpers=3 orphans=3", "");
    let fleet = up(fleet, &unit, "app", "running");
    let pid = fleet.pid_of("app");
    let helpers = || fleet.actors().into_iter().filter(|actor| actor.helper).map(|actor| actor.pid).collect::<Vec<_>>();
    let before = wait_until("six helpers", || Some(helpers()).filter(|helpers| helpers.len() == 6));
    signal(pid, SIGKILL);
    wait_until("another process", || fleet.unit("app")?["pid"].as_i64().filter(|now| *now != i64::from(pid)));
    // The new one lives, so these do not.
    before.iter().for_each(|helper| assert!(!lives(*helper), "helper {helper} of {pid}"));
    fleet.wait_for("app", "running");
    fleet.run("stop", &["app"]).expect(0, &[]);
    assert_eq!(fleet.actors(), []);
}

/// What a daemon writes has somewhere to go while no supervisor lives, and when the next one is there.
#[test]
fn daemons_do_not_die_of_their_output_when_the_supervisor_does() {
    let mut fleet = Fleet::place();
    let stop = fleet.path("enough").display().to_string();
    // SIGPIPE kills it; a pipe that nobody reads would stop it.
    let line = format!(
        "while [ ! -e {stop} ]; do echo 0123456789012345678901234567890123456789; echo again >&2; done; echo 1 > {stop}; sleep 1000"
    );
    let chatty = format!("[unit.chatty]\nshell = true\nexec = {line:?}\nmode = \"none\"\nready = \"delay=10ms\"\n");
    fleet.configure(&chatty);
    fleet.launch();
    let pid = fleet.wait_for("chatty", "running")["pid"].as_i64().unwrap() as i32;
    fleet.kill_supervisor();
    let written = || {
        fs::read_to_string(format!("/proc/{pid}/io"))
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok())
    };
    let at_death = written().unwrap();
    wait_until("ten more MiB", || (written()? > at_death + (10 << 20)).then_some(()));
    fleet.launch();
    assert_eq!(fleet.wait_for("chatty", "running")["pid"], pid);
    fs::write(fleet.path("enough"), "").unwrap();
    wait_until("the last line", || (fs::read_to_string(&stop).ok()? == "1\n").then_some(()));
    fleet.run("stop", &["chatty"]).expect(0, &[]);
    wait_for_death(pid);
}

/// What has ended well is not started again by itself, but by an operator, also for what needs it.
#[test]
fn an_operator_starts_what_has_ended_well() {
    let fleet = Fleet::place();
    let units = plain(&fleet, "app", "exit=0 after_ms=700", "")
        + &plain(&fleet, "web", "", "autostart = false\nrequires = [\"app\"]");
    let fleet = up(fleet, &units, "app", "stopped");
    for starts in [2, 3] {
        fleet.run("start", &[["app", "web"][starts - 2]]).expect(0, &[]);
        assert_eq!(fleet.starts("app").len(), starts);
        fleet.wait_for("app", "stopped");
    }
    fleet.wait_for("web", "running");
}
