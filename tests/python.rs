//! The Python binding: its own tests, and daemons in Python under a real supervisor and live load.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use support::load::{Load, LoadOptions, verify};
use support::python::daemon;
use support::{SIGKILL, Service, programs, signal, wait_for_death, wait_until};

/// Each program of the cycle replaces the one before it, under load.
fn upgrades_lose_nothing(service: &Service, cycle: &[(&Path, &str)], rounds: usize) {
    let load = Load::start(LoadOptions { clients: 8, ..LoadOptions::new(service.address) });
    let short =
        LoadOptions { clients: 4, keep_alive: false, name: "short".into(), ..LoadOptions::new(service.address) };
    let short = Load::start(short);
    for round in 0..rounds {
        let (program, build) = cycle[round % cycle.len()];
        let (before, acknowledged) = (service.daemon_pid(), load.snapshot().acknowledged);
        let upgrade = service.upgrade(program, &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "round {round}: {upgrade:?}");
        wait_for_death(before);
        let (pid, answered) = wait_until("an answer", || service.ping());
        assert_eq!((pid, answered.as_str()), (service.daemon_pid(), build), "round {round}");
        wait_until("load on the new one", || (load.snapshot().acknowledged > acknowledged).then_some(()));
    }
    for report in [load.stop(), short.stop()] {
        assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()), "of {}", report.requests);
        assert!(report.acknowledged.len() > rounds, "too little load to say anything: {}", report.requests);
        assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
        println!("{} requests, {} acknowledged writes", report.requests, report.acknowledged.len());
    }
}

#[test]
fn a_store_with_threads_is_replaced_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let a = daemon(dir.path(), "a", "ffi-tests/python/kv_blocking.py", "KV_BUILD=a");
    let b = daemon(dir.path(), "b", "ffi-tests/python/kv_blocking.py", "KV_BUILD=b");
    let mut service = Service::start(&a);
    upgrades_lose_nothing(&service, &[(&b, "b"), (&a, "a")], 20);
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
}

#[test]
fn a_store_in_an_asyncio_loop_is_replaced_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let a = daemon(dir.path(), "a", "ffi-tests/python/kv_asyncio.py", "KV_BUILD=a");
    let b = daemon(dir.path(), "b", "ffi-tests/python/kv_asyncio.py", "KV_BUILD=b");
    let mut service = Service::start(&a);
    upgrades_lose_nothing(&service, &[(&b, "b"), (&a, "a")], 20);
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
}

#[test]
fn c_and_python_hand_over_to_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let threads = daemon(dir.path(), "threads", "ffi-tests/python/kv_blocking.py", "KV_BUILD=threads");
    let asyncio = daemon(dir.path(), "asyncio", "ffi-tests/python/kv_asyncio.py", "KV_BUILD=asyncio");
    let c = &programs().kv_a;
    let service = Service::start(c);
    upgrades_lose_nothing(&service, &[(&threads, "threads"), (c, "a"), (&asyncio, "asyncio"), (c, "a")], 8);
}

// ---- hooks that do not behave

/// ffi-tests/python/hooks.py with this scenario.
fn scenario(dir: &Path, name: &str) -> PathBuf {
    let program = daemon(dir, name, "ffi-tests/python/hooks.py", "");
    let text = fs::read_to_string(&program).unwrap().replace("\"$@\"", name);
    fs::write(&program, text).unwrap();
    program
}

/// A hook that fails: the handoff is undone, the reason says why, the traceback is in the log, and the next handoff commits.
fn a_failure_is_told(name: &str, reason: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::start(&scenario(dir.path(), name));
    let before = service.daemon_pid();
    let upgrade = service.upgrade(&scenario(dir.path(), "behaves"), &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
    assert!(upgrade.reason.contains(reason), "{upgrade:?}");
    assert_eq!(service.daemon_pid(), before);
    let said = service.stderr();
    let traceback = said.split("Traceback (most recent call last):").nth(1).unwrap_or_default();
    assert!(traceback.contains(reason), "{said}");
    assert!(said.contains("ERROR handoff: the ") && said.contains("hooks: resumes"), "{said}");
    let again = service.upgrade(&scenario(dir.path(), "behaves-too"), &[]);
    assert_eq!(again.result, "committed", "{again:?}");
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
    assert!(service.stderr().contains("hooks: stopped"), "{}", service.stderr());
}

#[test]
fn a_drain_that_raises_has_failed() {
    a_failure_is_told("drain-raises", "RuntimeError: told to fail the drain");
}

#[test]
fn a_drain_that_raises_in_a_loop_has_failed() {
    a_failure_is_told("async-raises", "RuntimeError: told to fail the drain");
}

#[test]
fn a_seal_that_raises_has_failed() {
    a_failure_is_told("seal-raises", "OSError: told to fail the seal");
}

#[test]
fn a_seal_without_a_revision_that_can_be_one_has_failed() {
    a_failure_is_told("seal-lies", "ValueError: -1 is not a revision");
}

/// The successor dies while the incumbent drains.
fn a_drain_hears_the_end(name: &str, cancelled: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::start(&scenario(dir.path(), name));
    let before = service.daemon_pid();
    let upgrading = service.begin_upgrade(&scenario(dir.path(), "behaves"), &[]);
    wait_until("the drain", || service.stderr().contains("hooks: drains").then_some(()));
    signal(service.successor_of(before), SIGKILL);
    let upgrade = upgrading.wait();
    assert_eq!(upgrade.result, "rolled_back", "{upgrade:?}");
    let said = service.stderr();
    assert!(said.contains(cancelled) && said.contains("hooks: resumes"), "{said}");
    assert_eq!((service.daemon_pid(), service.stop()), (before, Some(0)), "{}", service.stderr());
}

#[test]
fn a_drain_hears_that_it_is_cancelled() {
    a_drain_hears_the_end("drain-waits", "hooks: cancelled: True True True True");
}

#[test]
fn a_drain_in_a_loop_is_cancelled_as_a_task() {
    a_drain_hears_the_end("async-waits", "hooks: cancelled: True");
}

/// Someone is inside the fence when the seal is answered.
fn the_seal_waits(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&scenario(dir.path(), name));
    let upgrade = service.upgrade(&scenario(dir.path(), "behaves"), &[]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    let said = service.stderr();
    let at = |text: &str| said.rfind(text).unwrap_or_else(|| panic!("no {text} in\n{said}"));
    let order = ["hooks: writes", "hooks: seals", "hooks: has written", "hooks: serves: True"].map(at);
    assert!(order.is_sorted(), "{said}");
}

#[test]
fn the_seal_waits_for_a_thread_that_writes() {
    the_seal_waits("writer");
}

#[test]
fn the_seal_waits_for_a_task_that_writes() {
    the_seal_waits("async-writer");
}

#[test]
fn an_event_can_be_answered_once() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&scenario(dir.path(), "answers"));
    assert_eq!(service.upgrade(&scenario(dir.path(), "behaves"), &[]).result, "committed");
    assert!(service.stderr().contains("hooks: twice: ESTALE"), "{}", service.stderr());
}

#[test]
fn what_can_not_go_on_ends() {
    let dir = tempfile::tempdir().unwrap();
    let behaves = scenario(dir.path(), "behaves");
    for (name, reason) in [
        ("no-hooks", "no drain hook is registered"),
        ("drain-exits", "SystemExit: 3"),
        ("resume-raises", "OSError: told to fail the seal"),
    ] {
        let service = Service::start(&scenario(dir.path(), name));
        let before = service.daemon_pid();
        let upgrade = service.upgrade(&behaves, &[]);
        assert_eq!(upgrade.result, "started_cold", "{name}: {upgrade:?}");
        assert!(service.stderr().contains(reason), "{name}: {}", service.stderr());
        assert_ne!(service.daemon_pid(), before, "{name}");
    }
}

#[test]
fn a_bad_successor_is_undone() {
    let dir = tempfile::tempdir().unwrap();
    let good = daemon(dir.path(), "good", "ffi-tests/python/kv_asyncio.py", "KV_BUILD=good");
    let service = Service::start(&good);
    let load = Load::start(LoadOptions { clients: 4, ..LoadOptions::new(service.address) });
    for (fault, reason) in [("unhealthy", "told to be unhealthy"), ("crash", "exit status 9")] {
        for store in ["kv_blocking", "kv_asyncio"] {
            let script = format!("ffi-tests/python/{store}.py");
            let bad = daemon(dir.path(), &format!("{store}-{fault}"), &script, &format!("KV_FAULT={fault}"));
            let before = service.daemon_pid();
            let upgrade = service.upgrade(&bad, &[]);
            assert_eq!(upgrade.result, "rolled_back", "{store} {fault}: {upgrade:?}");
            assert!(upgrade.reason.contains(reason), "{store} {fault}: {upgrade:?}");
            assert_eq!(service.daemon_pid(), before, "{store} {fault}");
        }
    }
    let report = load.stop();
    assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()), "of {}", report.requests);
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
}
