//! Live connections and state move from one daemon in Python to the next, and come back after a rollback.

use crate::heard;
use crate::support::load::{Load, LoadOptions, verify};
use crate::support::python::Python;
use crate::support::{PATIENCE, Service, wait_for_death, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

const THREADS: &str = "ffi-tests/python/kv_blocking.py";
const ASYNCIO: &str = "ffi-tests/python/kv_asyncio.py";

/// A store that is not well, or crashes, when it should get ready.
fn bad(python: &Python, script: &str, fault: &str) -> PathBuf {
    python.daemon(fault, script, &format!("KV_FAULT={fault}"))
}

/// Each program of the cycle replaces the one before it, under load; some are tried that can not. Clients that keep their
/// connections notice nothing of either.
fn upgrades_lose_nothing(service: &Service, cycle: &[(&Path, &str)], bad: &[PathBuf], rounds: usize) {
    let load = Load::start(LoadOptions { clients: 8, ..LoadOptions::new(service.address) });
    let short =
        LoadOptions { clients: 4, keep_alive: false, name: "short".into(), ..LoadOptions::new(service.address) };
    let short = Load::start(short);
    let goes_on = || {
        let acknowledged = load.snapshot().acknowledged;
        wait_until("more writes", || (load.snapshot().acknowledged > acknowledged + 8).then_some(()));
    };
    for round in 0..rounds {
        if let Some(bad) = bad.get(round % 4) {
            let upgrade = service.upgrade(bad, &[]);
            assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "round {round}: {upgrade:?}");
            goes_on();
        }
        let (program, build) = cycle[round % cycle.len()];
        let before = service.daemon_pid();
        let upgrade = service.upgrade(program, &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "round {round}: {upgrade:?}");
        wait_for_death(before);
        let (pid, answered) = wait_until("an answer", || service.ping());
        assert_eq!((pid, answered.as_str()), (service.daemon_pid(), build), "round {round}");
        goes_on();
    }
    // State that is in no file: each of them added itself, and none that was undone.
    let lineage = wait_until("the lineage", || service.ask("LINEAGE"));
    let built: Vec<&str> = (0..rounds).map(|round| cycle[round % cycle.len()].1).collect();
    assert!(lineage.ends_with(&built.join(" ")), "{lineage}");
    for report in [load.stop(), short.stop()] {
        assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()), "of {}", report.requests);
        assert_eq!(report.closed_connections, 0, "of {}", report.requests);
        assert!(report.acknowledged.len() > rounds, "too little load to say anything: {}", report.requests);
        assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
        println!("{} requests, {} acknowledged writes", report.requests, report.acknowledged.len());
    }
}

fn a_store_is_replaced_under_load(script: &str) {
    let Some(python) = Python::find() else { return };
    let a = python.daemon("a", script, "KV_BUILD=a");
    let b = python.daemon("b", script, "KV_BUILD=b");
    let bad = ["unhealthy", "crash"].map(|fault| bad(&python, script, fault));
    let mut service = Service::start(&a);
    upgrades_lose_nothing(&service, &[(&b, "b"), (&a, "a")], &bad, 12);
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
}

#[test]
fn a_store_with_threads_is_replaced_under_load() {
    a_store_is_replaced_under_load(THREADS);
}

#[test]
fn a_store_in_an_asyncio_loop_is_replaced_under_load() {
    a_store_is_replaced_under_load(ASYNCIO);
}

/// What a client has sent in part, and what has no reply yet, is answered by whoever serves next.
#[test]
fn requests_that_are_cut_in_two_are_answered_once() {
    let Some(python) = Python::find() else { return };
    let stores = [THREADS, ASYNCIO].map(|script| {
        let name = Path::new(script).file_stem().unwrap().to_str().unwrap();
        (python.daemon(name, script, &format!("KV_BUILD={name}")), bad(&python, script, "unhealthy"))
    });
    let service = Service::start(&stores[0].0);
    let stream = TcpStream::connect(service.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap()).lines();
    let say = |text: &str| (&stream).write_all(text.as_bytes()).unwrap();
    say("SET part ");
    for round in 1..=6 {
        let (store, bad) = &stores[round / 2 % 2];
        // A bad one changes nothing, a good one goes on in the middle of the line.
        let (program, result) = if round % 3 == 0 { (bad, "rolled_back") } else { (store, "committed") };
        let upgrade = service.upgrade(program, &[]);
        assert_eq!(upgrade.result, result, "round {round}: {upgrade:?}");
        say(&format!("{round}\nGET part\nSET part "));
        assert_eq!(replies.next().unwrap().unwrap(), format!("OK {round}"));
        assert_eq!(replies.next().unwrap().unwrap(), format!("VALUE {round}"));
    }
}

/// Nobody takes over from it any more.
#[test]
fn a_store_hears_that_its_probation_is_over() {
    let Some(python) = Python::find() else { return };
    for script in [THREADS, ASYNCIO] {
        let [a, b] = ["a", "b"].map(|build| python.daemon(build, script, &format!("KV_BUILD={build}")));
        let service = Service::start(&a);
        assert_eq!(service.upgrade(&b, &["--probation", "100ms"]).result, "committed");
        heard(&service, "kv: b is confirmed\n");
        assert!(!service.stderr().contains("kv: a is confirmed"), "{}", service.stderr());
    }
}

// ---- everything that can move

#[test]
fn connections_and_state_of_every_kind_move() {
    let Some(python) = Python::find() else { return };
    let script = "ffi-tests/python/payload.py";
    let (daemon, unhealthy) = (python.daemon("payload", script, ""), python.daemon("bad", script, "UNHEALTHY=1"));
    let mut service = Service::start(&daemon);
    heard(&service, "payload: before begin: ESTATE ESTATE ESTATE\n");
    heard(&service, "payload: begun: ENONAME ENONAME ESTATE\n");
    for (program, result) in [(&unhealthy, "rolled_back"), (&daemon, "committed")] {
        let upgrade = service.upgrade(program, &[]);
        assert_eq!(upgrade.result, result, "{upgrade:?}");
    }
    let nine = "ETOOBIG EDUPLICATE EINVAL EINVAL EDUPLICATE ETOOBIG EDUPLICATE EINVAL ENONAME";
    for said in [
        &format!("errors: {nine}"),
        "after the end: ESTATE",
        "bytes: b'what is in the bytes'",
        "empty: b''",
        "part: b'large'",
        "from the seal: b'sealed'",
        "memfd: b'what is in the memfd'",
        "large: True b'large\\n' True True",
        "file: 19 0 b'what is in the file' True ENONAME",
        "written: 0 b'what is in the file, and more'",
        "end: 15 b'half a re\\x00quest' True",
        "other end: 0 b'' True",
        "heard: b'from end to end'",
    ] {
        heard(&service, &format!("payload: {said}\n"));
    }
    heard(&service, "payload: pipe: 61440 ");
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
    heard(&service, "payload: after the handle: b'large'\n");
    let said = service.stderr();
    assert!(!said.contains("Traceback") && !said.contains("Warning"), "{said}");
}
