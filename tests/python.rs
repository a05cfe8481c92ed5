//! The Python binding: its own tests, and daemons in Python under a real supervisor and live load.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use support::load::{Load, LoadOptions, verify};
use support::{Service, library, programs, wait_for_death, wait_until};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The interpreter itself: `python3` may be a wrapper that takes its time.
fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let output = output.expect("python3 is needed");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    })
}

/// A program that becomes this script, with the binding of this tree, the library of this build, and these variables.
fn daemon(dir: &Path, name: &str, script: &str, variables: &str) -> PathBuf {
    let (python, path) = (python(), root().join("bindings/python"));
    let (library, script) = (library(), root().join(script));
    let (path, library, script) = (path.display(), library.display(), script.display());
    let program = dir.join(name);
    let text =
        format!("#!/bin/sh\nPYTHONPATH={path} HANDOFF_LIBRARY={library} {variables} exec {python} {script} \"$@\"\n");
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

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
