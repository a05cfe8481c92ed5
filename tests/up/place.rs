//! The runtime directory, or a part of it, is removed or moved away while a supervisor runs.

use crate::scene::{Scene, daemon};
use crate::support::fleet::Fleet;
use crate::support::{SIGCONT, SIGSTOP, process_state, signal, wait_until};
use handoff::sys::lock::LockFile;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

fn wait_for_files(scene: &Scene, names: &[&str]) {
    let run = scene.place.path("run");
    wait_until(&format!("{names:?} are there: {}", scene.stderr()), || {
        names.iter().all(|name| fs::symlink_metadata(run.join(name)).is_ok()).then_some(())
    });
}

/// After kill -9 the next one takes over these, and starts none of them again.
fn is_taken_over(scene: &mut Scene, names: &[&str]) {
    let pids: Vec<i32> = names.iter().map(|name| scene.pid(name)).collect();
    scene.kill();
    scene.launch();
    scene.all_run(names);
    assert_eq!(names.iter().map(|name| scene.pid(name)).collect::<Vec<_>>(), pids, "{}", scene.stderr());
    assert_eq!(scene.log().iter().filter(|line| line.ends_with("starts")).count(), names.len(), "{:?}", scene.log());
    assert_eq!(scene.stop(), 0);
}

#[test]
fn one_that_is_moved_away_is_made_anew() {
    let mut scene = Scene::up(&(daemon("a", "") + &daemon("b", "")));
    scene.all_run(&["a", "b"]);
    fs::rename(scene.place.path("run"), scene.place.path("away")).unwrap();
    wait_for_files(
        &scene,
        &["kv.lock", "kv.sock", "kv.state", "a.lock", "a.journal", "a.unit", "a.notify", "a.history"],
    );
    wait_until("it is told", || {
        scene.stderr().contains("its runtime directory was removed while it ran").then_some(())
    });
    is_taken_over(&mut scene, &["a", "b"]);
}

#[test]
fn files_of_one_unit_alone_are_made_anew() {
    let mut scene = Scene::up(&(daemon("a", "") + &daemon("b", "")));
    scene.all_run(&["a", "b"]);
    let files = ["a.journal", "a.lock", "a.unit", "a.notify", "kv.state", "kv.lock"];
    files.iter().for_each(|file| fs::remove_file(scene.place.path("run").join(file)).unwrap());
    wait_for_files(&scene, &files);
    wait_until("it is told", || {
        scene.stderr().contains("its lock was removed while it ran, and was made anew").then_some(())
    });
    fs::rename(scene.place.path("run/b.journal"), scene.place.path("run/c")).unwrap();
    wait_for_files(&scene, &["b.journal"]);
    wait_until("it is told", || scene.stderr().contains("what it keeps of b was removed").then_some(()));
    is_taken_over(&mut scene, &["a", "b"]);
}

#[test]
fn what_it_removes_itself_is_nobodys_loss() {
    let mut scene = Scene::up(&(daemon("a", "") + &daemon("b", "")));
    scene.all_run(&["a", "b"]);
    scene.run("stop", &["a"]).expect(0, &[]);
    scene.run("start", &["a"]).expect(0, &[]);
    scene.write(&daemon("b", ""));
    scene.run("reload", &[]).expect(0, &[]);
    // It looks after a while, in which another loss is seen, too.
    fs::remove_file(scene.place.path("run/b.journal")).unwrap();
    wait_until("it has looked", || scene.stderr().contains("what it keeps of b was removed").then_some(()));
    assert_eq!(scene.stderr().matches("was removed while it ran").count(), 1, "{}", scene.stderr());
    assert_eq!(scene.stop(), 0);
}

#[test]
fn a_unit_that_can_not_be_locked_again_keeps_nothing_from_the_others() {
    let mut scene = Scene::up(&(daemon("a", "") + &daemon("b", "")));
    scene.all_run(&["a", "b"]);
    let run = scene.place.path("run");
    stopped(&scene, || {
        fs::remove_dir_all(&run).unwrap();
        fs::create_dir(&run).unwrap();
    });
    let stranger = LockFile::open(&run.join("a.lock")).unwrap();
    let has_it = stranger.try_lock().unwrap();
    wait_for_files(&scene, &["kv.lock", "kv.sock", "a.journal", "b.lock", "b.journal"]);
    if has_it {
        wait_until("it is told", || {
            scene.stderr().contains("can not be made anew: a supervisor named 'a'").then_some(())
        });
        assert!(!scene.stderr().contains("no command gets through"), "{}", scene.stderr());
        scene.run("status", &[]).expect(0, &["running"]);
    }
    drop(stranger);
    wait_until("it is told", || scene.stderr().contains("and was made anew").then_some(()));
    is_taken_over(&mut scene, &["a", "b"]);
}

/// While the supervisor does nothing.
fn stopped(scene: &Scene, act: impl FnOnce()) {
    signal(scene.supervisor(), SIGSTOP);
    wait_until("it stands still", || (process_state(scene.supervisor()) == Some('T')).then_some(()));
    act();
    signal(scene.supervisor(), SIGCONT);
}

#[test]
fn a_supervisor_of_another_name_does_not_run_them_too() {
    let mut scene = Scene::up(&daemon("a", ""));
    scene.all_run(&["a"]);
    stopped(&scene, || {
        fs::remove_file(scene.place.path("run/a.lock")).unwrap();
        fs::remove_file(scene.place.path("run/a.journal")).unwrap();
        let mut other = Command::new("timeout");
        other.args(["60", env!("CARGO_BIN_EXE_handoff"), "up", "--name", "other", "-c"]).arg(scene.config());
        let other = other.arg("--runtime-dir").arg(scene.place.path("run")).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(other.stderr).unwrap();
        assert_eq!(other.status.code(), Some(125), "{said}");
        let who = format!("process {} (", scene.supervisor());
        assert!(said.contains(&who) && said.contains("runs the unit of") && said.contains("a.lock"), "{said}");
    });
    wait_for_files(&scene, &["a.lock", "a.journal"]);
    is_taken_over(&mut scene, &["a"]);
}

#[test]
fn that_no_command_gets_through_is_only_said_if_it_is_true() {
    let place = Scene::place(&daemon("a", ""));
    let socket = place.place.path("socket");
    let mut scene = place;
    scene.begin_launch(&["--socket", socket.to_str().unwrap()]);
    wait_until("it runs", || scene.stderr().contains("a: process ").then_some(()));
    let run = scene.place.path("run");
    stopped(&scene, || {
        fs::remove_dir_all(&run).unwrap();
        fs::write(&run, "").unwrap();
    });
    wait_until("it is told", || scene.stderr().contains("and can not be made anew").then_some(()));
    assert!(scene.stderr().contains("it is tried again\n"), "{}", scene.stderr());
    fs::remove_file(&run).unwrap();
    wait_until("it is told", || scene.stderr().contains("and was made anew").then_some(()));
    assert!(Path::new(&run).join("a.journal").exists());
    assert_eq!(scene.stop(), 0);
}

#[test]
fn a_daemon_without_its_gate_is_not_replaced_until_a_restart() {
    let mut fleet = Fleet::place();
    fleet.configure(&format!("[unit.a]\n{}", fleet.acts("a", "linked")));
    fleet.launch();
    fleet.wait_for("a", "running");
    fleet.run("doctor", &["a"]).expect(0, &["it links libhandoff"]);
    fs::remove_dir_all(fleet.path("run")).unwrap();
    wait_until("it is told", || fleet.log().contains("only a restart makes the locks of a anew").then_some(()));
    let gate = fleet.path("run/a.control.gate").display().to_string();
    fleet.run("upgrade", &["a"]).expect(13, &[&gate, "was removed while the daemon runs"]);
    assert_eq!(fleet.starts("a").len(), 1, "nothing was started for it");
    fleet.run("status", &["a"]).expect(0, &["refused until a restart", &gate]);
    fleet.run("doctor", &["a"]).expect(1, &["every upgrade is refused", &gate]);
    fleet.run("restart", &["a"]).expect(0, &[]);
    assert_eq!(fleet.starts("a").len(), 2);
    fleet.run("upgrade", &["a"]).expect(0, &["committed"]);
    fleet.run("shutdown", &[]).expect(0, &[]);
    assert_eq!(fleet.wait_for_end(), Some(0));
}
