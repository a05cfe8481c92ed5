//! The Go binding: its own tests, and daemons in Go under a real supervisor and real clients.

#[path = "../support/mod.rs"]
mod support;

mod moves;
mod overlap;
mod web;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use support::go::{build_go, go, have_go, root};
use support::load::{Load, LoadOptions, verify};
use support::{SIGTERM, Service, programs, signal, wait_for_death, wait_until};

const BINDING: &str = "bindings/go";

const KV: &str = "ffi-tests/go/kv";

/// The store in Go, as three builds; "race" has the race detector, and with it checkptr.
struct Stores {
    a: PathBuf,
    b: PathBuf,
    race: PathBuf,
}

fn stores() -> &'static Stores {
    static STORES: OnceLock<Stores> = OnceLock::new();
    STORES.get_or_init(|| Stores {
        a: build_go("kv-a", KV, ".", &["-ldflags", "-X main.build=go-a"]),
        b: build_go("kv-b", KV, ".", &["-ldflags", "-X main.build=go-b"]),
        race: build_go("kv-race", KV, ".", &["-race", "-ldflags", "-X main.build=go-race"]),
    })
}

/// A script that becomes this store with this fault.
fn faulty(service: &Service, fault: &str) -> PathBuf {
    support::faulty_script(service.dir.path(), &stores().b, fault)
}

/// Ends the load: nothing failed, nothing is lost, and no client had to connect again.
fn expect_good(service: &Service, load: Load) {
    let report = load.stop();
    assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()), "of {}", report.requests);
    assert_eq!(report.closed_connections, 0, "of {} requests", report.requests);
    assert!(report.acknowledged.len() > 100, "too little load to say anything: {}", report.requests);
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
}

fn expect_committed(service: &Service, binary: &Path, build: &str) {
    let before = service.daemon_pid();
    let upgrade = service.upgrade(binary, &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
    wait_for_death(before);
    let (pid, answered) = wait_until("an answer", || service.ping());
    assert_eq!((pid, answered.as_str()), (service.daemon_pid(), build));
}

/// Runs a command that must succeed; what it says.
fn expect_success(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    said
}

#[test]
fn the_binding_passes_its_own_tests_vet_and_gofmt() {
    if !have_go() {
        return;
    }
    for module in [BINDING, KV, "ffi-tests/go/moves", "ffi-tests/go/web"] {
        let module = root().join(module);
        let mut format = Command::new("gofmt");
        format.args(["-l", "."]).current_dir(&module);
        assert_eq!(expect_success(format), "", "gofmt -l");
        expect_success(go(&module, &["vet", "./..."]));
    }
    // With the race detector comes checkptr, which watches every pointer that cgo makes.
    let said = expect_success(go(&root().join(BINDING), &["test", "-race", "-count=1", "-v", "./..."]));
    assert!(said.contains("--- PASS: TestGivenListeners") && !said.contains("--- SKIP"), "{said}");
}

#[test]
fn stores_in_go_replace_each_other_under_load() {
    if !have_go() {
        return;
    }
    for keep_alive in [false, true] {
        let mut service = Service::start(&stores().a);
        let load = Load::start(LoadOptions { keep_alive, ..LoadOptions::new(service.address) });
        for _ in 0..10 {
            expect_committed(&service, &stores().b, "go-b");
            expect_committed(&service, &stores().a, "go-a");
        }
        expect_good(&service, load);
        assert_eq!(service.stop(), Some(0), "{}", service.stderr());
    }
}

/// The library knows of events that the binding does not.
#[test]
fn a_newer_library_is_no_reason_to_end() {
    if !have_go() {
        return;
    }
    let mut service = Service::place();
    let newer = service.path("newer");
    let library = support::newer_library();
    let text = format!("#!/bin/sh\nLD_PRELOAD={} exec {} \"$@\"\n", library.display(), stores().a.display());
    std::fs::write(&newer, text).unwrap();
    std::fs::set_permissions(&newer, std::fs::Permissions::from_mode(0o755)).unwrap();
    service.launch(&newer, &[]);
    expect_committed(&service, &newer, "go-a");
    expect_committed(&service, &stores().b, "go-b");
    assert!(service.stderr().contains("newer: an event of a later kind"), "{}", service.stderr());
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
}

#[test]
fn a_store_in_c_and_one_in_go_replace_each_other() {
    if !have_go() {
        return;
    }
    let service = Service::start(&programs().kv_a);
    let load = Load::start(LoadOptions::new(service.address));
    for _ in 0..3 {
        expect_committed(&service, &stores().a, "go-a");
        expect_committed(&service, &stores().race, "go-race");
        expect_committed(&service, &programs().kv_a, "a");
    }
    expect_good(&service, load);
}

#[test]
fn a_faulty_store_in_go_is_undone_and_the_one_in_go_goes_on() {
    if !have_go() {
        return;
    }
    let service = Service::start(&stores().race);
    let load = Load::start(LoadOptions::new(service.address));
    let pid = service.daemon_pid();
    for (fault, why) in [("unhealthy", "told to be unhealthy"), ("crash", "exit status 7"), ("lost-write", "revision")]
    {
        let upgrade = service.upgrade(&faulty(&service, fault), &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{fault}: {upgrade:?}");
        assert!(upgrade.reason.contains(why), "{fault}: {upgrade:?}");
        assert_eq!(wait_until("an answer", || service.ping()), (pid, "go-race".to_owned()), "{fault}");
    }
    expect_good(&service, load);
    assert!(!service.stderr().contains("DATA RACE"), "{}", service.stderr());
}

#[test]
fn a_drain_hears_why_it_is_not_wanted_any_more() {
    if !have_go() {
        return;
    }
    let start = || {
        Service::start(&support::faulty_script(Path::new(env!("CARGO_TARGET_TMPDIR")), &stores().race, "drain-waits"))
    };
    // Late: the grace is over. Cancelled: the successor dies.
    for cancelled in [false, true] {
        let service = start();
        let pid = service.daemon_pid();
        let upgrading = service.begin_upgrade(&stores().b, &["--drain-grace", if cancelled { "60s" } else { "1s" }]);
        if cancelled {
            service.wait_for_phase("draining");
            signal(service.successor_of(pid), support::SIGKILL);
        }
        let upgrade = upgrading.wait();
        assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
        let said = wait_until("what the drain says", || {
            let stderr = service.stderr();
            Some(stderr.lines().find(|line| line.contains("drain ended:"))?.to_owned())
        });
        assert!(said.ends_with("deadline true, progress stale true"), "{said}");
        assert!(!cancelled || said.contains("context canceled, stale true"), "{said}");
        assert_eq!(service.wait_until_served(), pid);
        expect_committed(&service, &stores().a, "go-a");
    }
}

#[test]
fn a_drain_that_fails_is_undone_and_the_log_says_why() {
    if !have_go() {
        return;
    }
    let store = support::faulty_script(Path::new(env!("CARGO_TARGET_TMPDIR")), &stores().race, "drain-fails");
    let service = Service::start(&store);
    let pid = service.daemon_pid();
    let upgrade = service.upgrade(&stores().b, &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
    assert!(upgrade.reason.contains("told to fail the drain"), "{upgrade:?}");
    assert!(service.stderr().contains("the drain failed: told to fail the drain"), "{}", service.stderr());
    assert_eq!(service.wait_until_served(), pid);
    expect_committed(&service, &stores().b, "go-b");
}

#[test]
fn a_store_hears_that_its_probation_is_over() {
    if !have_go() {
        return;
    }
    let service = Service::start(&stores().a);
    assert_eq!(service.upgrade(&stores().race, &["--probation", "100ms"]).result, "committed");
    wait_until("it is told", || service.stderr().contains("kv: go-race is confirmed\n").then_some(()));
    assert!(!service.stderr().contains("kv: go-a is confirmed"), "{}", service.stderr());
}

#[test]
fn the_library_logs_to_the_logger() {
    if !have_go() {
        return;
    }
    let store = support::faulty_script(Path::new(env!("CARGO_TARGET_TMPDIR")), &stores().race, "logs");
    let service = Service::start(&store);
    expect_committed(&service, &store, "go-race");
    let stderr = service.stderr();
    for line in [
        "level=INFO msg=\"prepare ",
        "level=INFO msg=\"seal_complete ",
        "level=INFO msg=\"commit ",
        "level=DEBUG-4 msg=\"received ",
    ] {
        assert!(stderr.contains(line), "no {line} in {stderr}");
    }
}

#[test]
fn sigterm_stops_a_store_in_go_also_in_a_handoff() {
    if !have_go() {
        return;
    }
    let store = support::faulty_script(Path::new(env!("CARGO_TARGET_TMPDIR")), &stores().race, "drain-waits");
    let mut service = Service::start(&store);
    let pid = service.daemon_pid();
    let upgrading = service.begin_upgrade(&stores().b, &[]);
    service.wait_for_phase("draining");
    signal(pid, SIGTERM);
    let upgrade = upgrading.wait();
    assert_ne!(upgrade.result, "committed", "{upgrade:?}");
    wait_for_death(pid);
    assert!(!service.stderr().contains("DATA RACE"), "{}", service.stderr());
    assert_eq!(service.wait_for_end(), Some(0), "{}", service.stderr());
}
