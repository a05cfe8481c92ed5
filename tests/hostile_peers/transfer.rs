//! Lies on the socket between the two daemons.

use crate::lies::{self, pipe};
use crate::supervisor::{Daemon, Scene, start};
use crate::support::{compile, programs, wait_until};
use handoff::channel::{Channel, Incoming};
use handoff::protocol::message::*;
use handoff::protocol::transfer::{Connection, Connections, Room, State, Taken, Totals};
use handoff::protocol::{HandoffId, Message};
use handoff::sys::fd::identify;
use handoff::sys::page::DecisionPage;
use handoff::sys::seqpacket::Seqpacket;
use std::os::fd::{AsFd, OwnedFd};

const ID: HandoffId = HandoffId(100_000);

/// A real successor, its word, and the incumbent's end of its transfer socket.
fn successor(scene: &Scene) -> (Daemon, DecisionPage, Channel) {
    let page = DecisionPage::create(None, ID.0).unwrap();
    let (one, other) = Seqpacket::pair().unwrap();
    let mut next = start(&scene.service, &scene.listener, &programs().kv_b, true);
    assert!(matches!(next.next(), Some(Message::Hello(hello)) if hello.capabilities & capability::TRANSFER != 0));
    let deadline_ns = lies::prepare(ID).deadline_ns;
    let terms = Some(Terms { id: ID, deadline_ns, ..Terms::default() });
    let ack = Message::HelloAck(HelloAck { version: 1, generation: 2, terms });
    next.session.send(&ack, &[page.as_fd(), scene.incumbent.pidfd.as_fd(), other.as_fd()]).unwrap();
    assert!(matches!(next.next(), Some(Message::Warmed(_))));
    (next, page, Channel::new(one))
}

/// A batch of one, and its descriptor.
fn connection(batch: u32) -> Sent {
    let fd = pipe();
    let (_, file, _) = identify(fd.as_fd()).unwrap();
    let connections = vec![Connection { file, name: b"n".into(), state: b"state".into() }];
    (Message::Connections(Connections { id: ID, batch, connections }), fd)
}

fn state(batch: u32, key: &str, sealed: bool) -> Message {
    Message::State(State { id: ID, batch, key: key.into(), size: 0, sealed })
}

fn expect_taken(transfer: &mut Channel, batch: u32) {
    let taken = wait_until("an answer", || match transfer.receive().unwrap() {
        Incoming::Message(message, ..) => Some(message),
        _ => None,
    });
    assert_eq!(taken, Message::Taken(Taken { id: ID, batch }));
}

/// A message, and the descriptor that goes with it.
type Sent = (Message, OwnedFd);

/// What it is told makes no sense: it says so, gives the handoff up, and goes.
fn refuses(sent: &[Sent], taken: u32, why: &str) {
    let scene = Scene::new();
    let (mut next, page, mut transfer) = successor(&scene);
    for (message, fd) in sent {
        transfer.send(message, &[fd.as_fd()]).unwrap();
    }
    for batch in 1..=taken {
        expect_taken(&mut transfer, batch);
    }
    let Some(Message::Reject(reject)) = next.next() else { panic!("no Reject: {why}") };
    assert_eq!(reject.text, why);
    next.dies();
    assert!(!page.word().is_committed());
    scene.serves(why);
}

fn directory() -> OwnedFd {
    std::fs::File::open("/").unwrap().into()
}

fn file() -> OwnedFd {
    tempfile::tempfile().unwrap().into()
}

#[test]
fn batches_that_can_not_be() {
    refuses(&[connection(2)], 0, "the incumbent sent batch 2 after batch 0");
    refuses(&[connection(1), connection(1)], 1, "the incumbent sent batch 1 after batch 1");
    let twice: [Sent; 2] = [(state(1, "k", false), file()), (state(2, "k", false), file())];
    refuses(&twice, 1, "the incumbent sent state 'k' twice");
}

#[test]
fn a_connection_that_was_closed_and_whose_number_is_another_file_by_now() {
    let (message, _closed) = connection(1);
    refuses(&[(message, pipe())], 0, "connection 'n' was closed by the incumbent before the end of the handoff");
}

#[test]
fn blobs_that_are_not_what_they_say() {
    refuses(&[(state(1, "k", false), pipe())], 0, "state 'k' is not what it says");
    refuses(&[(state(1, "k", false), directory())], 0, "state 'k' is not what it says");
    refuses(&[(state(1, "k", true), file())], 0, "state 'k' is not what it says");
}

/// A size is what the kernel says, or nothing is made of it.
#[test]
fn blobs_of_sizes_that_can_not_be() {
    let sized = |batch, key: &str, size, sealed| Message::State(State { id: ID, batch, key: key.into(), size, sealed });
    let copy = || handoff::sys::memfd::sealed_copy(b"abc").unwrap();
    for size in [0, 2, 4, u64::MAX] {
        refuses(&[(sized(1, "k", size, true), copy())], 0, "state 'k' is not what it says");
    }
    let scene = Scene::new();
    let (mut next, page, mut transfer) = successor(&scene);
    for (batch, key) in [(1, "a"), (2, "b")] {
        transfer.send(&sized(batch, key, u64::MAX, false), &[file().as_fd()]).unwrap();
        expect_taken(&mut transfer, batch);
    }
    next.send(Message::Abort(Abort { id: ID, reason: "enough".into() }));
    next.dies();
    assert!(!page.word().is_committed());
    scene.serves("blobs of any size");
}

#[test]
fn a_successor_that_has_not_got_everything_says_so_with_both_numbers() {
    let scene = Scene::new();
    let (mut next, page, mut transfer) = successor(&scene);
    let (message, fd) = connection(1);
    transfer.send(&message, &[fd.as_fd()]).unwrap();
    expect_taken(&mut transfer, 1);
    let sent = Totals { connections: 3, blobs: 1, state_bytes: 10 };
    transfer.send(&Message::Gate(Gate { id: ID, sent }), &[pipe().as_fd()]).unwrap();
    let fingerprint = Fingerprint { directory: (1, 2), lock: (1, 3) };
    next.send(Message::Begin(Begin { id: ID, sealed: Sealed::Complete { revisions: Vec::new(), fingerprint } }));
    let Some(Message::Ready(ready)) = next.next() else { panic!("no Ready") };
    assert!(ready.readiness.unhealthy);
    let why = "the incumbent sent connections: 3, blobs of state: 1, bytes of it: 10; what has come: 1, 0, 5";
    assert_eq!(ready.readiness.detail, why);
    next.dies();
    assert!(!page.word().is_committed());
    scene.serves(why);
}

/// A handoff is offered to a real incumbent by hand; what comes of it, and the successor's end of its transfer socket.
pub fn offered(scene: &mut Scene, transfer: Option<Room>) -> (HandoffId, Channel, std::process::Child) {
    let id = scene.new_id();
    let (fds, child) = scene.attachments(id);
    let (one, other) = Seqpacket::pair().unwrap();
    let prepare = PrepareHandoff { transfer, ..lies::prepare(id) };
    let fds = [fds[0].as_fd(), fds[1].as_fd(), other.as_fd()];
    scene.incumbent.session.send(&Message::PrepareHandoff(prepare), &fds).unwrap();
    (id, Channel::new(one), child)
}

#[test]
fn a_successor_that_takes_what_was_never_sent() {
    let mut scene = Scene::new();
    let room = Room { descriptors_max: 0, open_descriptors: 10 };
    let (id, mut transfer, mut child) = offered(&mut scene, Some(room));
    assert!(matches!(scene.incumbent.next(), Some(Message::Drained(_))));
    transfer.send(&Message::Taken(Taken { id, batch: 7 }), &[]).unwrap();
    wait_until("the end of the transfer", || matches!(transfer.receive(), Ok(Incoming::End) | Err(_)).then_some(()));
    scene.incumbent.send(Message::SealRequest(SealRequest { id }));
    assert!(matches!(scene.incumbent.next(), Some(Message::SealFailed(_))));
    scene.incumbent.send(Message::ResumeAfterAbort(ResumeAfterAbort { id }));
    assert!(matches!(scene.incumbent.next(), Some(Message::Resumed(Resumed { error: None, .. }))));
    scene.serves("a successor that lies");
    assert!(scene.service.stderr().contains("the successor took batch 7 after 0"));
    child.wait().unwrap();
}

#[test]
fn a_successor_with_too_little_room_is_refused_with_the_numbers() {
    let mut scene = Scene::new();
    let (_, _transfer, mut child) = offered(&mut scene, Some(Room { descriptors_max: 12, open_descriptors: 10 }));
    let Some(Message::Reject(reject)) = scene.incumbent.next() else { panic!("no Reject") };
    assert!(reject.text.contains("the successor 10, and may have 12"), "{}", reject.text);
    scene.serves("a refusal");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Of a successor whose library is too old for a transfer.
#[test]
fn a_transfer_that_is_required_and_can_not_be_is_refused() {
    let mut scene = Scene::with(&compile("requires", "ffi-tests/c/sessions.c", &["-DREQUIRE_TRANSFER"]));
    let (_, _transfer, mut child) = offered(&mut scene, None);
    let Some(Message::Reject(reject)) = scene.incumbent.next() else { panic!("no Reject") };
    assert!(reject.text.contains("takes neither connections nor state"), "{}", reject.text);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_transfer_that_can_not_be_is_refused_to_the_application_and_the_handoff_goes_on() {
    let mut scene = Scene::with(&compile("sessions", "ffi-tests/c/sessions.c", &[]));
    let client = std::net::TcpStream::connect(scene.listener.local_addr().unwrap()).unwrap();
    use std::io::{Read, Write};
    (&client).write_all(b"1\n").unwrap();
    assert!((&client).read(&mut [0; 64]).unwrap() > 0);
    let (id, _transfer, mut child) = offered(&mut scene, None);
    assert!(matches!(scene.incumbent.next(), Some(Message::Drained(_))));
    let why = "refused: the successor takes neither connections nor state";
    wait_until("a refusal", || scene.service.stderr().contains(why).then_some(()));
    scene.incumbent.send(Message::SealRequest(SealRequest { id }));
    assert!(matches!(scene.incumbent.next(), Some(Message::SealComplete(_))));
    child.kill().unwrap();
    child.wait().unwrap();
}
