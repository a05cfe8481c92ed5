//! A supervisor that was stopped for a while (SIGSTOP, a debugger, a freezer), and wakes: what happened meanwhile counts, and its own sleep
//! is nobody's fault.

use crate::support::fleet::Fleet;
use crate::support::{freeze, lives, thaw, wait_until};
use std::fs;
use std::time::Duration;

/// It says that it is alive ten times a second.
const ALIVE: &str = "
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ['NOTIFY_SOCKET'])
s.send(b'READY=1')
while True:
    s.send(b'WATCHDOG=1')
    time.sleep(0.1)
";

#[test]
fn a_supervisor_that_wakes_up_is_fair() {
    let mut fleet = Fleet::place();
    fs::write(fleet.path("alive.py"), ALIVE).unwrap();
    let script = fleet.path("alive.py").display().to_string();
    let alive = |name: &str| {
        format!(
            "[unit.{name}]\nexec = ['python3', '{script}']\nmode = 'none'\nready = 'notify'\nwatchdog = '4s'\nstop = ['TERM 100ms', 'KILL']\n"
        )
    };
    // It is ready, and ends well, and answers, while nobody looks; each of it would be late by the time of the waking.
    let slow = |name: &str, words: &str, keys: &str| {
        format!("[unit.{name}]\n{}{keys}\nautostart = false\nrestart = 'never'\n", fleet.acts(name, words))
    };
    let late = slow("late", "fd=9 ready_ms=700", "mode = 'none'\nready = 'fd=9'\nstart_timeout = '4s'");
    let task = slow("task", "exit=0 after_ms=700", "oneshot = true\nstart_timeout = '4s'");
    let asked = slow(
        "asked",
        "fd=9",
        "mode = 'none'\nready = 'fd=9'\nhealth = { exec = ['sleep', '0.7'], interval = '50ms', timeout = '4s', retries = 1 }",
    );
    let units = [alive("frozen"), alive("free"), late, task, asked].concat();
    fleet.configure(&units);
    fleet.launch();
    let pids = ["frozen", "free"].map(|name| fleet.wait_for(name, "running")["pid"].as_i64().unwrap() as i32);
    fleet.run("start", &["asked"]).expect(0, &[]);
    wait_until("it is well", || (fleet.unit("asked")?["health"]["state"] == "healthy").then_some(()));
    fleet.run("start", &["late", "task", "--no-wait"]).expect(0, &[]);
    wait_until("both run", || (fleet.starts("late").len() + fleet.starts("task").len() == 2).then_some(()));
    freeze(fleet.pid());
    freeze(pids[0]);
    // For longer than all of their times.
    std::thread::sleep(Duration::from_secs(5));
    let task = fleet.starts("task")[0];
    wait_until("its end, which nobody has seen", || (!lives(task)).then_some(()));
    thaw(fleet.pid());
    // It has looked at everybody by then, and the one still stands.
    assert_eq!(fleet.unit("frozen").unwrap()["pid"], pids[0], "{}", fleet.log());
    thaw(pids[0]);
    fleet.wait_for("late", "running");
    fleet.wait_for("task", "done");
    let units = fleet.status().unwrap();
    assert!(units.iter().all(|unit| unit["restarts"] == 0 && unit["cause"].is_null()), "{units:?}");
    let health = &units.iter().find(|unit| unit["name"] == "asked").unwrap()["health"];
    assert_eq!(health["state"], "healthy");
    assert_eq!(["frozen", "free"].map(|name| fleet.pid_of(name)), pids);
    // It is still watched.
    freeze(pids[1]);
    wait_until("it is ended", || (fleet.pid_of("free") != pids[1]).then_some(()));
    assert!(fleet.log().contains("watchdog: it did not say that it is alive for 4 s"), "{}", fleet.log());
}
