//! One ordered pair of languages.

use crate::LOOK_AT_LOCK;
use crate::daemons::{FAULTS, Language};
use crate::support::load::{Load, LoadOptions, Report, verify};
use crate::support::streams::{Seen, Streams};
use crate::support::watch::LockWatch;
use crate::support::{Service, ask, wait_until};
use crate::table::{Outcome, Row, Tried};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Of those with a connection for each request; of those that keep theirs; and of those that keep theirs, number what they
/// send, and have always sent more than was executed.
const CLIENTS: usize = 4;
const KEPT: usize = 2;
const STREAMS: usize = 2;
/// Between two requests of a client. Without it they would take the machine from the successor, which is to start, and
/// make the log long, which everybody reads at the start.
const THINK: Duration = Duration::from_millis(5);
/// Of each kind of clients, before and after each handoff.
const WRITES: u64 = 4;

/// A load that is not allowed to see anything.
pub struct Watched {
    loads: [Load; 2],
    streams: Streams,
}

impl Watched {
    /// `name` begins its keys.
    pub fn start(service: &Service, name: &str) -> Self {
        let start = |clients, keep_alive, name| {
            Load::start(LoadOptions { clients, keep_alive, name, think: THINK, ..LoadOptions::new(service.address) })
        };
        let loads = [start(CLIENTS, false, name.to_owned()), start(KEPT, true, format!("{name}kept"))];
        Self { loads, streams: Streams::start(service.address, STREAMS, &format!("{name}stream")) }
    }

    /// All clients, those that keep their connections too, get on.
    fn goes_on(&self) {
        for load in &self.loads {
            let before = load.snapshot().acknowledged;
            wait_until("writes are acknowledged", || (load.snapshot().acknowledged >= before + WRITES).then_some(()));
        }
        self.streams.go_on();
    }

    /// What the loads have seen; a connection that was closed is one of those that are kept.
    pub fn stop(self) -> (Report, Seen) {
        let [mut all, kept] = self.loads.map(Load::stop);
        all.closed_connections = kept.closed_connections;
        all.requests += kept.requests;
        all.failed_requests += kept.failed_requests;
        all.failures.extend(kept.failures);
        all.acknowledged.extend(kept.acknowledged);
        (all, self.streams.stop())
    }
}

/// A successor that is not well: the incumbent serves again, as the same process.
fn roll_back(service: &Service, load: &Watched, from: &Language, to: &Language, fault: &str) {
    load.goes_on();
    let incumbent = service.daemon_pid();
    let upgrade = service.upgrade(&to.with_fault(service.dir.path(), fault), &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{fault}: {upgrade:?}");
    load.goes_on();
    serves(service, from, fault);
    assert_eq!(service.daemon_pid(), incumbent, "{fault}");
}

/// The builds that the state, which is in no file, has gone through.
fn lineage(service: &Service) -> String {
    let reply = wait_until("an answer", || ask(service.address, "LINEAGE"));
    reply.strip_prefix("LINEAGE ").unwrap_or_else(|| panic!("{reply}")).to_owned()
}

/// A handoff that commits; how long nobody accepted, in milliseconds.
pub fn commit(service: &Service, load: &Watched, to: &Language) -> f64 {
    load.goes_on();
    let (incumbent, before) = (service.daemon_pid(), lineage(service));
    let upgrade = service.upgrade(to.program(), &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
    load.goes_on();
    serves(service, to, "committed");
    assert_ne!(service.daemon_pid(), incumbent);
    let after = lineage(service);
    assert!(format!("{before} {}", to.name).ends_with(&after) && after.contains(' '), "state: {before}; {after}");
    let moved = upgrade.outcome["transferred_connections"].as_u64();
    assert!(moved.is_some_and(|moved| moved >= (KEPT + STREAMS) as u64), "{upgrade:?}");
    upgrade.outcome["pause_ns"].as_f64().unwrap() / 1e6
}

/// One process is left, it is in this language, and it is the one that answers.
fn serves(service: &Service, language: &Language, after: &str) {
    let answer = wait_until("an answer", || service.ping());
    assert_eq!(answer, (service.daemon_pid(), language.name.to_owned()), "{after}");
    wait_until("one daemon is left", || (service.daemons() == [answer.0]).then_some(()));
}

/// All that a pair is to show.
pub fn hand_over(service: &Service, number: usize, from: &Language, to: &Language) -> Row {
    let watch = LockWatch::start(service, LOOK_AT_LOCK);
    let load = Watched::start(service, &format!("{}-{}-{number}-", from.name, to.name));
    let rolled_back = attempt(|| FAULTS.iter().for_each(|fault| roll_back(service, &load, from, to, fault)));
    // After a rollback that failed nobody knows what a commit would show.
    let pause_ms = match &rolled_back {
        Ok(()) => attempt(|| commit(service, &load, to)),
        Err(_) => Err("not tried".into()),
    };
    let (seen, streams) = load.stop();
    let (looks, holders) = watch.stop();
    let lost = attempt(|| verify(service.address, &seen.acknowledged).unwrap());
    let (requests, failed_requests, failures) = (seen.requests, seen.failed_requests, seen.failures);
    let closed = seen.closed_connections + streams.closed;
    let numbers = streams.numbers.iter().sum();
    let failures = failures.into_iter().chain(streams.faults).collect();
    let tried =
        Tried { pause_ms, rolled_back, requests, failed_requests, failures, closed, numbers, lost, looks, holders };
    Row { from: from.name, to: to.name, outcome: Outcome::Tried(tried) }
}

fn attempt<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or_else(|_| "a panic".into(), |text| (*text).into()),
    })
}
