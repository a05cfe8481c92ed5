//! What a supervisor itself has not enough of: descriptors, processes. It is said, it is tried again, and nothing is lost by it.

use crate::support::fleet::Fleet;
use crate::support::{SIGKILL, open_descriptors, signal, wait_until};
use nix::unistd::geteuid;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;

/// A user of whom nobody else has a process.
const SOMEBODY: u32 = 54_721;

fn unit(fleet: &Fleet, name: &str, keys: &str) -> String {
    let backoff = "backoff = { first = '20ms', max = '100ms' }\nrestart_limit = { count = 10000 }";
    format!("[unit.{name}]\n{}mode = 'none'\nready = 'fd=9'\n{backoff}\n{keys}\n", fleet.acts(name, "fd=9"))
}

/// The limit is on the numbers of descriptors. The soft one alone is raised again when a process dies.
fn leave_room(pid: i32, room: usize) {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let open: BTreeSet<u64> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let limit = (0..).filter(|number| !open.contains(number)).nth(room).unwrap();
    let mut command = Command::new("prlimit");
    let done = command.args(["--pid", &pid.to_string(), &format!("--nofile={limit}:{limit}")]).status();
    assert!(done.unwrap().success());
}

#[test]
fn no_descriptors() {
    let mut fleet = Fleet::place();
    let units = [unit(&fleet, "app", ""), unit(&fleet, "other", ""), unit(&fleet, "more", "autostart = false")];
    fleet.configure(&units.concat());
    fleet.launch();
    let [app, other] = ["app", "other"].map(|name| fleet.wait_for(name, "running")["pid"].as_i64().unwrap() as i32);
    let open = wait_until("a number that stands", || {
        let before = open_descriptors(fleet.pid());
        std::thread::sleep(std::time::Duration::from_millis(50));
        (before == open_descriptors(fleet.pid())).then_some(before)
    });
    let client = || UnixStream::connect(fleet.path("run/main.sock")).unwrap();
    let mut clients: Vec<UnixStream> = (0..30).map(|_| client()).collect();
    wait_until("they are heard", || (open_descriptors(fleet.pid()) >= open + clients.len()).then_some(()));
    // Enough for a command, and not for a process.
    leave_room(fleet.pid(), 2);
    let said = fleet.run("start", &["more"]);
    said.expect(1, &["more: waiting", "Too many open files", "it is started again by itself"]);
    fleet.run("why", &["more"]).expect(0, &["Too many open files"]);
    // Not even enough for a command: it waits, and is heard when there is room. What a process has had is not enough for all these.
    clients.extend((0..100).map(|_| client()));
    signal(app, SIGKILL);
    wait_until("it is missed", || fleet.log().contains("app: killed by signal 9").then_some(()));
    fleet.run("status", &["--timeout", "300ms"]).expect(5, &["timed out"]);
    let mut waiting = fleet.command("stop").arg("other").spawn().unwrap();
    wait_until("it waits", || (fleet.log().matches("more: the daemon could not be started").count() > 2).then_some(()));
    assert!(waiting.try_wait().unwrap().is_none());
    drop(clients);
    assert_eq!(wait_until("its answer", || waiting.try_wait().unwrap()).code(), Some(0));
    crate::support::wait_for_death(other);
    ["app", "more"].iter().for_each(|name| drop(fleet.wait_for(name, "running")));
    fleet.run("start", &["other"]).expect(0, &[]);
    let mains: Vec<String> = fleet.actors().into_iter().map(|actor| actor.unit).collect();
    assert_eq!(mains.len(), 3, "{mains:?}");
    // Nothing of what failed is kept open: what is more is of one more unit.
    wait_until("no descriptor is left over", || (open_descriptors(fleet.pid()) <= open + 12).then_some(()));
}

/// Its user may have no more processes: a first start, too, is tried again.
#[test]
fn no_processes() {
    if !geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI=true, and this is not root");
        return eprintln!("SKIPPED: only root may become another user");
    }
    let keys = format!("user = '{SOMEBODY}'\ngroup = '{SOMEBODY}'\n");
    let sleeper = |name: &str, more: &str| {
        format!(
            "[unit.{name}]\nexec = ['sleep', '1000']\nmode = 'none'\nready = 'delay=10ms'\nbackoff = {{ max = '100ms' }}\n\
             restart_limit = {{ count = 10000 }}\n{keys}{more}\n"
        )
    };
    let limited = sleeper("limited", "rlimits = { nproc = 1 }\nautostart = false");
    let fleet = Fleet::start(&(sleeper("first", "") + &sleeper("second", "") + &limited));
    let pids = ["first", "second"].map(|name| fleet.wait_for(name, "running")["pid"].clone());
    let said = fleet.run("start", &["limited"]);
    said.expect(1, &["limited: waiting", "it is started again by itself"]);
    let why = fleet.run("why", &["limited"]).stdout;
    assert!(why.contains("RLIMIT_NPROC"), "{why}");
    assert_eq!(["first", "second"].map(|name| fleet.unit(name).unwrap()["pid"].clone()), pids);
    fleet.run("stop", &["first", "second"]).expect(0, &[]);
    fleet.wait_for("limited", "running");
}
