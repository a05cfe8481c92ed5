//! A supervisor that lies to real daemons while a handoff is under way, and is gone then.

use crate::lies::{self, FRAMES, MESSAGES, every_message, frame, send_raw, send_with_pipes};
use crate::supervisor::{Daemon, Scene, start};
use crate::support::{lives, programs, wait_for_death};
use handoff::channel::Channel;
use handoff::protocol::message::*;
use handoff::protocol::{HandoffId, Message};
use handoff::sys::page::{DecisionPage, Word};
use handoff::sys::seqpacket::Seqpacket;
use std::os::fd::AsFd;

/// Ends our session with a daemon.
fn hang_up(daemon: &mut Daemon) {
    let (ours, _) = Seqpacket::pair().unwrap();
    daemon.session = Channel::new(ours);
}

/// All that can be said, to this daemon.
fn lie(daemon: &mut Daemon, number: usize, id: HandoffId) -> String {
    if let Some((name, _)) = FRAMES.get(number.wrapping_sub(MESSAGES)) {
        send_raw(&daemon.session, &frame(name, id));
        return (*name).into();
    }
    let message = every_message(id).swap_remove(number);
    send_with_pipes(&mut daemon.session, &message);
    message.name().into()
}

const LIES: std::ops::Range<usize> = 0..MESSAGES + FRAMES.len();

/// Offers a handoff to an incumbent, and brings it to a stage.
fn to_an_incumbent(sealed: bool) {
    for number in LIES {
        let mut scene = Scene::new();
        let id = scene.new_id();
        let (fds, mut successor) = scene.attachments(id);
        scene.prepare(id, &fds);
        let page = DecisionPage::map(fds[0].try_clone().unwrap()).unwrap();
        drop(fds);
        assert!(matches!(scene.incumbent.next(), Some(Message::Drained(_))));
        if sealed {
            scene.incumbent.send(Message::SealRequest(SealRequest { id }));
            // The other end of the transfer socket is closed, so it can not give the gate away.
            assert!(matches!(scene.incumbent.next(), Some(Message::SealFailed(_))));
        }
        let name = lie(&mut scene.incumbent, number, id);
        hang_up(&mut scene.incumbent);
        scene.serves(&name);
        scene.leaks_nothing(&name, 1);
        assert_eq!(page.word(), Word::Revoked, "{name}");
        // It was killed by whoever revoked the word; this reaps it.
        successor.wait().unwrap();
    }
}

#[test]
fn any_message_to_an_incumbent_that_has_drained() {
    to_an_incumbent(false);
}

#[test]
fn any_message_to_an_incumbent_that_could_not_seal() {
    to_an_incumbent(true);
}

#[test]
fn any_message_to_an_incumbent_that_has_sealed() {
    for number in LIES {
        let mut scene = Scene::new();
        let id = scene.new_id();
        let (mut fds, mut successor) = scene.attachments(id);
        let (one, _other) = Seqpacket::pair().unwrap();
        fds[2] = one.into();
        scene.prepare(id, &fds);
        let page = DecisionPage::map(fds[0].try_clone().unwrap()).unwrap();
        drop(fds);
        assert!(matches!(scene.incumbent.next(), Some(Message::Drained(_))));
        scene.incumbent.send(Message::SealRequest(SealRequest { id }));
        assert!(matches!(scene.incumbent.next(), Some(Message::SealComplete(_))));
        let name = lie(&mut scene.incumbent, number, id);
        hang_up(&mut scene.incumbent);
        scene.serves(&name);
        scene.leaks_nothing(&name, 1);
        assert_eq!(page.word(), Word::Revoked, "{name}");
        successor.wait().unwrap();
    }
}

/// Whatever a successor is told, it does not win while the incumbent has the data.
#[test]
fn any_message_to_a_successor() {
    let scene = Scene::new();
    for warmed in [false, true] {
        for number in LIES {
            let id = HandoffId(100_000 + number as u64);
            let page = DecisionPage::create(None, id.0).unwrap();
            let (_one, other) = Seqpacket::pair().unwrap();
            let mut next = start(&scene.service, &scene.listener, &programs().kv_b, true);
            assert!(matches!(next.next(), Some(Message::Hello(_))));
            if warmed {
                let deadline_ns = lies::prepare(id).deadline_ns;
                let terms = Some(Terms { id, mode: Mode::Exclusive, deadline_ns, park_ns: 0, open_descriptors: 0 });
                let ack = Message::HelloAck(HelloAck { version: 1, generation: 2, terms });
                next.session.send(&ack, &[page.as_fd(), scene.incumbent.pidfd.as_fd(), other.as_fd()]).unwrap();
                assert!(matches!(next.next(), Some(Message::Warmed(_))));
            }
            let name = lie(&mut next, number, id);
            send_with_pipes(&mut next.session, &Message::Committed(Committed { id }));
            hang_up(&mut next);
            next.dies();
            assert!(!page.word().is_committed(), "{name}");
            assert!(lives(scene.incumbent.pid), "{name}");
            scene.serves(&name);
        }
    }
    scene.leaks_nothing("after all", 0);
}

/// Both daemons lose a supervisor that has told both that they are the one.
#[test]
fn one_of_two_that_were_told_to_serve() {
    let mut scene = Scene::new();
    let id = scene.new_id();
    let (fds, mut successor) = scene.attachments(id);
    scene.prepare(id, &fds);
    drop(fds);
    assert!(matches!(scene.incumbent.next(), Some(Message::Drained(_))));
    scene.incumbent.send(Message::ResumeAfterAbort(ResumeAfterAbort { id }));
    scene.incumbent.send(Message::Commit(Commit { id }));
    wait_for_death(successor.id() as i32);
    successor.wait().unwrap();
    scene.serves("told both");
}
