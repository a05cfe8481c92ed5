//! A daemon for the tests: this executable once more, following a script, with the protocol by hand.
//!
//! `PEER` has words that say where it misbehaves; `PEER_LOG` is a file for what it does.

use handoff::channel::{Channel, Incoming};
use handoff::protocol::codec::encode;
use handoff::protocol::message::*;
use handoff::protocol::transfer::Totals;
use handoff::protocol::{HandoffId, Message};
use handoff::sys::clock::monotonic_ns;
use handoff::sys::page::{DecisionPage, Word};
use handoff::sys::pidfd::Pidfd;
use handoff::sys::seqpacket::Seqpacket;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use nix::sys::socket::{MsgFlags, send};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

struct Peer {
    session: Channel,
    script: String,
}

/// What a handoff brings to each side.
struct Shared {
    id: HandoffId,
    page: DecisionPage,
    other: Pidfd,
    _transfer: OwnedFd,
}

/// Runs if this process is a peer; then it does not return.
pub fn run() {
    let Ok(script) = std::env::var("PEER") else { return };
    nix::unistd::alarm::set(120); // at the latest: a test that fails leaves nobody behind
    let inherited = handoff::sys::env::take().expect("a supervisor started this");
    let session = Channel::new(Seqpacket::from_fd(inherited.session.expect("a session")).unwrap());
    log(&format!("started with {} listeners", inherited.listeners.len()));
    let mut peer = Peer { session, script };
    if inherited.role_is_successor {
        peer.succeed()
    } else {
        peer.start_cold()
    }
    peer.serve();
}

fn log(line: &str) {
    if let Some(path) = std::env::var_os("PEER_LOG") {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(format!("{} {line}\n", std::process::id()).as_bytes()).unwrap();
    }
}

fn exit(code: i32) -> ! {
    std::process::exit(code)
}

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn wait(fd: BorrowedFd<'_>) {
    let _ = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::NONE);
}

const FINGERPRINT: Fingerprint = Fingerprint { directory: (1, 2), lock: (1, 3) };

impl Peer {
    fn does(&self, word: &str) -> bool {
        self.script.split(' ').any(|w| w == word)
    }

    /// Misbehaves here, if the script says so.
    fn at(&self, step: &str) {
        if self.does(&format!("hang-{step}")) {
            log(&format!("hangs at {step}"));
            hang();
        }
        if self.does(&format!("die-{step}")) {
            eprintln!("last words at {step}");
            exit(3);
        }
        if self.does(&format!("kill-{step}")) {
            raise(Signal::SIGKILL).unwrap();
        }
    }

    fn send(&mut self, message: Message) {
        let _ = self.session.send(&message, &[]);
    }

    /// The next message; None at the end of the session.
    fn next(&mut self) -> Option<(Message, Vec<OwnedFd>)> {
        loop {
            match self.session.receive().expect("a message") {
                Incoming::Message(message, fds, _) => return Some((message, fds)),
                Incoming::Nothing => wait(self.session.as_fd()),
                Incoming::End => return None,
            }
        }
    }

    fn hello(&mut self, side: Side) {
        self.at("hello");
        let hello = Hello {
            side,
            pid: std::process::id(),
            version_min: if self.does("new-protocol") { 7 } else { 1 },
            version_max: if self.does("new-protocol") { 9 } else { 1 },
            capabilities: capability::EXCLUSIVE,
            generation: 0,
            open_descriptors: 10,
            descriptors_max: 0,
            time_namespace: 0,
            build_id: b"test".to_vec(),
        };
        self.send(Message::Hello(hello));
    }

    fn start_cold(&mut self) {
        self.hello(Side::Incumbent);
        let Some((Message::HelloAck(ack), _)) = self.next() else { exit(10) };
        assert!(ack.terms.is_none());
        self.at("serving");
        let id = HandoffId::COLD;
        self.send(Message::Serving(Serving { id, committed_ns: monotonic_ns(), control: Ok(()) }));
    }

    fn succeed(&mut self) {
        self.hello(Side::Successor);
        let Some((Message::HelloAck(HelloAck { terms: Some(terms), generation, .. }), fds)) = self.next() else {
            exit(10)
        };
        log(&format!("successor of generation {generation}"));
        let shared = Shared::new(terms.id, fds);
        let id = shared.id;
        if self.does("floods") {
            self.flood(id);
        }
        self.at("warmed");
        self.send(Message::Warmed(Warmed { id }));
        let sealed = match self.next() {
            Some((Message::Begin(begin), _)) => begin.sealed,
            Some((Message::Abort(_), _)) => exit(12),
            _ => exit(11),
        };
        self.at("begin");
        let mut readiness = Readiness { revisions: vec![5], ..Readiness::default() };
        if sealed == Sealed::Recover {
            log("recovers");
        }
        readiness.unhealthy = self.does("unhealthy");
        readiness.format_changes = self.does("migrates");
        readiness.detail = "a test".into();
        if self.does("loses-writes") {
            readiness.revisions = vec![4];
        }
        self.send(Message::Ready(Ready { id, readiness, taken: Totals::default() }));
        let Some((Message::Committed(_), _)) = self.next() else { exit(11) };
        self.at("committed");
        let word = if self.does("migrates") { Word::CommittedIncompatible } else { Word::Committed };
        let committed_ns = monotonic_ns();
        if shared.page.decide(word) != word {
            exit(12);
        }
        self.at("won");
        shared.page.set_serving();
        if self.does("cut-won") {
            // The session is lost with both sides alive.
            nix::sys::socket::shutdown(
                std::os::fd::AsRawFd::as_raw_fd(&self.session.as_fd()),
                nix::sys::socket::Shutdown::Both,
            )
            .unwrap();
            log("serves unheard");
            hang();
        }
        log("serves");
        self.send(Message::Serving(Serving { id, committed_ns, control: Ok(()) }));
    }

    /// Heartbeats without end, with their number, from several threads: faster than anybody reads.
    fn flood(&self, id: HandoffId) {
        const FLAGS: MsgFlags = MsgFlags::MSG_NOSIGNAL.union(MsgFlags::MSG_DONTWAIT);
        let number = AtomicU64::new(0);
        let mut frame = Vec::new();
        encode(&Message::Heartbeat(Heartbeat { id, progress: Some((0, 0)) }), &mut frame).unwrap();
        let done = frame.len() - 16;
        let spin = || {
            let mut frame = frame.clone();
            loop {
                frame[done..done + 8].copy_from_slice(&number.fetch_add(1, Ordering::Relaxed).to_le_bytes());
                while let Err(errno) = send(self.session.as_fd().as_raw_fd(), &frame, FLAGS) {
                    if errno != Errno::EAGAIN {
                        exit(3);
                    }
                }
            }
        };
        std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(spin))));
    }

    fn serve(&mut self) -> ! {
        loop {
            let Some((message, fds)) = self.next() else { self.unsupervised() };
            match message {
                Message::HelloAck(_) | Message::ResumeAfterAbort(_) => {}
                Message::PrepareHandoff(prepare) => {
                    let shared = Shared::new(prepare.id, fds);
                    self.hand_over(&shared);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn unsupervised(&self) -> ! {
        log("no supervisor");
        if self.does("outlive") { hang() } else { exit(0) }
    }

    /// Returns if it serves again.
    fn hand_over(&mut self, shared: &Shared) {
        let id = shared.id;
        self.at("drain");
        let accept_stopped_ns = monotonic_ns();
        if self.does("no-drain") {
            let error = "the disk is full".into();
            self.send(Message::SealFailed(SealFailed { id, step: SealStep::Drain, error }));
        } else {
            self.send(Message::Drained(Drained { id, connections_open: 0, accept_stopped_ns }));
        }
        loop {
            let Some((message, _)) = self.next() else {
                self.resume(shared);
                self.unsupervised();
            };
            match message {
                Message::SealRequest(_) => {
                    self.at("seal");
                    self.send(Message::SealProgress(SealProgress { id, done: 1, total: 2 }));
                    let revisions = vec![5];
                    self.send(Message::SealComplete(SealComplete { id, revisions, fingerprint: FINGERPRINT }));
                }
                Message::Commit(_) => {
                    self.at("commit");
                    log("replaced");
                    shared.page.set_retired(false);
                    self.at("retired");
                    exit(0);
                }
                Message::ResumeAfterAbort(_) => {
                    self.resume(shared);
                    self.send(Message::Resumed(Resumed { id, error: None }));
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The fence of an incumbent.
    fn resume(&self, shared: &Shared) {
        if shared.page.decide(Word::Revoked) == Word::Revoked {
            shared.other.kill(Signal::SIGKILL).unwrap();
        }
        wait(shared.other.as_fd());
        log("resumed");
    }
}

impl Shared {
    fn new(id: HandoffId, fds: Vec<OwnedFd>) -> Self {
        let [page, other, _transfer] = <[OwnedFd; 3]>::try_from(fds).unwrap();
        let (page, other) = (DecisionPage::map(page).unwrap(), Pidfd::from_fd(other).unwrap());
        assert_eq!(page.id(), id.0);
        Self { id, page, other, _transfer }
    }
}
