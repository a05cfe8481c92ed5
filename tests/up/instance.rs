//! The name of a supervisor: who has it, and when it is free.

use crate::scene::{Scene, daemon};
use crate::support::wait_until;
use handoff::sys::pidfd::Pidfd;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// The number of a descriptor of a process, by what /proc says that it is.
fn number_of(pid: i32, what: &str) -> Option<i32> {
    let mut all = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    all.find_map(|entry| {
        let is_it = fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == what);
        is_it.then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    })
}

/// A duplicate of it, as a child has it between clone(2) and execve(2).
fn copy(pid: i32, what: &str) -> OwnedFd {
    Pidfd::open(pid).unwrap().descriptor(number_of(pid, what).unwrap()).unwrap()
}

/// How /proc calls a Unix socket that listens here.
fn socket_at(path: &Path) -> String {
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    // Connections that were accepted have the same name.
    let listens = |line: &&str| line.contains(" 00010000 ") && line.ends_with(path.to_str().unwrap());
    let line = table.lines().find(listens).unwrap();
    format!("socket:[{}]", line.split_whitespace().nth(6).unwrap())
}

#[test]
fn what_a_child_of_a_dead_one_has_until_its_exec_is_waited_for() {
    let mut scene = Scene::up(&daemon("a", ""));
    scene.all_run(&["a"]);
    let daemon = scene.pid("a");
    let (lock, socket) = (scene.place.path("run/kv.lock"), scene.place.path("run/kv.sock"));
    let lock = lock.to_str().unwrap();
    let copies = (copy(scene.supervisor(), lock), copy(scene.supervisor(), &socket_at(&socket)));
    scene.kill();
    scene.begin_launch(&[]);
    wait_until("it has seen the lock", || number_of(scene.supervisor(), lock));
    drop(copies.0);
    // Whether there is somebody it sees by a connection.
    let listener = UnixListener::from(copies.1);
    wait_until("it looks", || listener.accept().ok());
    drop(listener);
    scene.wait_for_answer();
    assert_eq!((scene.pid("a"), scene.stderr().matches("adopted").count()), (daemon, 1), "{}", scene.stderr());
    assert_eq!(scene.stop(), 0);
}

#[test]
fn a_runtime_directory_that_is_removed_is_made_anew_and_nothing_runs_twice() {
    let mut scene = Scene::up(&(daemon("a", "") + &daemon("off", "")));
    scene.all_run(&["a", "off"]);
    scene.run("stop", &["off"]).expect(0, &[]);
    let (pid, run) = (scene.pid("a"), scene.place.path("run"));
    for _ in 0..2 {
        fs::remove_dir_all(&run).unwrap();
        // At once, and whenever.
        let second = scene.run("up", &["-c", scene.config().to_str().unwrap()]);
        second.expect(125, &["runs already", &format!("process {}", scene.supervisor())]);
        wait_until("it answers", || (scene.run("status", &[]).code == 0).then_some(()));
    }
    assert_eq!(scene.stderr().matches("its runtime directory was removed").count(), 2, "{}", scene.stderr());
    fs::remove_file(run.join("kv.sock")).unwrap();
    wait_until("it answers", || (scene.run("status", &[]).code == 0).then_some(()));
    assert_eq!(scene.pid("a"), pid);
    // All that the next one needs is there.
    scene.kill();
    scene.launch();
    scene.all_run(&["a"]);
    assert_eq!((scene.pid("a"), &scene.unit("off")["state"]), (pid, &serde_json::json!("stopped")));
    assert_eq!(scene.log().iter().filter(|line| line.ends_with("starts")).count(), 2, "{:?}", scene.log());
    assert_eq!(scene.stop(), 0);
}

#[test]
fn a_removal_that_takes_its_time_leaves_everything_in_its_place() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut scene = Scene::up(&names.map(|name| daemon(name, "")).concat());
    scene.all_run(&names);
    let (pids, run) = (names.map(|name| scene.pid(name)), scene.place.path("run"));
    // Units last: their files are made anew before their turn comes.
    let mut files: Vec<_> = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path()).collect();
    let is_unit = |path: &Path| !path.file_name().unwrap().to_str().unwrap().starts_with("kv.");
    files.sort_by_key(|path| is_unit(path));
    let is_made_anew = |path: &&PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        ["lock", "journal", "unit", "state", "sock"].contains(&extension)
    };
    let before: Vec<PathBuf> = files.iter().filter(is_made_anew).cloned().collect();
    assert!(before.len() > 3 * names.len(), "{before:?}");
    for path in &before {
        let _ = fs::remove_file(path);
        sleep(Duration::from_millis(20));
    }
    let missing = || -> Vec<_> { before.iter().filter(|path| fs::symlink_metadata(path).is_err()).collect() };
    wait_until("all of them", || missing().is_empty().then_some(()));
    scene.kill();
    scene.launch();
    scene.all_run(&names);
    assert_eq!(names.map(|name| scene.pid(name)), pids);
    assert_eq!(scene.log().iter().filter(|line| line.ends_with("starts")).count(), names.len(), "{:?}", scene.log());
    assert_eq!(scene.stop(), 0);
}

#[test]
fn a_path_with_a_link_in_it_is_the_same_directory() {
    let mut scene = Scene::up(&daemon("a", ""));
    scene.all_run(&["a"]);
    let (run, link) = (scene.place.path("run"), scene.place.path("link"));
    symlink(scene.place.path(""), &link).unwrap();
    fs::remove_dir_all(&run).unwrap();
    let mut second = Command::new(env!("CARGO_BIN_EXE_handoff"));
    let second =
        second.args(["up", "--name", "kv", "-c"]).arg(scene.config()).arg("--runtime-dir").arg(link.join("run"));
    let second = second.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(125), "{said}");
    assert!(said.contains(&format!("runs already: process {}", scene.supervisor())), "{said}");
    wait_until("it answers", || (scene.run("status", &[]).code == 0).then_some(()));
    assert_eq!(scene.stop(), 0);
}

#[test]
fn what_a_unit_is_can_be_written_down_later() {
    let mut scene = Scene::up(&daemon("a", ""));
    scene.all_run(&["a"]);
    let in_the_way = scene.place.path("run/a.unit.new");
    fs::create_dir(&in_the_way).unwrap();
    scene.run("stop", &["a"]).expect(0, &[]);
    scene.run("start", &["a"]).expect(0, &[]);
    assert_eq!(scene.stderr().matches("its state can not be written down").count(), 1, "{}", scene.stderr());
    fs::remove_dir(&in_the_way).unwrap();
    wait_until("it is", || scene.stderr().contains("a: its state is written down again").then_some(()));
    scene.kill();
    scene.launch();
    assert_eq!(scene.wait_for("a", "running")["generation"], 2);
    assert_eq!(scene.stop(), 0);
}
