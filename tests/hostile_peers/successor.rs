//! A successor that lies, under the real program.

use crate::lies::{self, FRAMES, MESSAGES, every_message, frame, send_raw, send_with_pipes};
use crate::support::{Service, Upgrade, open_descriptors, programs, wait_for_death, wait_until};
use handoff::channel::{Channel, Incoming};
use handoff::protocol::message::*;
use handoff::protocol::transfer::Totals;
use handoff::protocol::{HandoffId, Message};
use handoff::sys::page::DecisionPage;
use handoff::sys::seqpacket::Seqpacket;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

// ---- the liar

/// What a handoff brings.
struct Shared {
    id: HandoffId,
    page: DecisionPage,
    transfer: OwnedFd,
}

struct Liar {
    session: Channel,
    /// Where it lies, and what it says.
    stage: String,
    lie: String,
    shared: Option<Shared>,
}

/// Runs if this process is a liar; then it does not return.
pub fn run() {
    let Ok(script) = std::env::var("LIE") else { return };
    nix::unistd::alarm::set(120); // at the latest
    let inherited = handoff::sys::env::take().unwrap();
    let session = Channel::new(Seqpacket::from_fd(inherited.session.unwrap()).unwrap());
    let (stage, lie) = script.split_once(' ').unwrap();
    Liar { session, stage: stage.into(), lie: lie.into(), shared: None }.live()
}

impl Liar {
    fn live(mut self) -> ! {
        self.at("hello");
        self.send(Message::Hello(lies::hello(Side::Successor, std::process::id())));
        let (Message::HelloAck(HelloAck { terms: Some(terms), .. }), fds) = self.next() else { leave() };
        let [page, _, transfer] = <[OwnedFd; 3]>::try_from(fds).unwrap();
        let id = terms.id;
        self.shared = Some(Shared { id, page: DecisionPage::map(page).unwrap(), transfer });
        self.at("warming");
        self.send(Message::Warmed(Warmed { id }));
        self.at("draining");
        let (Message::Begin(Begin { sealed: Sealed::Complete { revisions, .. }, .. }), _) = self.next() else {
            leave()
        };
        self.at("begun");
        let readiness = Readiness { revisions, ..Readiness::default() };
        self.send(Message::Ready(Ready { id, readiness, taken: Totals::default() }));
        let (Message::Committed(_), _) = self.next() else { leave() };
        self.at("committed");
        leave()
    }

    fn id(&self) -> HandoffId {
        self.shared.as_ref().map_or(HandoffId(1), |shared| shared.id)
    }

    fn send(&mut self, message: Message) {
        let _ = self.session.send(&message, &[]);
    }

    /// The next message. It leaves at the end of the session, and when nothing comes for a while.
    fn next(&mut self) -> (Message, Vec<OwnedFd>) {
        loop {
            match self.session.receive().unwrap() {
                Incoming::Message(message, fds, _) => return (message, fds),
                Incoming::Nothing => {
                    if poll(&mut [PollFd::new(self.session.as_fd(), PollFlags::POLLIN)], 500_u16) == Ok(0) {
                        leave();
                    }
                }
                Incoming::End => leave(),
            }
        }
    }

    fn at(&mut self, stage: &str) {
        if self.stage == stage {
            self.tell_lie();
            self.next();
            leave();
        }
    }

    fn tell_lie(&mut self) {
        let id = self.id();
        let (kind, what) = self.lie.split_once(' ').unwrap_or((&self.lie, ""));
        match kind {
            "message" => send_with_pipes(&mut self.session, &every_message(id)[what.parse::<usize>().unwrap()]),
            // Of a handoff that is over, and of one that nobody has begun.
            "past" => send_with_pipes(&mut self.session, &every_message(HandoffId(1))[what.parse::<usize>().unwrap()]),
            "future" => {
                let id = HandoffId(id.0 + 1);
                send_with_pipes(&mut self.session, &every_message(id)[what.parse::<usize>().unwrap()]);
            }
            "frame" => drop(send_raw(&self.session, &frame(what, id))),
            "pipes" => {
                let pipes: Vec<OwnedFd> = (0..what.parse().unwrap()).map(|_| lies::pipe()).collect();
                let fds: Vec<BorrowedFd<'_>> = pipes.iter().map(AsFd::as_fd).collect();
                let socket = Seqpacket::from_fd(self.session.as_fd().try_clone_to_owned().unwrap()).unwrap();
                socket.send(&frame("heartbeat", id), &fds).unwrap();
            }
            "hello" => {
                let mut hello = lies::hello(Side::Successor, std::process::id());
                match what {
                    "pid" => hello.pid = 1,
                    "side" => hello.side = Side::Incumbent,
                    "version" => (hello.version_min, hello.version_max) = (7, 9),
                    "capabilities" => hello.capabilities = 0,
                    "time" => hello.time_namespace = 1,
                    other => panic!("unknown: {other}"),
                }
                self.send(Message::Hello(hello));
            }
            "heartbeats" => {
                let bytes = frame("heartbeat", id);
                (0..what.parse().unwrap()).all(|_| send_raw(&self.session, &bytes));
            }
            "bytes" => frame("heartbeat", id).chunks(1).for_each(|byte| {
                std::thread::sleep(std::time::Duration::from_secs(1));
                send_raw(&self.session, byte);
            }),
            "page" => {
                self.shared.as_ref().unwrap().page.set_serving();
                shutdown(self.session.as_fd().as_raw_fd(), Shutdown::Both).unwrap();
                std::thread::sleep(std::time::Duration::from_secs(60));
            }
            "flood" => self.flood(),
            "flood-incumbent" => self.flood_incumbent(),
            "nothing" => {}
            other => panic!("unknown: {other}"),
        }
    }

    /// Heartbeats without end.
    fn flood(&self) {
        flood(&self.session, self.id());
    }

    fn flood_incumbent(&self) {
        flood(&self.shared.as_ref().unwrap().transfer, self.id());
    }
}

/// Fills a queue again as soon as there is room, from several threads: faster than anybody reads.
fn flood(socket: impl AsFd + Sync, id: HandoffId) {
    let bytes = frame("heartbeat", id);
    let spin = || {
        loop {
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match send(socket.as_fd().as_raw_fd(), &bytes, flags) {
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(_) => return,
            }
        }
    };
    std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(spin))));
}

fn leave() -> ! {
    std::process::exit(7)
}

// ---- the scene

/// A store that serves, and how it was before anybody lied.
struct Scene {
    service: Service,
    incumbent: i32,
    descriptors: (usize, usize),
    lies: usize,
}

impl Scene {
    fn new() -> Self {
        let service = Service::start(&programs().kv_a);
        assert!(service.ask("SET before 1").unwrap().starts_with("OK "));
        let incumbent = service.daemon_pid();
        // The first handoff of a daemon may leave something open for the next ones.
        let mut scene = Self { service, incumbent, descriptors: (0, 0), lies: 0 };
        scene.upgrade_to_liar("hello", "nothing", &[]);
        scene.upgrade_to_liar("committed", "nothing", &[]);
        scene.descriptors = scene.stable_descriptors();
        scene
    }

    /// Of supervisor and incumbent, when no client is being answered.
    fn descriptors(&self) -> (usize, usize) {
        (open_descriptors(self.service.supervisor_pid()), open_descriptors(self.incumbent))
    }

    fn stable_descriptors(&self) -> (usize, usize) {
        wait_until("quiet", || {
            let before = self.descriptors();
            std::thread::sleep(std::time::Duration::from_millis(100));
            (before == self.descriptors()).then_some(before)
        })
    }

    fn liar(&mut self, stage: &str, lie: &str) -> PathBuf {
        self.lies += 1;
        let script = self.service.path(&format!("liar-{}", self.lies));
        let exe = std::env::current_exe().unwrap();
        let run = format!("exec '{}' --exact liar_main --nocapture -q", exe.display());
        fs::write(&script, format!("#!/bin/sh\nLIE='{stage} {lie}' {run}\n")).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        script
    }

    fn upgrade_to_liar(&mut self, stage: &str, lie: &str, arguments: &[&str]) -> Upgrade {
        let script = self.liar(stage, lie);
        let upgrade = self.service.upgrade(&script, arguments);
        fs::remove_file(script).unwrap();
        upgrade
    }

    /// An upgrade to a liar is undone, and leaves nothing. Its reason has this word.
    fn survives(&mut self, stage: &str, lie: &str, word: &str) {
        self.survives_with(stage, lie, word, &[]);
    }

    fn survives_with(&mut self, stage: &str, lie: &str, word: &str, arguments: &[&str]) {
        let upgrade = self.upgrade_to_liar(stage, lie, arguments);
        let known = matches!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back") | (13, "refused"));
        // At the deadline a liar may still have to be killed.
        let undone = known || arguments.contains(&"--deadline") && upgrade.result == "undecided";
        assert!(undone && !upgrade.reason.is_empty(), "{stage} {lie}: {upgrade:?}");
        assert!(upgrade.reason.contains(word), "{stage} {lie}: no {word:?} in {upgrade:?}");
        assert_eq!(self.service.wait_until_served(), self.incumbent, "{stage} {lie}");
        assert_eq!(self.service.ask("GET before").as_deref(), Some("VALUE 1"));
        wait_until(&format!("{stage} {lie}: one daemon"), || {
            (self.service.daemons() == [self.incumbent]).then_some(())
        });
    }

    /// Nothing was leaked, nobody panicked, and an honest successor is taken.
    fn ends_well(self) {
        let wanted = self.descriptors;
        wait_until(&format!("{wanted:?} descriptors, not {:?}", self.descriptors()), || {
            (self.descriptors() == wanted).then_some(())
        });
        let log = self.service.stderr();
        assert!(!log.contains("panicked"), "{log}");
        let next = self.service.upgrade(&programs().kv_b, &[]);
        assert_eq!((next.code, next.result.as_str()), (0, "committed"), "{next:?}");
        wait_for_death(self.incumbent);
        assert_eq!(self.service.ask("GET before").as_deref(), Some("VALUE 1"));
        assert_eq!(self.service.ping().unwrap().1, "b");
    }
}

fn every_lie_at(stage: &str) {
    let mut scene = Scene::new();
    for number in 0..MESSAGES {
        // A Serving that is not true has a test of its own.
        if stage != "committed" || number != 16 {
            scene.survives(stage, &format!("message {number}"), "");
        }
    }
    for (name, word) in FRAMES {
        scene.survives(stage, &format!("frame {name}"), word);
    }
    scene.survives(stage, "pipes 1", "Heartbeat came with 1 descriptors, it needs 0");
    scene.survives(stage, "pipes 253", "Heartbeat came with 253 descriptors, it needs 0");
    scene.survives(stage, "nothing", "");
    scene.ends_well();
}

#[test]
fn a_successor_that_lies_before_it_says_hello() {
    every_lie_at("hello");
}

#[test]
fn a_successor_that_lies_while_it_should_warm() {
    every_lie_at("warming");
}

#[test]
fn a_successor_that_lies_while_the_incumbent_drains() {
    every_lie_at("draining");
}

#[test]
fn a_successor_that_lies_while_it_should_open() {
    every_lie_at("begun");
}

#[test]
fn a_successor_that_lies_while_it_should_commit() {
    every_lie_at("committed");
}

#[test]
fn a_successor_that_speaks_of_other_handoffs() {
    let mut scene = Scene::new();
    for number in 0..MESSAGES {
        scene.survives("begun", &format!("past {number}"), "");
        scene.survives("warming", &format!("future {number}"), "");
    }
    scene.ends_well();
}

#[test]
fn a_successor_that_is_not_who_it_says() {
    let mut scene = Scene::new();
    scene.survives("hello", "hello pid", "said Hello (as 1)");
    scene.survives("hello", "hello side", "was started as Successor");
    scene.survives("hello", "hello version", "speaks protocol 7 to 9");
    scene.survives("hello", "hello capabilities", "the daemon offers exclusive mode, the successor");
    scene.survives("hello", "hello time", "time namespace");
    scene.ends_well();
}

#[test]
fn a_successor_whose_heart_beats_a_hundred_thousand_times() {
    let mut scene = Scene::new();
    for stage in ["warming", "begun", "committed"] {
        scene.survives(stage, "heartbeats 100000", "");
    }
    scene.ends_well();
}

#[test]
fn a_successor_whose_heart_beats_without_end() {
    let mut scene = Scene::new();
    scene.survives_with("warming", "flood", "deadline", &["--deadline", "2s"]);
    scene.survives_with("begun", "flood", "", &["--deadline", "60s", "--ready-timeout", "1s"]);
    scene.ends_well();
}

#[test]
fn a_successor_that_floods_the_incumbent() {
    let mut scene = Scene::new();
    scene.survives_with("draining", "flood-incumbent", "", &["--deadline", "3s"]);
    scene.survives_with("begun", "flood-incumbent", "", &["--deadline", "60s", "--ready-timeout", "1s"]);
    scene.ends_well();
}

#[test]
fn a_successor_that_says_it_serves_but_never_won() {
    let mut scene = Scene::new();
    scene.survives("committed", "message 16", "never won");
    scene.ends_well();
}

#[test]
fn a_successor_whose_page_says_it_serves_but_never_won() {
    let mut scene = Scene::new();
    scene.survives("committed", "page", "");
    scene.ends_well();
}

/// One byte a second is no message, and no sign of life either: it is a bad frame at once, not a slow good one.
#[test]
fn a_successor_that_sends_a_heartbeat_byte_by_byte() {
    let mut scene = Scene::new();
    for stage in ["hello", "warming", "draining", "begun", "committed"] {
        scene.survives(stage, "bytes", "a frame of 1 bytes");
    }
    scene.ends_well();
}
