//! Data directories that are missing, read-only, or somebody else's.

use crate::harness::{Scene, names, run, run_store};
use crate::mounts::{Mounted, own_mounts};
use crate::support::{Service, freeze, programs, thaw, wait_until};
use nix::fcntl::{Flock, FlockArg};
use std::fs;

#[test]
fn missing_or_no_directory() {
    let service = Service::place();
    let (runtime, missing, file) = (service.path("run"), service.path("none/x"), service.path("file"));
    fs::write(&file, "").unwrap();
    let start = |data| run_store(&service, &runtime, data, &[]);
    start(&missing).expect_line(125, &[missing.to_str().unwrap(), "does not exist", "mkdir -p"]);
    start(&file).expect_line(125, &[file.to_str().unwrap(), "is not a directory"]);
    assert!(!runtime.exists() && !missing.exists());
    for (path, words) in [
        (&missing, "No such file or directory (os error 2); create it (mkdir -p)"),
        (&file, "is not a directory; choose"),
    ] {
        let said = run(service.other_command(&programs().kv_a).arg(path));
        said.expect_line(1, &[path.to_str().unwrap(), words]);
    }
    assert!(!missing.exists());
}

#[test]
fn read_only_at_a_start() {
    if !own_mounts() {
        return;
    }
    let service = Service::place();
    let (runtime, data) = (service.path("run"), service.path("data"));
    let _mounted = Mounted::read_only(&data);
    let said = run_store(&service, &runtime, &data, &[]);
    said.expect_line(125, &[data.to_str().unwrap(), "Read-only file system", "mount it writable"]);
    assert!(!runtime.exists());
    let said = run(service.other_command(&programs().kv_a).arg(&data));
    let lock = data.join(".handoff.gate");
    said.expect(1, &[lock.to_str().unwrap(), "Read-only file system", "mount it writable, or choose another"]);
    assert_eq!(names(&data), Vec::<String>::new());
}

#[test]
fn read_only_at_an_upgrade() {
    if !own_mounts() {
        return;
    }
    let scene = Scene::new();
    let data = scene.path("data");
    // Who has it open already goes on: the incumbent.
    let mounted = Mounted::read_only(&data);
    let lock = data.join(".handoff.lock");
    let words = [lock.to_str().unwrap(), "Read-only file system", "mount it writable"];
    scene.upgrade_fails(&programs().kv_b, 10, "rolled back", &words);
    drop(mounted);
    scene.next_commits();
}

/// Whoever starts beside it, in any way, is told who serves.
fn is_refused_beside(scene: &Scene, holder: i32) {
    let (runtime, data) = (scene.path("other"), scene.path("data"));
    let before = names(&data);
    let holder = format!("process {holder} (");
    let words = ["/.handoff.", " is locked by process ", &holder, "it serves this data already; stop it, or choose"];
    let said = run_store(&scene.service, &runtime, &data, &[]);
    said.expect(1, &words);
    assert!(said.stderr.contains("handoff: other: ended: exit status 1"), "{said:?}");
    assert_eq!(names(&runtime), ["other.history", "other.lock"]);
    run(scene.service.other_command(&programs().kv_a).arg(&data)).expect(1, &words);
    assert_eq!(names(&data), before);
}

#[test]
fn a_second_run_on_the_data_of_a_service_names_its_process() {
    let scene = Scene::new();
    is_refused_beside(&scene, scene.pid);
    scene.next_commits();
}

#[test]
fn a_second_run_in_the_midst_of_an_upgrade_names_the_successor() {
    let scene = Scene::new();
    let upgrading = scene.service.begin_upgrade(&scene.service.faulty("open-waits"), &[]);
    let successor = scene.service.successor_of(scene.pid);
    wait_until("the data is the successor's", || scene.path("data/opening").exists().then_some(()));
    is_refused_beside(&scene, successor);
    fs::remove_file(scene.path("data/opening")).unwrap();
    let upgrade = upgrading.wait();
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    assert_eq!(scene.service.wait_until_served(), successor);
}

#[test]
fn a_stranger_that_takes_the_lock_between_two_holders_is_named_and_the_incumbent_comes_back() {
    let scene = Scene::of(Service::start_faulty("slow-drain=2000,logs,gives-nothing"));
    let lock = scene.path("data/.handoff.lock");
    let open = || fs::OpenOptions::new().read(true).write(true).open(&lock).unwrap();
    // It waits in the kernel for the instant in which the incumbent unlocks, and so passes the gate.
    let waits = std::thread::spawn({
        let file = open();
        move || Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap()
    });
    let waiter = |line: &str| line.contains("->") && line.contains(&format!(" {} ", std::process::id()));
    let locks = || fs::read_to_string("/proc/locks").unwrap();
    wait_until("a stranger that waits", || locks().lines().any(waiter).then_some(()));
    let upgrading = scene.service.begin_upgrade(&programs().kv_b, &["--deadline", "600s"]);
    let successor = scene.service.successor_of(scene.pid);
    scene.service.wait_for_phase("draining");
    freeze(successor); // or it might be faster
    let held = waits.join().unwrap();
    thaw(successor);
    let stranger = format!("is locked by process {} (", std::process::id());
    let text = wait_until("the incumbent says why", || {
        let text = scene.service.stderr();
        text.contains("nobody serves until the lock is free").then_some(text)
    });
    assert!(text.contains(&stranger), "{text}");
    // As many attempts as there may be: said once.
    let before = scene.service.stderr().len();
    wait_until("the successor is gone", || (scene.service.daemons() == [scene.pid]).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!scene.service.stderr()[before..].contains("nobody serves until"), "{}", scene.service.stderr());
    drop(held);
    let upgrade = upgrading.wait();
    assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
    assert!(upgrade.reason.contains(&stranger), "{upgrade:?}");
    scene.next_commits();
}
