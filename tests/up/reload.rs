//! Another configuration, good or bad.

use crate::scene::{Scene, daemon};
use crate::support::copy::copy_program;
use crate::support::fleet::listening;
use crate::support::{programs, wait_until};
use serde_json::json;
use std::io::Read;
use std::path::Path;

#[test]
fn new_units_start_old_ones_stop_and_changed_ones_are_stale() {
    let scene = Scene::up(
        &(daemon("old", "") + &daemon("kept", "") + &daemon("changed", "") + &daemon("idle", "autostart = false")),
    );
    scene.all_run(&["old", "kept", "changed"]);
    let pids = ["kept", "changed"].map(|name| scene.pid(name));
    scene.run("stop", &["idle"]).expect(0, &[]);
    scene.write(
        &(daemon("new", "requires = ['kept']")
            + &daemon("lazy", "autostart = false")
            + &daemon("kept", "after = ['changed']")
            + &daemon("changed", "env = { A = '1' }")
            + &daemon("idle", "")),
    );
    let plan = scene.run("reload", &["--dry-run"]);
    plan.expect(0, &["new: added: starts", "lazy: added: stays stopped", "old: removed: stops", "nothing was done"]);
    plan.expect(0, &["kept: changed (after): takes effect", "changed: changed (env): runs as before until"]);
    assert_eq!(scene.unit("old")["state"], "running");
    let answer = scene.run("reload", &["--json"]).json();
    assert_eq!((&answer["applied"], &answer["faults"]), (&json!(true), &json!([])));
    scene.wait_for("new", "running");
    wait_until("it is gone", || scene.status().iter().all(|unit| unit["name"] != "old").then_some(()));
    assert!(scene.log().contains(&"old stops".to_owned()));
    assert_eq!(["kept", "changed"].map(|name| scene.pid(name)), pids);
    assert_eq!(scene.unit("changed")["stale"], json!(["env"]));
    scene.run("status", &[]).expect(0, &["running (stale)"]);
    scene.run("status", &["changed"]).expect(0, &["stale      env: it runs as before"]);
    scene.run("why", &["changed"]).expect(0, &["stale      env: it runs as before"]);
    assert_eq!(scene.unit("kept")["stale"], json!([]));
    assert_eq!(scene.unit("lazy")["state"], "stopped");
    // An operator has stopped it, and that it would start with the supervisor now changes nothing.
    assert_eq!(
        (&scene.unit("idle")["state"], &scene.unit("idle")["why"]),
        (&json!("stopped"), &json!("stopped by an operator"))
    );
    scene.run("restart", &["changed"]).expect(0, &[]);
    assert_eq!(scene.unit("changed")["stale"], json!([]));
    let environ = std::fs::read(format!("/proc/{}/environ", scene.pid("changed"))).unwrap();
    assert!(environ.split(|byte| *byte == 0).any(|entry| entry == b"A=1"));
}

#[test]
fn a_bad_configuration_keeps_the_old_one_and_tells_all_faults() {
    let mut scene = Scene::up(&daemon("a", ""));
    let pid = scene.wait_for("a", "running")["pid"].clone();
    scene.write(&(daemon("b", "requires = ['nobody']\nflies = true") + "[unit.c]\n"));
    let said = scene.run("reload", &[]);
    said.expect(1, &["units.toml:", "nobody", "flies", "exec", "the units of before stay"]);
    assert_eq!(scene.status().len(), 1);
    std::fs::remove_file(scene.config()).unwrap();
    scene.run("reload", &[]).expect(1, &["units.toml", "nothing was changed"]);
    // SIGHUP does the same, and never kills.
    crate::support::signal(scene.supervisor(), 1);
    wait_until("it is said", || scene.stderr().contains("nothing was changed").then_some(()));
    assert_eq!(scene.unit("a")["pid"], pid);
    scene.write(&(daemon("a", "") + &daemon("b", "")));
    crate::support::signal(scene.supervisor(), 1);
    scene.wait_for("b", "running");
    assert_eq!(scene.unit("a")["pid"], pid);
    assert_eq!(scene.stop(), 0);
}

/// The new one has the address of the old one, which has to stop first.
#[test]
fn a_unit_that_is_renamed_is_stopped_and_started() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let unit = |name: &str| {
        format!(
            "[unit.{name}]\nexec = ['sleep', '1000']\nmode = 'none'\nready = 'delay=10ms'\nlisten = ['x=127.0.0.1:{port}']\n"
        )
    };
    let scene = Scene::up(&(unit("before") + &daemon("user", "requires = ['before']")));
    scene.wait_for("user", "running");
    // Nobody accepts it: it stays in the queue of the socket, which is never closed.
    let mut waiting = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let inode = || listening().into_iter().find(|(found, _)| *found == port).unwrap().1;
    let socket = inode();
    scene.write(&(unit("after") + &daemon("user", "requires = ['after']")));
    scene.run("reload", &[]).expect(0, &["before: removed: stops", "after: added: starts"]);
    let after = scene.wait_for("after", "running");
    assert_eq!(after["listeners"][0]["address"], json!(format!("127.0.0.1:{port}")));
    assert!(scene.status().iter().all(|unit| unit["name"] != "before"));
    scene.wait_for("user", "running");
    assert_eq!(inode(), socket);
    waiting.set_nonblocking(true).unwrap();
    assert_eq!(waiting.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// What was wrong with a unit may be mended; it starts by itself then.
#[test]
fn a_unit_that_failed_is_tried_again_when_it_has_changed() {
    let scene = Scene::up(&(daemon("a", "dir = '/no/such'\nrestart = 'never'") + &daemon("b", "requires = ['a']")));
    scene.wait_for("a", "failed");
    scene.wait_for("b", "blocked");
    scene.write(&(daemon("a", "") + &daemon("b", "requires = ['a']")));
    scene.run("reload", &[]).expect(0, &["a: changed (dir, restart): takes effect"]);
    scene.wait_for("b", "running");
}

/// What a unit that is stopped has bound is free when it does not want it any more.
#[test]
fn an_address_moves_from_a_stopped_unit_to_a_new_one() {
    let ports = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [one, two] = ports.map(|port| port.local_addr().unwrap());
    let unit = |name: &str, address, autostart: bool| {
        format!(
            "[unit.{name}]\nexec = ['sleep', '1000']\nmode = 'none'\nready = 'delay=10ms'\nlisten = ['x={address}']\nautostart = {autostart}\n"
        )
    };
    let scene = Scene::up(&(unit("idle", one, false) + &daemon("a", "")));
    scene.wait_for("a", "running");
    assert_eq!(scene.unit("idle")["listeners"][0]["address"], json!(one.to_string()));
    scene.write(&(unit("idle", two, false) + &unit("new", one, true)));
    scene.run("reload", &[]).expect(0, &["idle: changed (listen): takes effect"]);
    scene.wait_for("new", "running");
    assert_eq!(scene.unit("idle")["listeners"][0]["address"], json!(two.to_string()));
}

/// After a way back the program of before is pinned against what its path leads to, and not against the file of units.
#[test]
fn what_the_file_says_is_started_also_after_a_way_back() {
    let mut scene = Scene::place("");
    let library = programs().kv_a.with_file_name("libhandoff.so.0");
    std::os::unix::fs::symlink(library, scene.place.path("libhandoff.so.0")).unwrap();
    let [one, two, three] = ["one", "two", "three"].map(|name| {
        copy_program(&programs().kv_a, scene.place.path(name));
        scene.place.path(name)
    });
    let data = scene.place.path("data");
    let unit = |program: &Path, keys: &str| {
        format!("[unit.kv]\nexec = [{program:?}]\nlisten = ['kv=127.0.0.1:0']\ndata_dir = {data:?}\n{keys}\n")
    };
    scene.write(&unit(&one, ""));
    scene.launch();
    scene.wait_for("kv", "running");
    let runs = |program: &Path| {
        let executed = std::fs::read_link(format!("/proc/{}/exe", scene.pid("kv"))).unwrap();
        assert_eq!(executed, program);
    };
    for program in [&two, &three] {
        scene.run("upgrade", &["kv", "--binary", program.to_str().unwrap()]).expect(0, &["committed"]);
    }
    scene.run("rollback", &["kv"]).expect(0, &["committed"]);
    // Not a word of the program: it is the one that was gone back to.
    scene.run("stop", &["kv"]).expect(0, &[]);
    scene.write(&unit(&one, "env = { A = '1' }"));
    scene.run("reload", &[]).expect(0, &["kv: changed (env): takes effect"]);
    scene.run("start", &["kv"]).expect(0, &[]);
    runs(&two);
    // An upgrade to the file's program that comes to nothing leaves it at that, too.
    scene.write(&unit(Path::new("/bin/false"), ""));
    scene.run("reload", &[]).expect(0, &["kv: changed (exec, env): runs as before"]);
    scene.run("upgrade", &["kv"]).expect(10, &[]);
    let before = scene.pid("kv");
    crate::support::signal(before, 9);
    wait_until("it is started again", || scene.unit("kv")["pid"].as_i64().filter(|pid| *pid != i64::from(before)));
    scene.wait_for("kv", "running");
    runs(&two);
    scene.run("stop", &["kv"]).expect(0, &[]);
    scene.write(&unit(&three, ""));
    scene.run("reload", &[]).expect(0, &["kv: changed (exec): takes effect"]);
    scene.run("start", &["kv"]).expect(0, &[]);
    runs(&three);
    assert_eq!(scene.unit("kv")["program"], json!(three));
}

/// Both run on, which is said; but neither is started again beside the other one.
#[test]
fn a_conflict_between_two_that_run_keeps_each_from_another_start() {
    let backoff = "backoff = { first = '1ms' }";
    let scene = Scene::up(&(daemon("a", backoff) + &daemon("b", &format!("autostart = false\n{backoff}"))));
    scene.run("start", &["b"]).expect(0, &[]);
    scene.wait_for("a", "running");
    scene.write(&(daemon("a", backoff) + &daemon("b", &format!("autostart = false\nconflicts = ['a']\n{backoff}"))));
    scene.run("reload", &[]).expect(0, &["b: changed (conflicts): runs on beside one that conflicts"]);
    scene.run("why", &["a"]).expect(0, &["runs beside: b"]);
    scene.run("status", &[]).expect(0, &["runs beside: a", "runs beside: b"]);
    scene.run("kill", &["b", "KILL"]).expect(0, &[]);
    scene.wait_for("b", "blocked");
    scene.run("why", &["b"]).expect(0, &["a must not run beside it"]);
    assert!(!scene.run("why", &["a"]).out.contains("beside"));
    let starts = || scene.log().iter().filter(|line| *line == "b starts").count();
    assert_eq!(starts(), 1);
    // Nothing is in its way any more.
    scene.run("stop", &["a"]).expect(0, &[]);
    scene.wait_for("b", "running");
    assert_eq!(starts(), 2);
}
