//! A supervisor that lies, to real daemons.

use crate::lies::{self, FRAMES, MESSAGES, every_message, frame, pipe, send_raw, send_with_pipes};
use crate::support::{self, Service, open_descriptors, programs, wait_until};
use handoff::channel::{Channel, Incoming};
use handoff::protocol::codec::encode;
use handoff::protocol::message::*;
use handoff::protocol::{HandoffId, Message};
use handoff::sys::page::{DecisionPage, Word};
use handoff::sys::pidfd::Pidfd;
use handoff::sys::seqpacket::Seqpacket;
use handoff::sys::spawn::{Spawn, spawn};
use nix::poll::{PollFd, PollFlags, poll};
use std::ffi::OsString;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A daemon, and our end of its session.
pub struct Daemon {
    pub pid: i32,
    pub pidfd: Pidfd,
    pub session: Channel,
}

impl Daemon {
    pub fn send(&mut self, message: Message) {
        self.session.send(&message, &[]).unwrap();
    }

    /// The next message that is no heartbeat; none at the end of the session.
    pub fn next(&mut self) -> Option<Message> {
        loop {
            match self.session.receive().unwrap() {
                Incoming::Message(Message::Heartbeat(_) | Message::SealProgress(_), ..) => {}
                Incoming::Message(message, ..) => return Some(message),
                Incoming::Nothing => {
                    let ready = poll(&mut [PollFd::new(self.session.as_fd(), PollFlags::POLLIN)], 60_000_u16);
                    assert_ne!(ready, Ok(0), "the daemon says nothing");
                }
                Incoming::End => return None,
            }
        }
    }

    pub fn dies(&self) {
        wait_until("its death", || self.pidfd.wait().unwrap());
    }
}

/// A store that serves under a supervisor of our own: this process.
pub struct Scene {
    // The daemons end with it.
    pub service: Service,
    pub listener: TcpListener,
    pub incumbent: Daemon,
    descriptors: usize,
    last_id: u64,
}

impl Scene {
    /// Any program that serves.
    pub fn with(program: &Path) -> Self {
        Self::with_program(|_| program.to_owned())
    }

    /// The same, of a program that is made for this service.
    pub fn with_program(program: impl FnOnce(&Service) -> PathBuf) -> Self {
        let mut service = Service::place();
        let program = &program(&service);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        service.address = listener.local_addr().unwrap();
        let mut incumbent = start(&service, &listener, program, false);
        let Some(Message::Hello(hello)) = incumbent.next() else { panic!("no Hello") };
        assert_eq!((hello.side, hello.pid), (Side::Incumbent, incumbent.pid.cast_unsigned()));
        incumbent.send(Message::HelloAck(HelloAck { version: 1, generation: 1, terms: None }));
        while !matches!(incumbent.next(), Some(Message::Serving(_))) {}
        Self { service, listener, incumbent, descriptors: 0, last_id: 1000 }
    }

    pub fn new() -> Self {
        let mut scene = Self::with(&programs().faulty);
        assert!(scene.service.ask("SET before 1").unwrap().starts_with("OK "));
        // The first handoff of a daemon may leave something open for the next ones.
        scene.undone_handoff();
        scene.descriptors = wait_until("quiet", || {
            let before = open_descriptors(scene.incumbent.pid);
            std::thread::sleep(std::time::Duration::from_millis(100));
            // It sleeps when it has closed what it needed.
            let quiet = support::waits(scene.incumbent.pid) && before == open_descriptors(scene.incumbent.pid);
            quiet.then_some(before)
        });
        scene
    }

    pub fn new_id(&mut self) -> HandoffId {
        self.last_id += 10;
        HandoffId(self.last_id)
    }

    /// Offers a handoff to nobody, and takes it back.
    fn undone_handoff(&mut self) {
        let id = self.new_id();
        let (fds, mut successor) = self.attachments(id);
        self.prepare(id, &fds);
        let next = self.incumbent.next();
        assert!(matches!(next, Some(Message::Drained(_))), "{next:?}");
        let _ = successor.kill();
        let _ = successor.wait();
        self.incumbent.send(Message::ResumeAfterAbort(ResumeAfterAbort { id }));
        assert!(matches!(self.incumbent.next(), Some(Message::Resumed(Resumed { error: None, .. }))));
    }

    /// A page, the pidfd of a process that only waits, and an end of a transfer socket.
    pub fn attachments(&self, id: HandoffId) -> ([OwnedFd; 3], std::process::Child) {
        let page = DecisionPage::create(None, id.0).unwrap();
        let child = self.service.other_command("sleep").arg("1000").spawn().unwrap();
        let pidfd = Pidfd::open(child.id() as i32).unwrap();
        let (transfer, _) = Seqpacket::pair().unwrap();
        let page = page.as_fd().try_clone_to_owned().unwrap();
        ([page, pidfd.as_fd().try_clone_to_owned().unwrap(), transfer.into()], child)
    }

    pub fn prepare(&mut self, id: HandoffId, fds: &[OwnedFd]) {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let mut bytes = Vec::new();
        encode(&Message::PrepareHandoff(lies::prepare(id)), &mut bytes).unwrap();
        // Past the check of the number.
        let socket = Seqpacket::from_fd(self.incumbent.session.as_fd().try_clone_to_owned().unwrap()).unwrap();
        socket.send(&bytes, &fds).unwrap();
    }

    /// Ends our session with the incumbent.
    pub fn hang_up(&mut self) {
        let (ours, _) = Seqpacket::pair().unwrap();
        self.incumbent.session = Channel::new(ours);
    }

    pub fn serves(&self, what: &str) {
        assert_eq!(self.service.wait_until_served(), self.incumbent.pid, "{what}");
        assert_eq!(self.service.ask("GET before").as_deref(), Some("VALUE 1"), "{what}");
    }

    pub fn leaks_nothing(&self, what: &str, closed: usize) {
        let wanted = self.descriptors - closed;
        wait_until(&format!("{wanted} descriptors {what}: {:?}", links(self.incumbent.pid)), || {
            (open_descriptors(self.incumbent.pid) == wanted).then_some(())
        });
    }

    /// The session is ended by the daemon, which serves on, and has a reason in its log.
    fn cut(mut self, what: &str, word: &str) {
        while self.incumbent.next().is_some() {}
        self.serves(what);
        self.leaks_nothing(what, 1);
        let log = self.service.stderr();
        assert!(log.contains(word) && !log.contains("panicked"), "{what}: no {word:?} in {log}");
    }

    /// An honest handoff.
    fn commits(mut self) {
        let id = self.new_id();
        let page = DecisionPage::create(None, id.0).unwrap();
        let (one, other) = Seqpacket::pair().unwrap();
        let mut next = start(&self.service, &self.listener, &programs().kv_b, true);
        let Some(Message::Hello(hello)) = next.next() else { panic!("no Hello") };
        assert_eq!(hello.side, Side::Successor);
        let prepare = lies::prepare(id);
        let terms =
            Terms { id, mode: Mode::Exclusive, deadline_ns: prepare.deadline_ns, park_ns: 0, open_descriptors: 0 };
        let ack = Message::HelloAck(HelloAck { version: 1, generation: 2, terms: Some(terms) });
        next.session.send(&ack, &[page.as_fd(), self.incumbent.pidfd.as_fd(), other.as_fd()]).unwrap();
        assert!(matches!(next.next(), Some(Message::Warmed(_))));
        let fds = [page.as_fd(), next.pidfd.as_fd(), one.as_fd()];
        self.incumbent.session.send(&Message::PrepareHandoff(prepare), &fds).unwrap();
        drop((one, other));
        assert!(matches!(self.incumbent.next(), Some(Message::Drained(_))));
        self.incumbent.send(Message::SealRequest(SealRequest { id }));
        let Some(Message::SealComplete(SealComplete { revisions, fingerprint, .. })) = self.incumbent.next() else {
            panic!("not sealed")
        };
        next.send(Message::Begin(Begin { id, sealed: Sealed::Complete { revisions, fingerprint } }));
        assert!(matches!(next.next(), Some(Message::Ready(_))));
        next.send(Message::Committed(Committed { id }));
        assert!(matches!(next.next(), Some(Message::Serving(_))));
        self.incumbent.send(Message::Commit(Commit { id }));
        self.incumbent.dies();
        assert_eq!(page.word(), Word::Committed);
        assert_eq!(self.service.wait_until_served(), next.pid);
        assert_eq!(self.service.ask("GET before").as_deref(), Some("VALUE 1"));
    }
}

fn links(pid: i32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    entries.filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.display().to_string())).collect()
}

pub fn start(service: &Service, listener: &TcpListener, program: &Path, successor: bool) -> Daemon {
    let (ours, theirs) = Seqpacket::pair().unwrap();
    let mut variables = vec![
        ("TEST_OF_HANDOFF", service.path("").display().to_string().trim_end_matches('/').to_owned()),
        ("HANDOFF_DATA_DIR", service.path("data").display().to_string()),
        ("HANDOFF_CONTROL", service.path("kv.control").display().to_string()),
        ("KV_FAULT", "logs".into()),
        ("LISTEN_FDS", "1".into()),
        ("LISTEN_FDNAMES", "kv".into()),
        ("HANDOFF_SOCK_FD", "4".into()),
    ];
    if successor {
        variables.push(("HANDOFF_ROLE", "successor".into()));
    }
    let env: Vec<(OsString, OsString)> = variables.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
    let stderr = File::options().append(true).create(true).open(service.path("run.stderr")).unwrap();
    let child = spawn(&Spawn {
        env: &env,
        fds: &[listener.as_fd(), theirs.as_fd()],
        stderr: Some(stderr.as_fd()),
        listen_pid: true,
        new_session: true,
        ..Spawn::new(program, &["kv".into()])
    })
    .unwrap();
    Daemon { pid: child.pid, pidfd: child.pidfd, session: Channel::new(ours) }
}

// ---- what it says at once

#[test]
fn an_honest_supervisor() {
    Scene::new().commits();
}

#[test]
fn any_message_to_a_daemon_that_serves() {
    for number in 0..MESSAGES {
        let mut scene = Scene::new();
        let id = scene.new_id();
        let message = every_message(id).swap_remove(number);
        let name = message.name();
        send_with_pipes(&mut scene.incumbent.session, &message);
        match name {
            // A refusal is known to be possible, and one who resumes again says so.
            "Reject" => {
                scene.serves(name);
                scene.leaks_nothing(name, 0);
                scene.commits();
            }
            "ResumeAfterAbort" => {
                assert!(matches!(scene.incumbent.next(), Some(Message::Resumed(_))));
                scene.leaks_nothing(name, 0);
                scene.commits();
            }
            "PrepareHandoff" => {
                let Some(Message::Reject(reject)) = scene.incumbent.next() else { panic!("not refused") };
                assert!(reject.text.contains("no decision page"), "{reject:?}");
                scene.serves(name);
                scene.leaks_nothing(name, 0);
                scene.commits();
            }
            _ => scene.cut(name, &format!("unexpected {name}")),
        }
    }
}

#[test]
fn frames_that_are_no_messages() {
    for (name, word) in FRAMES {
        let mut scene = Scene::new();
        let id = scene.new_id();
        assert!(send_raw(&scene.incumbent.session, &frame(name, id)));
        scene.cut(name, word);
    }
}

#[test]
fn a_hundred_thousand_messages_of_the_past() {
    let mut scene = Scene::new();
    let mut bytes = Vec::new();
    encode(&Message::Commit(Commit { id: HandoffId(1) }), &mut bytes).unwrap();
    (0..100_000).for_each(|_| assert!(send_raw(&scene.incumbent.session, &bytes)));
    scene.serves("many");
    scene.undone_handoff();
    scene.leaks_nothing("many", 0);
    scene.commits();
}

#[test]
fn a_session_that_is_closed() {
    let scene = Scene::new();
    drop(scene.incumbent.session);
    assert_eq!(scene.service.wait_until_served(), scene.incumbent.pid);
    wait_until("a line", || scene.service.stderr().contains("no supervisor any more").then_some(()));
}

// ---- what comes with an offer

/// An offer with these descriptors is refused with this word, and nothing is kept of it.
fn refused(scene: &mut Scene, what: &str, word: &str, change: impl FnOnce(HandoffId, Vec<OwnedFd>) -> Vec<OwnedFd>) {
    let id = scene.new_id();
    let (fds, mut child) = scene.attachments(id);
    let fds = change(id, fds.into());
    scene.prepare(id, &fds);
    drop(fds);
    let Some(Message::Reject(reject)) = scene.incumbent.next() else { panic!("{what} is not refused") };
    assert!(reject.text.contains(word), "{what}: no {word:?} in {reject:?}");
    scene.serves(what);
    scene.leaks_nothing(what, 0);
    assert!(support::lives(child.id() as i32), "{what}");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn with(mut fds: Vec<OwnedFd>, at: usize, fd: impl Into<OwnedFd>) -> Vec<OwnedFd> {
    fds[at] = fd.into();
    fds
}

fn file_of(bytes: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    file
}

#[test]
fn offers_with_descriptors_of_the_wrong_kind() {
    let scene = &mut Scene::new();
    refused(scene, "a pipe as the page", "no decision page: not a file", |_, fds| with(fds, 0, pipe()));
    refused(scene, "a short page", "this file has 12", |_, fds| with(fds, 0, file_of(12)));
    refused(scene, "a long page", "this file has 8192", |_, fds| with(fds, 0, file_of(8192)));
    refused(scene, "an empty page", "magic", |_, fds| with(fds, 0, file_of(4096)));
    refused(scene, "a directory", "no decision page", |_, fds| with(fds, 0, File::open("/").unwrap()));
    refused(scene, "the page of another handoff", "is of handoff", |id, fds| {
        let page = DecisionPage::create(None, id.0 - 1).unwrap();
        with(fds, 0, page.as_fd().try_clone_to_owned().unwrap())
    });
    refused(scene, "a page to read", "map the decision page", |id, fds| {
        let dir = tempfile::tempdir().unwrap();
        drop(DecisionPage::create(Some(&dir.path().join("page")), id.0).unwrap());
        with(fds, 0, File::open(dir.path().join("page")).unwrap())
    });
    refused(scene, "a directory of /proc as the pidfd", "no pidfd", |_, fds| {
        with(fds, 1, File::open("/proc/self").unwrap())
    });
    refused(scene, "a pipe as the pidfd", "no pidfd", |_, fds| with(fds, 1, pipe()));
    refused(scene, "a pipe as the transfer socket", "transfer socket", |_, fds| with(fds, 2, pipe()));
    refused(scene, "a listener as the transfer socket", "transfer socket", |_, fds| {
        with(fds, 2, TcpListener::bind("127.0.0.1:0").unwrap())
    });
    refused(scene, "another order", "no decision page", |_, mut fds| {
        fds.reverse();
        fds
    });
    scene.undone_handoff();
    scene.leaks_nothing("in the end", 0);
}

#[test]
fn offers_with_the_wrong_number_of_descriptors() {
    for (count, word) in [(0, "came with 0"), (2, "came with 2"), (4, "came with 4"), (253, "came with 253")] {
        let mut scene = Scene::new();
        let id = scene.new_id();
        let (fds, child) = scene.attachments(id);
        let mut fds = Vec::from(fds);
        fds.resize_with(count, pipe);
        scene.prepare(id, &fds);
        drop(fds);
        scene.cut(&format!("{count} descriptors"), word);
        drop(child);
    }
}

#[test]
fn offers_that_are_over_before_they_begin() {
    let mut scene = Scene::new();
    let old = HandoffId(scene.last_id);
    let (fds, mut child) = scene.attachments(old);
    scene.prepare(old, &fds);
    scene.serves("an old offer");
    scene.leaks_nothing("an old offer", 0);
    let (fds, mut other) = scene.attachments(HandoffId::COLD);
    scene.prepare(HandoffId::COLD, &fds);
    drop(fds);
    for child in [&mut child, &mut other] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    scene.cut("an offer without a number", "unexpected PrepareHandoff");
}

/// A successor's page is the one that came first.
#[test]
fn a_second_page_for_a_successor() {
    let scene = Scene::new();
    let id = HandoffId(5000);
    let (pages, sockets) =
        ([0, 1].map(|_| DecisionPage::create(None, id.0).unwrap()), [0, 1].map(|_| Seqpacket::pair().unwrap()));
    let mut next = start(&scene.service, &scene.listener, &programs().kv_b, true);
    next.next().unwrap();
    let deadline_ns = lies::prepare(id).deadline_ns;
    let terms = Some(Terms { id, mode: Mode::Exclusive, deadline_ns, park_ns: 0, open_descriptors: 0 });
    for (page, (_, socket)) in pages.iter().zip(&sockets) {
        let ack = Message::HelloAck(HelloAck { version: 1, generation: 2, terms });
        let fds = [page.as_fd(), scene.incumbent.pidfd.as_fd(), socket.as_fd()];
        next.session.send(&ack, &fds).unwrap();
        if let Some(Message::Warmed(_)) = next.next() {}
    }
    next.dies();
    assert_eq!(pages.map(|page| page.word()), [Word::Revoked, Word::Open]);
    scene.serves("a second page");
}
