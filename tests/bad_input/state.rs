//! A runtime directory without room while `handoff up` runs: what can not be written down is told, and is written when there is room.

use crate::mounts::{Mounted, fill, own_mounts};
use crate::support::fleet::Fleet;
use crate::support::{SIGKILL, lives, signal, wait_until};
use std::fs;

const UNWRITTEN: &str = "the state can not be written down: ";
const AGAIN: &str = "the state is written down again";

fn count(fleet: &Fleet, words: &str) -> usize {
    fleet.log().matches(words).count()
}

#[test]
fn the_state_and_the_history_without_room() {
    if !own_mounts() {
        return;
    }
    let mut fleet = Fleet::place();
    let unit = |name: &str, keys: &str| {
        format!("[unit.{name}]\n{}mode = 'none'\nready = 'fd=9'\n{keys}\n", fleet.acts(name, "fd=9"))
    };
    let crashes = unit("crashes", "backoff = { first = '5ms' }");
    let task = "[unit.task]\nexec = ['true']\noneshot = true\nautostart = false\nbackoff = { max = '500ms' }\nrestart_limit = { count = 10000 }\n";
    fleet.configure(&(unit("app", "") + &unit("other", "") + &crashes + task));
    let run = fleet.path("run");
    fs::create_dir(&run).unwrap();
    let _mounted = Mounted::tmpfs(&run, "size=512k,mode=700");
    fleet.launch();
    let pid = fleet.pid_of("app");
    let other = fleet.wait_for("other", "running")["pid"].clone();
    fleet.wait_for("crashes", "running");
    let filler = fill(&run, 0);
    fleet.run("start", &["task"]).expect(1, &["No space left on device", "it is started again by itself"]);
    fleet.run("why", &["task"]).expect(0, &["task.journal: No space left on device", "free space or inodes there"]);
    wait_until("it is told", || (count(&fleet, UNWRITTEN) > 0).then_some(()));
    wait_until("it is told", || (count(&fleet, "the history can not be written") > 0).then_some(()));
    for _ in 0..20 {
        fleet.status().unwrap();
    }
    let text = fleet.log();
    let line = text.lines().find(|line| line.contains(UNWRITTEN)).unwrap();
    for words in ["main.state: No space left on device", "free space or inodes there", "will not know"] {
        assert!(line.contains(words), "{line}");
    }
    assert_eq!((count(&fleet, UNWRITTEN), count(&fleet, AGAIN)), (1, 0), "once: {text}");
    assert_eq!(count(&fleet, "the history can not be written"), 1, "once: {text}");
    // Commands do what they do, and services go on. What ends gives room back, which others may take.
    fleet.run("stop", &["app"]).expect(0, &["stopped"]);
    assert!(!lives(pid));
    // One that dies is started again, and its journal is not that of the dead.
    signal(fleet.pid_of("crashes"), SIGKILL);
    wait_until("it runs again", || (fleet.starts("crashes").len() == 2).then_some(()));
    let crashes = fleet.wait_for("crashes", "running")["pid"].clone();
    // There is room, and nothing else happens.
    fs::remove_file(filler).unwrap();
    fleet.wait_for("task", "done");
    wait_until("all of it", || {
        let state = fs::read_to_string(run.join("main.state")).ok()?;
        state.contains("stopped app").then_some(())
    });
    wait_until("it is told", || (count(&fleet, AGAIN) == count(&fleet, UNWRITTEN)).then_some(()));
    assert_eq!(fleet.unit("other").unwrap()["pid"], other);
    // Its successor knows what was said and done meanwhile.
    fleet.kill_supervisor();
    fleet.launch();
    assert_eq!(fleet.wait_for("other", "running")["pid"], other);
    assert_eq!(fleet.wait_for("crashes", "running")["pid"], crashes, "it is not started twice");
    assert_eq!(fleet.unit("app").unwrap()["why"], "stopped by an operator");
    assert_eq!(fleet.unit("task").unwrap()["state"], "done");
    let history = fleet.run("history", &["app", "--json"]);
    assert!(history.stdout.contains("stopped by an operator"), "{history:?}");
}
