//! A supervisor that does not hear: it has closed its side for reading, so whatever a daemon says fails with EPIPE, and with
//! SIGPIPE if it is not told not to. Daemons in C die of that signal by default.

use crate::lies;
use crate::supervisor::{Daemon, Scene, start};
use crate::support::{lives, programs, wait_until};
use handoff::protocol::message::*;
use handoff::protocol::{HandoffId, Message};
use handoff::sys::page::{DecisionPage, Word};
use handoff::sys::seqpacket::Seqpacket;
use nix::sys::socket::{Shutdown, shutdown};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};

/// From here on the daemon can hear, and not be heard.
fn turn_deaf(daemon: &Daemon) {
    shutdown(daemon.session.as_fd().as_raw_fd(), Shutdown::Read).unwrap();
    // Every signal is blocked for the moment in which a thread is made.
    wait_until("a process that SIGPIPE would kill", || {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid)).unwrap();
        let has_pipe = |mask: &str| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (libc::SIGPIPE - 1) != 0;
        let masks = ["SigIgn:", "SigBlk:", "SigCgt:"];
        let of = |line: &str| masks.iter().find_map(|mask| line.strip_prefix(mask)).is_some_and(has_pipe);
        (!status.lines().any(of)).then_some(())
    });
}

/// The incumbent was offered a handoff, and its supervisor, which did not hear what came then, ends.
fn survives(mut scene: Scene, page: &DecisionPage, mut successor: std::process::Child, what: &str) {
    // Not before it has tried to say what nobody hears.
    wait_until("a message that is not sent", || scene.service.stderr().contains("not sent").then_some(()));
    scene.hang_up();
    scene.serves(what);
    assert_eq!(page.word(), Word::Revoked, "{what}");
    successor.wait().unwrap();
}

#[test]
fn an_incumbent_that_is_not_heard_when_it_has_drained_sealed_or_resumed() {
    for stage in ["drained", "sealed", "resumed"] {
        let mut scene = Scene::new();
        let id = scene.new_id();
        let (mut fds, successor) = scene.attachments(id);
        let (one, _other) = Seqpacket::pair().unwrap();
        fds[2] = one.into();
        let page = DecisionPage::map(fds[0].try_clone().unwrap()).unwrap();
        if stage == "drained" {
            turn_deaf(&scene.incumbent);
        }
        scene.prepare(id, &fds);
        drop(fds);
        if stage != "drained" {
            assert!(matches!(scene.incumbent.next(), Some(Message::Drained(_))));
            turn_deaf(&scene.incumbent);
            let message = match stage {
                "sealed" => Message::SealRequest(SealRequest { id }),
                _ => Message::ResumeAfterAbort(ResumeAfterAbort { id }),
            };
            scene.incumbent.send(message);
        }
        survives(scene, &page, successor, stage);
    }
}

#[test]
fn a_successor_that_is_not_heard_when_it_says_hello_warmed_ready_or_serving() {
    for stage in ["hello", "warmed", "ready", "serving"] {
        let mut scene = Scene::new();
        let id = HandoffId(100_000);
        let page = DecisionPage::create(None, id.0).unwrap();
        let (one, other) = Seqpacket::pair().unwrap();
        let deaf_at = |daemon: &Daemon, at: &str| {
            if stage == at {
                turn_deaf(daemon);
            }
        };
        let mut next = start(&scene.service, &scene.listener, &programs().faulty, true);
        deaf_at(&next, "hello");
        let prepare = lies::prepare(id);
        let terms = Some(Terms {
            id,
            mode: Mode::Exclusive,
            deadline_ns: prepare.deadline_ns,
            park_ns: 0,
            open_descriptors: 0,
        });
        if stage != "hello" {
            assert!(matches!(next.next(), Some(Message::Hello(_))));
        }
        deaf_at(&next, "warmed");
        let ack = Message::HelloAck(HelloAck { version: 1, generation: 2, terms });
        next.session.send(&ack, &[page.as_fd(), scene.incumbent.pidfd.as_fd(), other.as_fd()]).unwrap();
        if matches!(stage, "ready" | "serving") {
            assert!(matches!(next.next(), Some(Message::Warmed(_))));
            let fds = [page.as_fd(), next.pidfd.as_fd(), one.as_fd()];
            scene.incumbent.session.send(&Message::PrepareHandoff(prepare), &fds).unwrap();
            assert!(matches!(scene.incumbent.next(), Some(Message::Drained(_))));
            scene.incumbent.send(Message::SealRequest(SealRequest { id }));
            let Some(Message::SealComplete(SealComplete { revisions, fingerprint, .. })) = scene.incumbent.next()
            else {
                panic!("not sealed")
            };
            deaf_at(&next, "ready");
            next.send(Message::Begin(Begin { id, sealed: Sealed::Complete { revisions, fingerprint } }));
            if stage == "serving" {
                assert!(matches!(next.next(), Some(Message::Ready(_))));
            } else {
                wait_until("a Ready that is not sent", || scene.service.stderr().contains("not sent").then_some(()));
            }
            deaf_at(&next, "serving");
            next.send(Message::Committed(Committed { id }));
            // It was not heard, but it was told to commit, and serves.
            assert_eq!(scene.service.wait_until_served(), next.pid, "{stage}");
            assert!(page.word().is_committed(), "{stage}");
            scene.incumbent.send(Message::Commit(Commit { id }));
            scene.incumbent.dies();
        } else {
            // It has nothing to serve; when its supervisor has ended, it goes, and is not killed.
            let (ours, _) = Seqpacket::pair().unwrap();
            next.session = handoff::channel::Channel::new(ours);
            let ended = wait_until("its end", || next.pidfd.wait().unwrap());
            assert_eq!((ended.code, ended.signal), (Some(1), None), "{stage}");
            assert!(lives(scene.incumbent.pid), "{stage}");
            scene.serves(stage);
        }
    }
}
