//! The store in C under live load, replaced again and again.

mod support;

use std::fs;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::load::{Load, LoadOptions, verify};
use support::{Service, open_descriptors, programs, wait_until};

const UPGRADES: usize = 100;

/// Looks again and again who holds the lock of the data directory; the largest number of processes ever seen at once.
fn watch_lock(
    lock: std::path::PathBuf,
    service: &Service,
    stop: Arc<AtomicBool>,
) -> std::thread::JoinHandle<(usize, usize)> {
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(lock).unwrap());
    let supervisor = service.supervisor_pid();
    std::thread::spawn(move || {
        let (mut samples, mut most) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            // In one read(2): the kernel shows the list as it is at one moment for each, and no more than a page of it.
            let mut page = [0; 4096];
            let len = fs::File::open("/proc/locks").unwrap().read(&mut page).unwrap();
            if len > page.len() - 256 {
                continue;
            }
            let locks = String::from_utf8_lossy(&page[..len]);
            let held =
                |line: &&str| line.contains("FLOCK") && !line.contains("->") && line.contains(&format!(":{inode} "));
            most = most.max(locks.lines().filter(held).count());
            samples += 1;
        }
        assert!(support::lives(supervisor));
        (samples, most)
    })
}

#[test]
fn a_hundred_upgrades_under_load_lose_nothing() {
    let programs = programs();
    let service = Service::start(&programs.kv_a);
    assert_eq!(service.upgrade(&programs.kv_b, &[]).result, "committed");
    let before = wait_until("one daemon", || settled_descriptors(&service));
    let load = Load::start(LoadOptions { clients: 16, keep_alive: false, ..LoadOptions::new(service.address) });
    let stop = Arc::new(AtomicBool::new(false));
    let watch = watch_lock(service.path("data/.handoff.lock"), &service, Arc::clone(&stop));
    for round in 1..UPGRADES {
        let (binary, build) = if round % 2 == 0 { (&programs.kv_b, "b") } else { (&programs.kv_a, "a") };
        let upgrade = service.upgrade(binary, &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "round {round}: {upgrade:?}");
        let (pid, answered) = wait_until("an answer", || service.ping());
        assert_eq!((pid, answered.as_str()), (service.daemon_pid(), build), "round {round}");
    }
    let report = load.stop();
    stop.store(true, Ordering::Relaxed);
    let (samples, most) = watch.join().unwrap();
    assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()), "of {}", report.requests);
    assert!(report.acknowledged.len() > UPGRADES, "too little load to say anything: {}", report.requests);
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
    assert!(samples > UPGRADES, "the lock was looked at {samples} times only");
    assert_eq!(most, 1, "processes that held the lock at once");
    // The connections of the load go away; what is left must be what was there after the first upgrade.
    wait_until(&format!("as many descriptors as after the first upgrade: {before:?}"), || {
        (settled_descriptors(&service)? == before).then_some(())
    });
    println!(
        "{} requests, {} acknowledged writes, {samples} looks at the lock",
        report.requests,
        report.acknowledged.len()
    );
}

/// Descriptors of the supervisor and of the daemon, once nobody else is left and the numbers stand still.
fn settled_descriptors(service: &Service) -> Option<(usize, usize)> {
    let look = || {
        let [daemon] = service.daemons()[..] else { return None };
        (service.status()?["phase"] == "idle")
            .then(|| (open_descriptors(service.supervisor_pid()), open_descriptors(daemon)))
    };
    let first = look()?;
    let unchanged = (0..5).all(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        look() == Some(first)
    });
    unchanged.then_some(first)
}

#[test]
fn keep_alive_clients_are_told_and_fail_nothing() {
    let programs = programs();
    let service = Service::start(&programs.kv_a);
    let load = Load::start(LoadOptions { clients: 8, ..LoadOptions::new(service.address) });
    for round in 0..10 {
        let binary = if round % 2 == 0 { &programs.kv_b } else { &programs.kv_a };
        assert_eq!(service.upgrade(binary, &[]).result, "committed");
    }
    let report = load.stop();
    assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()));
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
}
