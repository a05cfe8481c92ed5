//! The load generator against stores in this process, most of which lie.

use super::load::*;
use std::collections::HashMap;
use std::io::Write;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Acknowledges each tenth write and forgets it.
    Forgets,
    /// Acknowledges with a revision that it gave before.
    RepeatsRevisions,
    /// Closes each tenth time without a reply.
    HangsUp,
    /// Says ERR each tenth time.
    Refuses,
    /// Each tenth reply is the last of its connection.
    LastReply,
    /// Each tenth time says CLOSE, executes nothing, and waits for the hang-up.
    CloseInstead,
}

#[derive(Default)]
struct Store {
    values: HashMap<String, String>,
    requests: u64,
    revision: u64,
}

/// One small store, for as long as the test runs.
fn serve(manner: Manner) -> (SocketAddr, Arc<Mutex<Store>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let store = Arc::new(Mutex::new(Store::default()));
    let shared = Arc::clone(&store);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let store = Arc::clone(&shared);
            thread::spawn(move || serve_client(manner, stream.unwrap(), &store));
        }
    });
    (address, store)
}

fn serve_client(manner: Manner, stream: TcpStream, store: &Mutex<Store>) {
    let mut told = false;
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let Ok(line) = line else { return };
        if told {
            continue;
        }
        let (reply, last) = reply_to(manner, &line, &mut store.lock().unwrap());
        told = last;
        match reply {
            Some(reply) => (&stream).write_all(format!("{reply}\n").as_bytes()).unwrap_or(()),
            None => return,
        }
    }
}

fn reply_to(manner: Manner, line: &str, store: &mut Store) -> (Option<String>, bool) {
    store.requests += 1;
    let odd = store.requests.is_multiple_of(10);
    match manner {
        Manner::HangsUp if odd => return (None, true),
        Manner::Refuses if odd => return (Some("ERR not today".to_owned()), false),
        Manner::CloseInstead if odd => return (Some("CLOSE".to_owned()), true),
        _ => {}
    }
    let words: Vec<&str> = line.split(' ').collect();
    let reply = match words[..] {
        ["SET", key, value] => {
            if !(odd && manner == Manner::Forgets) {
                store.values.insert(key.to_owned(), value.to_owned());
            }
            store.revision += u64::from(!(odd && manner == Manner::RepeatsRevisions));
            format!("OK {}", store.revision)
        }
        ["GET", key] => store.values.get(key).map_or("NONE".to_owned(), |value| format!("VALUE {value}")),
        _ => "ERR not a request".to_owned(),
    };
    let last = odd && manner == Manner::LastReply;
    (Some(if last { format!("{reply} CLOSE") } else { reply }), last)
}

fn run(manner: Manner, change: impl FnOnce(&mut LoadOptions)) -> (Report, Vec<String>) {
    let (address, _) = serve(manner);
    let mut options = LoadOptions { clients: 3, ..LoadOptions::new(address) };
    change(&mut options);
    let reads = options.read_every > 0;
    let load = Load::start(options);
    let until = Instant::now() + Duration::from_secs(20);
    // What is forgotten is found when it is read.
    let looks = manner == Manner::Forgets && reads;
    while (load.snapshot().requests < 300 || looks && load.snapshot().failed_requests == 0) && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    let report = load.stop();
    let lost = match manner {
        Manner::HangsUp | Manner::Refuses => Vec::new(),
        _ => verify(address, &report.acknowledged).unwrap(),
    };
    assert!(report.requests >= 300);
    assert_eq!(report.samples.len() as u64, report.requests);
    assert!(report.samples.is_sorted());
    (report, lost)
}

#[test]
fn an_honest_store_fails_nothing() {
    for keep_alive in [true, false] {
        let (report, lost) = run(Manner::Honest, |options| options.keep_alive = keep_alive);
        assert_eq!(report.failed_requests, 0, "{:?}", report.failures);
        assert_eq!(report.closed_connections, 0);
        assert!(report.acknowledged.len() > 100);
        assert!(lost.is_empty(), "{lost:?}");
    }
}

#[test]
fn a_lost_write_is_found_live_and_at_the_end() {
    let (report, lost) = run(Manner::Forgets, |_| ());
    assert!(report.failures_by_kind["lost write"] > 0);
    assert!(!lost.is_empty());
    let (report, lost) = run(Manner::Forgets, |options| options.read_every = 0);
    assert_eq!(report.failed_requests, 0);
    assert!(!lost.is_empty());
}

#[test]
fn a_revision_given_twice_is_a_lost_write() {
    let (report, _) = run(Manner::RepeatsRevisions, |options| options.clients = 1);
    assert!(report.failures_by_kind["lost write"] > 0);
}

#[test]
fn a_request_without_a_reply_is_a_failure() {
    let (report, _) = run(Manner::HangsUp, |_| ());
    assert!(report.failures_by_kind["no reply"] >= 20, "{:?}", report.failures_by_kind);
    assert_eq!(report.failures_by_kind.values().sum::<u64>(), report.failed_requests);
    assert!(report.failures.len() <= FAILURE_TEXTS_MAX);
    let (report, _) = run(Manner::Refuses, |_| ());
    assert!(report.failures_by_kind["error reply"] >= 20);
}

#[test]
fn a_refused_connection_is_a_failure() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let load = Load::start(LoadOptions { clients: 1, ..LoadOptions::new(address) });
    while load.snapshot().failed_requests == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let report = load.stop();
    assert!(report.failures_by_kind["refused"] > 0);
    assert_eq!(report.failed_requests, report.requests);
}

#[test]
fn the_agreed_end_of_a_connection_fails_nothing() {
    for manner in [Manner::LastReply, Manner::CloseInstead] {
        for keep_alive in [true, false] {
            let (report, lost) = run(manner, |options| options.keep_alive = keep_alive);
            assert_eq!(report.failed_requests, 0, "{:?}", report.failures);
            assert!(report.closed_connections >= 20);
            assert!(lost.is_empty(), "{lost:?}");
        }
    }
}

#[test]
fn a_thinking_client_hears_the_close() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options =
        LoadOptions { clients: 1, think: Duration::from_secs(1), ..LoadOptions::new(listener.local_addr().unwrap()) };
    let load = Load::start(options);
    let (mut stream, _) = listener.accept().unwrap();
    let mut input = BufReader::new(stream.try_clone().unwrap());
    input.read_line(&mut String::new()).unwrap();
    stream.write_all(b"OK 1\n").unwrap();
    thread::sleep(Duration::from_millis(50));
    let told = Instant::now();
    stream.write_all(b"CLOSE\n").unwrap();
    assert_eq!(input.read_line(&mut String::new()).unwrap(), 0);
    assert!(told.elapsed() < Duration::from_millis(700));
    drop(stream);
    drop(input);
    let report = load.stop();
    assert_eq!((report.failed_requests, report.closed_connections), (0, 1));
}

#[test]
fn a_stall_is_the_slowest_request_that_touches_the_window() {
    let samples = [(0, 1_000_000), (2_000_000, 9_000_000), (3_000_000, 500_000), (20_000_000, 2_000_000)];
    let windows = [(0, 1), (4_000_000, 5_000_000), (12_000_000, 13_000_000), (21_000_000, 30_000_000)];
    assert_eq!(stall_ms(&samples, &windows), [1.0, 9.0, 0.0, 2.0]);
    assert_eq!(stall_ms(&[], &windows[..1]), [0.0]);
}

#[test]
fn a_window_that_is_open_knows_only_what_touches_it() {
    let window = Window::default();
    window.begin_ns.store(1_000, Release);
    window.end_ns.store(u64::MAX, Release);
    let slowest_after = |start_ns, latency_ns| {
        window.note(start_ns, latency_ns);
        window.slowest_ns.load(Relaxed)
    };
    assert_eq!(slowest_after(0, 999), 0, "it was over before");
    assert_eq!(slowest_after(900, 200), 200);
    assert_eq!(slowest_after(2_000, 300), 300);
    window.end_ns.store(3_000, Release);
    assert_eq!(slowest_after(3_001, 9_000), 300, "it began later");
    assert_eq!(slowest_after(2_999, 400), 400);
}
