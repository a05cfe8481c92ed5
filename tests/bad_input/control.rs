//! The places where supervisors, daemons and commands meet: control paths, and the runtime directory.

use crate::harness::{Running, Said, Scene, files, names, run, run_store};
use crate::support::load::{Load, LoadOptions, verify};
use crate::support::{Service, programs};
use handoff::sys::control::living_owner;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::unistd::geteuid;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::lchown;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

pub const NOBODY: u32 = 65534;

/// A Unix socket of this process, alive as long as the descriptor.
fn foreign_socket(path: &Path, kind: SockType) -> OwnedFd {
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    if kind != SockType::Datagram {
        listen(&fd, Backlog::new(16).unwrap()).unwrap();
    }
    fd
}

/// This needs root; without, it is said aloud, and an error where everything must be tested.
pub fn can_chown() -> bool {
    if !geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "not root, and CI=true");
        eprintln!("SKIPPED: only root can give files to another user");
    }
    geteuid().is_root()
}

fn own_process() -> String {
    format!("process {} (", std::process::id())
}

/// The store, started directly with this control path, fails, and neither opens its data nor touches what is there.
fn store_fails(service: &Service, control: &Path, words: &[&str]) {
    let data = service.path("data");
    let before = files(&service.path("control"));
    let mut command = service.other_command(&programs().kv_a);
    let said = run(command.arg(&data).env("HANDOFF_CONTROL", control));
    said.expect(1, &[&[control.to_str().unwrap()], words].concat());
    once_said(&said);
    assert!(!data.join("kv.log").exists(), "the data was opened: {said:?}");
    assert_eq!(files(&service.path("control")), before);
}

/// One line beside the address that the store has bound for itself.
fn once_said(said: &Said) {
    let lines = said.stderr.lines().filter(|line| !line.starts_with("kv: listening on "));
    assert_eq!(lines.count(), 1, "{said:?}");
}

#[test]
fn a_path_that_can_not_be_had() {
    let service = Service::place();
    let dir = service.path("control");
    fs::create_dir(&dir).unwrap();
    let fails = |path: &Path, words: &[&str]| store_fails(&service, path, words);
    fails(&dir.join("x".repeat(120)), &["is too long", "107", "choose a shorter directory"]);
    fails(&dir.join("none/kv.control"), &["does not exist; create it"]);
    assert!(!dir.join("none").exists());

    let file = dir.join("file");
    fs::write(&file, "precious").unwrap();
    fails(&file, &["exists and is not a socket", "remove it or choose another path"]);
    fails(&dir, &["exists and is not a socket"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_path_of_another_user() {
    if !can_chown() {
        return;
    }
    let service = Service::place();
    fs::create_dir(service.path("control")).unwrap();
    let path = service.path("control/socket");
    drop(foreign_socket(&path, SockType::SeqPacket));
    lchown(&path, Some(NOBODY), None).unwrap();
    store_fails(&service, &path, &["belongs to user 65534", "remove it or choose another path"]);
}

#[test]
fn a_path_on_which_a_stranger_listens() {
    let service = Service::place();
    fs::create_dir(service.path("control")).unwrap();
    for kind in [SockType::SeqPacket, SockType::Stream] {
        let path = service.path(&format!("control/{kind:?}"));
        let _alive = foreign_socket(&path, kind);
        store_fails(&service, &path, &[&own_process(), "listens on control path", "stop it, or choose another path"]);
    }
    let path = service.path("control/datagram");
    let _alive = foreign_socket(&path, SockType::Datagram);
    store_fails(&service, &path, &["another kind of socket", "find and stop it", "choose another path"]);
}

#[test]
fn a_socket_that_nobody_listens_on_is_no_obstacle() {
    let service = Service::place();
    for kind in [SockType::SeqPacket, SockType::Stream, SockType::Datagram] {
        let path = service.path(&format!("{kind:?}"));
        drop(foreign_socket(&path, kind));
        let before = fs::metadata(&path).unwrap();
        let mut command = service.other_command(&programs().kv_a);
        command.arg(service.path("data")).env("HANDOFF_CONTROL", &path).stderr(Stdio::null());
        let _store = Running(command.spawn().unwrap());
        crate::support::wait_until("another socket", || {
            let found = fs::metadata(&path).ok()?;
            use std::os::unix::fs::MetadataExt;
            (found.ino() != before.ino()).then_some(())
        });
    }
}

#[test]
fn a_runtime_directory_that_can_not_be_used() {
    let service = Service::place();
    let data = service.path("data");
    let start = |runtime: &Path, arguments: &[&str]| run_store(&service, runtime, &data, arguments);
    let long = service.path(&"x".repeat(100));
    start(&long, &[]).expect_line(125, &[long.to_str().unwrap(), "File name too long", "107 bytes at most"]);
    let file = service.path("file");
    fs::write(&file, "").unwrap();
    start(&file, &[]).expect_line(125, &[file.to_str().unwrap(), "not a directory", "--runtime-dir"]);
    let below = file.join("run");
    start(&below, &[]).expect_line(125, &[below.to_str().unwrap(), "Not a directory"]);

    let runtime = service.path("run");
    let socket = service.path("none/x.sock");
    let at = ["--socket", socket.to_str().unwrap()];
    start(&runtime, &at).expect_line(125, &[at[1], "No such file", "create the directory first"]);
    start(&runtime, &["--socket", file.to_str().unwrap()])
        .expect_line(125, &["/file exists", "not a socket", "remove it"]);
    let socket = runtime.join("other.sock");
    let alive = foreign_socket(&socket, SockType::Stream);
    let holder = format!("process {}", std::process::id());
    start(&runtime, &[]).expect_line(125, &[socket.to_str().unwrap(), "in use", &holder, "stop that process"]);
    drop(alive);
    assert_eq!(names(&data), Vec::<String>::new());
    if can_chown() {
        lchown(&runtime, Some(NOBODY), None).unwrap();
        start(&runtime, &[]).expect_line(125, &[runtime.to_str().unwrap(), "belongs to user 65534", "--runtime-dir"]);
    }
    assert_eq!(names(&data), Vec::<String>::new());
}

#[test]
fn a_stranger_on_the_daemons_control_path_ends_a_first_start() {
    let service = Service::place();
    let (runtime, data) = (service.path("run"), service.path("data"));
    fs::create_dir(&runtime).unwrap();
    let path = runtime.join("other.control");
    let _alive = foreign_socket(&path, SockType::SeqPacket);
    let before = files(&runtime)[&path];
    let mut said = run_store(&service, &runtime, &data, &[]);
    // First what it waits for, for a while.
    let (waits, rest) = said.stderr.split_once('\n').unwrap();
    assert!(
        waits.contains(&own_process()) && waits.contains("listens at the control path, and does not answer"),
        "{waits}"
    );
    said.stderr = rest.to_owned();
    let words = [path.to_str().unwrap(), &own_process(), "does not answer", "stop it, or choose another path"];
    said.expect_line(125, &words);
    assert_eq!(files(&runtime)[&path], before);
    assert!(!data.join("kv.log").exists());
}

#[test]
fn an_upgrade_takes_no_control_path_that_is_not_the_incumbents() {
    let scene = Scene::new();
    let path = scene.path("run/kv.control");
    let fails = |words: &[&str]| {
        let before = files(&scene.path("run"))[&path];
        let words = [&[path.to_str().unwrap()], words].concat();
        scene.upgrade_fails(&programs().kv_b, 10, "rolled back", &words);
        assert_eq!(files(&scene.path("run"))[&path], before);
        fs::remove_file(&path).unwrap();
    };
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    fails(&["exists and is not a socket", "remove it"]);
    let alive = foreign_socket(&path, SockType::SeqPacket);
    fails(&[&own_process(), "stop it"]);
    drop(alive);
    if can_chown() {
        drop(foreign_socket(&path, SockType::SeqPacket));
        lchown(&path, Some(NOBODY), None).unwrap();
        fails(&["belongs to user 65534"]);
    }
    // What nobody listens on is replaced, and what is missing is made.
    drop(foreign_socket(&path, SockType::SeqPacket));
    scene.next_commits();
}

#[test]
fn a_runtime_directory_that_was_removed_refuses_the_upgrade() {
    let mut service = Service::place();
    service.socket = Some(service.path("kv.sock"));
    service.launch(&programs().kv_a, &[]);
    let scene = Scene::of(service);
    let runtime = scene.path("run");
    let files = names(&runtime);
    fs::rename(&runtime, scene.path("moved")).unwrap();
    scene.upgrade_fails(&programs().kv_b, 13, "refused", &["/run/kv.", ".page: No such file", "create its directory"]);
    fs::rename(scene.path("moved"), &runtime).unwrap();
    assert_eq!(names(&runtime), files);
    scene.next_commits();
}

/// What somebody does to a path, one after the other, without end.
fn fight_for(path: &Path, stop: &AtomicBool) -> usize {
    let beside = path.with_extension("stranger");
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        rounds += 1;
        let _ = fs::remove_file(&beside);
        let alive = match rounds % 6 {
            0 | 1 => Some(foreign_socket(&beside, SockType::SeqPacket)),
            2 => Some(foreign_socket(&beside, SockType::Stream)),
            3 => fs::write(&beside, "precious").map(|()| None).unwrap(),
            4 => std::os::unix::fs::symlink("/nonexistent", &beside).map(|()| None).unwrap(),
            _ => None, // the path is only taken away
        };
        let _ = if beside.symlink_metadata().is_ok() { fs::rename(&beside, path) } else { fs::remove_file(path) };
        std::thread::sleep(std::time::Duration::from_micros(rounds as u64 % 7 * 300));
        let _ = fs::remove_file(path);
        drop(alive);
    }
    rounds
}

#[test]
fn a_stranger_that_fights_for_the_control_path_during_upgrades() {
    let scene = Scene::new();
    let service = &scene.service;
    let path = scene.path("run/kv.control");
    let load = Load::start(LoadOptions { clients: 4, ..LoadOptions::new(service.address) });
    let stop = AtomicBool::new(false);
    let mut results = std::collections::BTreeMap::<String, usize>::new();
    let mut server = scene.pid;
    let rounds = std::thread::scope(|scope| {
        let stranger = scope.spawn(|| fight_for(&path, &stop));
        let ends = StopWhenDropped(&stop);
        for round in 0..40 {
            let upgrade = service.upgrade(&programs().kv_b, &[]);
            *results.entry(upgrade.result.clone()).or_default() += 1;
            match upgrade.result.as_str() {
                "committed" => server = upgrade.outcome["pid"].as_i64().unwrap() as i32,
                "rolled_back" | "refused" => assert!(upgrade.reason.contains("control path"), "{upgrade:?}"),
                _ => panic!("round {round}: {upgrade:?}"),
            }
            assert_eq!(service.ping().map(|(pid, _)| pid), Some(server), "round {round}: {upgrade:?}");
        }
        drop(ends);
        stranger.join().unwrap()
    });
    assert!(rounds > 100, "{rounds}");
    let report = load.stop();
    assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()), "{results:?}");
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
    // In peace the path belongs to the next one, and the one before is gone.
    let next = service.upgrade(&programs().kv_b, &[]);
    assert_eq!(next.result, "committed", "{next:?}");
    let owner = living_owner(&path).unwrap().unwrap();
    assert_eq!(i64::from(owner.pid), next.outcome["pid"].as_i64().unwrap());
    crate::support::wait_for_death(server);
    assert_eq!(service.daemons().len(), 1);
    let log = service.stderr();
    assert!(!log.contains("panicked"), "{log}");
    // The supervisor removes them when it buries whoever made them.
    let temporary = |name: &String| name.contains(".control.");
    crate::support::wait_until("no temporary names", || {
        (!names(&scene.path("run")).iter().any(temporary)).then_some(())
    });
    println!("{rounds} rounds of the stranger: {results:?}");
}

/// Ends the stranger also when an assertion fails.
struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
