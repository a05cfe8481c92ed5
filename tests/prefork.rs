//! examples-c/prefork.c: a master that hands over for its workers, which neither know nor have the handle.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use support::{
    PATIENCE, SIGKILL, Service, Upgrade, children, compile, freeze, lives, signal, thaw, wait_for_death, wait_until,
};

/// As the example has it.
const WORKERS: usize = 4;
const CLIENTS: usize = 8;

struct Programs {
    a: PathBuf,
    b: PathBuf,
}

fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| Programs {
        a: compile("prefork-a", "examples-c/prefork.c", &["-DBUILD=\"a\""]),
        b: compile("prefork-b", "examples-c/prefork.c", &["-DBUILD=\"b\""]),
    })
}

/// Clients that count, with a connection for each request.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(Vec<u64>, Vec<String>)>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let (mut counted, mut failures) = (Vec::new(), Vec::new());
                while !stop.load(Ordering::Relaxed) && failures.len() < 10 {
                    match increment(address) {
                        Ok(n) => counted.push(n),
                        Err(failure) => failures.push(failure),
                    }
                }
                (counted, failures)
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, clients }
    }

    /// Nothing has failed, and every number was given to exactly one client; how many they are.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let (mut all, mut failures, mut count) = (BTreeSet::new(), Vec::new(), 0);
        for client in self.clients {
            let (counted, failed) = client.join().unwrap();
            assert!(counted.is_sorted_by(|before, after| before < after), "a number went back");
            count += counted.len() as u64;
            all.extend(counted);
            failures.extend(failed);
        }
        assert_eq!(failures, Vec::<String>::new(), "of {count} requests");
        assert!(count > 0, "no load at all");
        assert_eq!((all.len() as u64, all.last().copied()), (count, Some(count)), "numbers, and the last one");
        count
    }
}

/// One number, on as many connections as the server says `CLOSE` to.
fn increment(address: SocketAddr) -> Result<u64, String> {
    let fails = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    loop {
        let mut stream = TcpStream::connect(address).map_err(fails("connect"))?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"INC\n").map_err(fails("send"))?;
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).map_err(fails("receive"))?;
        match reply.trim_end().trim_end_matches(" CLOSE").strip_prefix("OK ").map(str::parse) {
            Some(Ok(n)) => return Ok(n),
            _ if reply == "CLOSE\n" => {}
            _ => return Err(format!("reply: {reply:?}")),
        }
    }
}

/// The workers of a master, once all of them are there.
fn workers(master: i32) -> Vec<i32> {
    wait_until("all workers", || {
        let living: Vec<i32> = children(master).into_iter().filter(|pid| lives(*pid)).collect();
        (living.len() == WORKERS).then_some(living)
    })
}

fn start() -> (Service, i32, Vec<i32>) {
    let service = Service::start(&programs().a);
    let master = service.daemon_pid();
    let workers = workers(master);
    (service, master, workers)
}

#[track_caller]
fn committed(upgrade: &Upgrade) {
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
}

/// An answer of some worker.
fn answer(service: &Service, request: &str) -> String {
    wait_until(request, || service.ask(request))
}

/// Exactly a master and its workers are there, and they answer.
#[track_caller]
fn serves_alone(service: &Service, master: i32, build: &str) {
    let workers = workers(master);
    wait_until("a master and its workers, and nobody else", || {
        let mut expected = workers.clone();
        expected.push(master);
        expected.sort_unstable();
        (service.daemons() == expected).then_some(())
    });
    let (pid, answered) = wait_until("an answer", || service.ping());
    assert!(workers.contains(&pid), "{pid} is not of {workers:?}");
    assert_eq!(answered, build);
}

#[test]
fn upgrades_under_load_refuse_and_fail_nothing_and_leave_no_worker() {
    let (mut service, mut master, mut before) = start();
    let load = Load::start(service.address);
    for round in 1..=10 {
        let (binary, build) = if round % 2 == 0 { (&programs().a, "a") } else { (&programs().b, "b") };
        committed(&service.upgrade(binary, &[]));
        // Already now: the drain was answered when the last one had gone.
        let left: Vec<&i32> = before.iter().filter(|pid| lives(**pid)).collect();
        assert!(left.is_empty(), "workers of the old generation live after the commit: {left:?}");
        wait_for_death(master);
        master = service.daemon_pid();
        before = workers(master);
        assert_eq!(wait_until("an answer", || service.ping()).1, build, "round {round}");
    }
    let count = load.stop();
    assert_eq!(answer(&service, "COUNT"), format!("COUNT {count}"));
    serves_alone(&service, master, "a");
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
    assert!(!service.stderr().contains("signal"), "a worker had to be killed: {}", service.stderr());
    println!("{count} requests");
}

#[test]
fn bad_successors_are_undone_under_load_and_the_workers_forked_anew() {
    let (service, master, mut before) = start();
    let load = Load::start(service.address);
    // The store knows nothing of this data: it comes up without a write that was acknowledged.
    for fault in ["exit-before-hello", "unhealthy", "old-revision"] {
        let upgrade = service.upgrade(&service.faulty(fault), &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{fault}: {upgrade:?}");
        let after = workers(master);
        let kept = before.iter().filter(|pid| after.contains(pid)).count();
        // A successor that never came to its Hello has not disturbed anybody.
        assert_eq!(kept, if fault == "exit-before-hello" { WORKERS } else { 0 }, "{fault}: {before:?}, {after:?}");
        before = after;
    }
    let count = load.stop();
    assert_eq!(answer(&service, "COUNT"), format!("COUNT {count}"));
    serves_alone(&service, master, "a");
    committed(&service.upgrade(&programs().b, &[]));
    serves_alone(&service, service.daemon_pid(), "b");
}

#[test]
fn a_worker_that_dies_is_forked_again() {
    let (service, master, before) = start();
    assert_eq!(increment(service.address), Ok(1));
    for worker in &before {
        signal(*worker, SIGKILL);
    }
    wait_until("new workers", || {
        let now = children(master);
        (now.len() == WORKERS && !now.iter().any(|pid| before.contains(pid))).then_some(())
    });
    assert_eq!(increment(service.address), Ok(2));
    serves_alone(&service, master, "a");
}

#[test]
fn a_worker_killed_during_the_drain_ends_it() {
    let (service, master, before) = start();
    freeze(before[0]);
    let upgrading = service.begin_upgrade(&programs().b, &[]);
    service.wait_for_phase("draining");
    before[1..].iter().for_each(|worker| wait_for_death(*worker));
    assert!(service.status().unwrap()["phase"] == "draining", "it waits for the last one");
    signal(before[0], SIGKILL);
    committed(&upgrading.wait());
    wait_for_death(master);
    serves_alone(&service, service.daemon_pid(), "b");
}

#[test]
fn a_worker_that_does_not_finish_is_killed_before_the_grace_is_over() {
    let (service, master, before) = start();
    freeze(before[0]);
    committed(&service.upgrade(&programs().b, &["--drain-grace", "8s"]));
    assert!(!lives(before[0]));
    wait_for_death(master);
    let killed = format!("prefork: worker {}: signal 9", before[0]);
    assert!(service.stderr().contains(&killed), "{}", service.stderr());
    serves_alone(&service, service.daemon_pid(), "b");
}

#[test]
fn a_drain_that_is_cancelled_forks_new_workers_beside_one_that_still_finishes() {
    let (service, master, before) = start();
    freeze(before[0]);
    let upgrading = service.begin_upgrade(&programs().b, &[]);
    service.wait_for_phase("draining");
    let successor = wait_until("the successor", || {
        service.daemons().into_iter().find(|pid| *pid != master && !before.contains(pid))
    });
    signal(successor, SIGKILL);
    let upgrade = upgrading.wait();
    assert_eq!(upgrade.result, "rolled_back", "{upgrade:?}");
    wait_until("new workers", || (children(master).len() == WORKERS + 1).then_some(()));
    assert_eq!(increment(service.address), Ok(1));
    thaw(before[0]);
    wait_for_death(before[0]);
    serves_alone(&service, master, "a");
    committed(&service.upgrade(&programs().b, &[]));
    serves_alone(&service, service.daemon_pid(), "b");
}

#[test]
fn workers_of_a_master_that_was_killed_finish_and_a_new_one_goes_on() {
    let (service, master, before) = start();
    assert_eq!(increment(service.address), Ok(1));
    signal(master, SIGKILL);
    wait_for_death(master);
    before.iter().for_each(|worker| wait_for_death(*worker));
    assert_eq!(increment(service.address), Ok(2));
    let next = service.daemon_pid();
    assert_ne!(next, master);
    serves_alone(&service, next, "a");
}

#[test]
fn an_idle_client_is_told_to_ask_the_next_one() {
    let (service, _, _) = start();
    let mut stream = TcpStream::connect(service.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap()).lines();
    stream.write_all(b"INC\nINC\n").unwrap();
    assert_eq!([replies.next().unwrap().unwrap(), replies.next().unwrap().unwrap()], ["OK 1", "OK 2"]);
    committed(&service.upgrade(&programs().b, &[]));
    assert_eq!(replies.next().unwrap().unwrap(), "CLOSE");
    assert_eq!(increment(service.address), Ok(3));
}
