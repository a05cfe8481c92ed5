//! The Go binding: its own tests, and daemons in Go under a real supervisor and real clients.

mod support;

use std::path::PathBuf;
use std::sync::OnceLock;
use support::go::{build_go, have_go};
use support::load::{Load, LoadOptions, verify};
use support::{Service, programs, wait_for_death, wait_until};

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

/// Ends the load: nothing failed, nothing is lost.
fn expect_good(service: &Service, load: Load) {
    let report = load.stop();
    assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()), "of {}", report.requests);
    assert!(report.acknowledged.len() > 100, "too little load to say anything: {}", report.requests);
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
}

fn expect_committed(service: &Service, binary: &std::path::Path, build: &str) {
    let before = service.daemon_pid();
    let upgrade = service.upgrade(binary, &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
    wait_for_death(before);
    let (pid, answered) = wait_until("an answer", || service.ping());
    assert_eq!((pid, answered.as_str()), (service.daemon_pid(), build));
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
