//! What becomes of connections that were given to a successor that commits, and then dies or hangs up: in each store.

use super::daemons::{Language, languages};
use super::support::streams::Streams;
use super::support::{KeptAlive, SIGKILL, Service, signal, wait_until};
use handoff::limits::{HEARTBEAT, RESERVE_SILENCE};
use std::fs;

/// The longest line of the store is shorter.
const TOO_LONG: usize = 4096;
const STREAMS: u64 = 2;

fn store(name: &str) -> &'static Language {
    languages().iter().find(|language| language.name == name).unwrap()
}

fn in_each_store(check: impl Fn(&Service, &mut KeptAlive, &Streams)) {
    for language in languages().iter().filter(|language| language.is_there()) {
        println!("{}", language.name);
        let service = Service::start(language.program());
        let mut client = KeptAlive::connect(service.address);
        assert!(client.ask("SET key first").starts_with("OK "));
        let streams = Streams::start(service.address, STREAMS as usize, "stream");
        streams.go_on();
        check(&service, &mut client, &streams);
        streams.go_on();
        let seen = streams.stop();
        assert_eq!((seen.closed, seen.faults), (STREAMS, Vec::new()), "{}", language.name);
    }
}

#[test]
fn nobody_goes_on_with_a_client_of_a_successor_that_has_died() {
    in_each_store(|service, client, _| {
        let incumbent = service.daemon_pid();
        client.say("SET key la");
        let upgrading = service.begin_upgrade(&store("c").with_fault(service.dir.path(), "dies-unseen"), &[]);
        let mark = service.path("data/unseen");
        wait_until("the successor serves", || mark.exists().then_some(()));
        client.say("st\nGET key\n");
        assert!(client.hear().starts_with("OK "));
        assert_eq!(client.hear(), "VALUE last\n");
        fs::remove_file(&mark).unwrap();
        let upgrade = upgrading.wait();
        assert_eq!((upgrade.code, upgrade.result.as_str()), (11, "reverted"), "{upgrade:?}");
        // What the incumbent had read of it was executed, by the successor.
        assert_eq!(client.hear(), "");
        assert_eq!(service.wait_until_served(), incumbent);
        assert_eq!(service.ask("GET key").unwrap(), "VALUE last");
    });
}

#[test]
fn clients_see_that_the_successor_hangs_up_while_its_incumbent_is_parked() {
    in_each_store(|service, client, streams| {
        let incumbent = service.daemon_pid();
        let upgrade = service.upgrade(store("c").program(), &["--probation", "10m"]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
        let successor = upgrade.outcome["pid"].as_i64().unwrap() as i32;
        assert_eq!(client.ask("PING"), format!("PONG {successor} c"));
        client.say(&"x".repeat(TOO_LONG));
        assert_eq!(client.hear(), "ERR the line is too long\n");
        assert_eq!(client.hear(), "");
        streams.go_on();
        assert_eq!(streams.seen().closed, 0);
        signal(successor, SIGKILL);
        assert_eq!(service.wait_until_served(), incumbent);
        assert_eq!(service.ask("GET key").unwrap(), "VALUE first");
    });
}

/// However its daemon waits, a reserve says that it is there, long after the commit: otherwise nobody could go back to it.
#[test]
fn a_reserve_is_heard_of_for_as_long_as_it_waits() {
    let reserves: Vec<_> = languages().iter().filter(|language| language.is_there()).map(parked).collect();
    // More than it may be silent; there is no event to wait for.
    std::thread::sleep(RESERVE_SILENCE + HEARTBEAT);
    for (language, service, incumbent) in reserves {
        let output = service.command("rollback").arg("--json").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{language}: {}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(service.wait_until_served(), incumbent, "{language}");
    }
}

/// A service whose first process, in this language, is a reserve.
fn parked(language: &Language) -> (&'static str, Service, i32) {
    let service = Service::start(language.program());
    let incumbent = service.daemon_pid();
    let upgrade = service.upgrade(store("c").program(), &["--probation", "10m"]);
    assert_eq!(upgrade.result, "committed", "{}: {upgrade:?}", language.name);
    (language.name, service, incumbent)
}
