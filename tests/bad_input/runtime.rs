//! A runtime directory that can not be written, from its start on or from some moment of a handoff on: journal, page, output
//! and control path are in it.

use crate::harness::{Scene, names, run_store};
use crate::mounts::{Mounted, fill, own_mounts, take_inodes};
use crate::support::{KeptAlive, Service, programs, wait_until};
use handoff::sys::control::living_owner;
use std::fs;

const READ_ONLY: &str = "Read-only file system";

#[test]
fn read_only_at_a_start() {
    if !own_mounts() {
        return;
    }
    let service = Service::place();
    let runtime = service.path("run");
    fs::create_dir(&runtime).unwrap();
    fs::set_permissions(&runtime, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let _mounted = Mounted::read_only(&runtime);
    let said = run_store(&service, &runtime, &service.path("data"), &[]);
    said.expect_line(125, &[runtime.to_str().unwrap(), READ_ONLY]);
    assert_eq!(names(&service.path("data")), Vec::<String>::new());
}

#[test]
fn read_only_at_an_upgrade() {
    if !own_mounts() {
        return;
    }
    let scene = Scene::new();
    let mounted = Mounted::read_only(&scene.path("run"));
    scene.upgrade_fails(&programs().kv_b, 13, "refused", &["/run/kv.", ".page: ", READ_ONLY]);
    drop(mounted);
    scene.next_commits();
}

/// A successor that warms up finds no room for its control path: before the drain, so nobody is told to hang up.
#[test]
fn read_only_or_full_while_the_successor_warms() {
    if !own_mounts() {
        return;
    }
    for (full, word) in [(false, READ_ONLY), (true, "No space left on device")] {
        let mut service = Service::place();
        let runtime = service.path("run");
        fs::create_dir(&runtime).unwrap();
        let _tmpfs = Mounted::tmpfs(&runtime, "size=256k,nr_inodes=40,mode=700");
        service.launch(&programs().kv_a, &[]);
        let scene = Scene::of(service);
        let service = &scene.service;
        let mut client = KeptAlive::connect(service.address);
        let upgrading = service.begin_upgrade(&service.faulty("slow-warm=1000"), &[]);
        service.wait_for_phase("warming");
        let (mounted, inodes) = match full {
            false => (Some(Mounted::read_only(&runtime)), Vec::new()),
            true => (None, take_inodes(&runtime)),
        };
        let upgrade = upgrading.wait();
        assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
        for word in [word, "kv.control"] {
            assert!(upgrade.reason.contains(word), "{word} is missing in {upgrade:?}");
        }
        assert_eq!(client.ask("GET before"), "VALUE 1", "{word}");
        drop((mounted, client));
        inodes.iter().for_each(|path| fs::remove_file(path).unwrap());
        scene.next_commits();
    }
}

/// A commit stands: the control path gets into its place when that is possible, and the rest is said.
#[test]
fn read_only_or_full_while_the_successor_opens() {
    if !own_mounts() {
        return;
    }
    for full in [false, true] {
        let mut service = Service::place();
        let runtime = service.path("run");
        fs::create_dir(&runtime).unwrap();
        let _tmpfs = Mounted::tmpfs(&runtime, "size=256k,nr_inodes=40,mode=700");
        service.launch(&programs().kv_a, &[]);
        assert!(service.ask("SET before 1").unwrap().starts_with("OK "));
        let opening = service.path("data/opening");
        let upgrading = service.begin_upgrade(&service.faulty("open-waits"), &[]);
        wait_until("it opens", || opening.exists().then_some(()));
        let (mounted, filler) = match full {
            false => (Some(Mounted::read_only(&runtime)), None),
            true => {
                let file = fill(&runtime, 0);
                (None, Some((take_inodes(&runtime), file)))
            }
        };
        fs::remove_file(opening).unwrap();
        let upgrade = upgrading.wait();
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "full {full}: {upgrade:?}");
        let pid = service.daemon_pid();
        assert_eq!(service.wait_until_served(), pid);
        assert_eq!(service.ask("GET before").as_deref(), Some("VALUE 1"));
        service.wait_for_phase("idle");
        drop(mounted);
        if let Some((inodes, file)) = filler {
            inodes.iter().chain([&file]).for_each(|path| fs::remove_file(path).unwrap());
        }
        wait_until("the control path", || {
            let owner = living_owner(&service.path("run/kv.control")).ok()??;
            (owner.pid == pid).then_some(())
        });
        let next = service.upgrade(&programs().kv_b, &[]);
        assert_eq!(next.result, "committed", "full {full}: {next:?}");
        assert_eq!(service.ask("GET before").as_deref(), Some("VALUE 1"));
        service.wait_for_phase("idle");
        // What could not be removed stays: one page, of 4 KiB.
        let pages = names(&runtime).into_iter().filter(|name| name.ends_with(".page")).count();
        assert_eq!(pages, usize::from(!full), "full {full}");
    }
}
