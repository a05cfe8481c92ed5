//! File systems without room: that of the data, and that of the runtime directory.

use crate::harness::{Scene, names, run_store};
use crate::mounts::{Mounted, fill, own_mounts, take_inodes};
use crate::support::{Service, programs};
use std::fs;

const KIB: usize = 1024;

/// A service whose data, or runtime directory, is a small tmpfs.
fn small(name: &str, program: impl FnOnce(&Service) -> std::path::PathBuf) -> (Scene, Mounted) {
    let mut service = Service::place();
    let at = service.path(name);
    fs::create_dir_all(&at).unwrap();
    let mounted = Mounted::tmpfs(&at, "size=256k,nr_inodes=40,mode=700");
    let program = program(&service);
    service.launch(&program, &[]);
    (Scene::of(service), mounted)
}

fn kv_a(_: &Service) -> std::path::PathBuf {
    programs().kv_a.clone()
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    if !own_mounts() {
        return;
    }
    let (scene, _mounted) = small("data", kv_a);
    let filler = fill(&scene.path("data"), 0);
    let service = &scene.service;
    let long = "x".repeat(2 * KIB);
    // What the last page of the log still takes is taken.
    let refusal =
        (0..8).find_map(|_| service.ask(&format!("SET long {long}")).filter(|reply| !reply.starts_with("OK ")));
    assert_eq!(refusal.as_deref(), Some("ERR not written: No space left on device"));
    assert_eq!(service.ask("GET before").as_deref(), Some("VALUE 1"));
    assert_eq!(service.ping().unwrap().0, scene.pid);
    fs::remove_file(filler).unwrap();
    assert!(service.ask(&format!("SET long {long}")).unwrap().starts_with("OK "), "there is room again");
    scene.next_commits();
}

#[test]
fn a_successor_without_room_at_its_open() {
    if !own_mounts() {
        return;
    }
    let (scene, _mounted) = small("data", kv_a);
    let data = scene.path("data");
    // Room for what the incumbent writes, but not for what the successor wants to.
    let filler = fill(&data, 32 * KIB);
    let snapshot = data.join("snapshot");
    let words = [snapshot.to_str().unwrap(), "No space left on device"];
    scene.upgrade_fails(&scene.service.faulty("open-writes=128"), 10, "rolled back", &words);
    fs::remove_file(filler).unwrap();
    scene.next_commits();
}

#[test]
fn an_incumbent_without_room_at_its_seal() {
    if !own_mounts() {
        return;
    }
    let (scene, _mounted) = small("data", |service| service.faulty("seal-writes=128"));
    let data = scene.path("data");
    let filler = fill(&data, 32 * KIB);
    let snapshot = data.join("snapshot");
    let words = [snapshot.to_str().unwrap(), "No space left on device"];
    scene.upgrade_fails(&programs().kv_b, 10, "rolled back", &words);
    fs::remove_file(filler).unwrap();
    scene.next_commits();
}

#[test]
fn a_first_start_on_a_disk_without_room_for_the_lock() {
    if !own_mounts() {
        return;
    }
    let service = Service::place();
    let data = service.path("data");
    let _mounted = Mounted::tmpfs(&data, "nr_inodes=5");
    take_inodes(&data);
    let before = names(&data);
    let said = run_store(&service, &service.path("run"), &data, &[]);
    let gate = data.join(".handoff.gate");
    said.expect(1, &[gate.to_str().unwrap(), "No space left on device", "free space or inodes there", "ended: exit"]);
    assert_eq!(names(&data), before);
}

#[test]
fn a_full_runtime_directory_refuses_the_upgrade() {
    if !own_mounts() {
        return;
    }
    let (scene, _mounted) = small("run", kv_a);
    let runtime = scene.path("run");
    let words = ["/run/kv.", ".page: No space left on device", "free space or inodes there"];
    let filler = fill(&runtime, 0);
    scene.upgrade_fails(&programs().kv_b, 13, "refused", &words);
    fs::remove_file(filler).unwrap();
    let inodes = take_inodes(&runtime);
    scene.upgrade_fails(&programs().kv_b, 13, "refused", &words);
    inodes.iter().for_each(|path| fs::remove_file(path).unwrap());
    scene.next_commits();
}

#[test]
fn a_full_runtime_directory_is_named_at_a_start() {
    if !own_mounts() {
        return;
    }
    let service = Service::place();
    let (runtime, data) = (service.path("run"), service.path("data"));
    fs::create_dir(&runtime).unwrap();
    let _mounted = Mounted::tmpfs(&runtime, "size=64k,nr_inodes=8,mode=700");
    let words = [runtime.to_str().unwrap(), "No space left on device", "free space or inodes there"];
    let filler = fill(&runtime, 0);
    run_store(&service, &runtime, &data, &[]).expect_line(125, &words);
    fs::remove_file(&filler).unwrap();
    // Room for the lock's record, and for no journal.
    fill(&runtime, 4 * KIB);
    run_store(&service, &runtime, &data, &[]).expect_line(125, &words);
    fs::remove_file(filler).unwrap();
    take_inodes(&runtime);
    run_store(&service, &runtime, &data, &[]).expect_line(125, &words);
    let stays = |name: &String| name.starts_with("inode-") || ["other.lock", "other.history"].contains(&name.as_str());
    assert!(names(&runtime).iter().all(stays));
    assert_eq!(names(&data), Vec::<String>::new());
}
