//! A successor that has committed, and dies before it has said that it serves.

use super::{KeptAlive, Service, wait_until};
use std::io::{BufRead, ErrorKind, Write};
use std::path::Path;

impl KeptAlive {
    /// Part of a request, or more than one.
    pub fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// The next reply; none: the connection has ended.
    pub fn reply(&mut self) -> Option<String> {
        let mut reply = String::new();
        match self.replies.read_line(&mut reply) {
            Ok(0) => None,
            Ok(_) => Some(reply.trim_end().to_owned()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The store goes on after a `fleeting` one, but not with the connections that this one has had: it has read of them, and
/// replied.
pub fn what_was_given_is_not_used_again(store: &Path, fleeting: &Path) {
    let service = Service::start(store);
    let before = service.daemon_pid();
    let mut idle = KeptAlive::connect(service.address);
    assert!(idle.ask("PING").starts_with(&format!("PONG {before} ")));
    let mut cut = KeptAlive::connect(service.address);
    cut.say("SET whole 1\nSET cut ");
    assert_eq!(cut.reply().as_deref(), Some("OK 1"));
    let upgrading = service.begin_upgrade(fleeting, &[]);
    wait_until("the commit", || service.stderr().contains("kv: committed\n").then_some(()));
    cut.say("2\n");
    assert_eq!(cut.reply().as_deref(), Some("OK 2"));
    let upgrade = upgrading.wait();
    assert_eq!((upgrade.code, upgrade.result.as_str()), (11, "reverted"), "{upgrade:?}");
    // Whoever went on from "SET cut " would take this for a value. It is reset, if it comes late.
    let _ = cut.stream.write_all(b"9\n");
    assert_eq!(cut.reply(), None);
    assert_eq!(idle.reply(), None);
    let mut again = KeptAlive::connect(service.address);
    assert_eq!([again.ask("GET whole"), again.ask("GET cut")], ["VALUE 1", "VALUE 2"]);
    assert!(again.ask("PING").starts_with(&format!("PONG {before} ")));
    // What it has not given, it keeps; and it gives it the next time.
    again.say("SET cut ");
    assert_eq!(service.upgrade(store, &[]).result, "committed");
    again.say("3\n");
    assert_eq!(again.reply().as_deref(), Some("OK 3"));
}
