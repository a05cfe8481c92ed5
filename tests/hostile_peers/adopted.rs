//! Somebody at the control path who is no daemon, and says that he is one.

use crate::lies::hello;
use crate::strangers::{as_nobody, can_be_another, set_mode};
use crate::support::{Service, lives, programs, wait_until};
use handoff::limits::FRAME_BYTES_MAX;
use handoff::protocol::codec::{decode, encode};
use handoff::protocol::message::{AdoptAck, Side};
use handoff::protocol::{HandoffId, Message};
use handoff::sys::control::ControlListener;
use handoff::sys::page::DecisionPage;
use handoff::sys::page::Word;
use handoff::sys::pidfd::Pidfd;
use handoff::sys::seqpacket::{Received, Seqpacket};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};

const ID: u64 = 17;

/// What a supervisor says next on this session; none at its end.
fn next(socket: &Seqpacket) -> Option<Message> {
    let mut bytes = vec![0; FRAME_BYTES_MAX];
    wait_until("a message", || match socket.receive(&mut bytes) {
        Ok(Received::Packet(packet)) => Some(decode(&bytes[..packet.len]).ok()),
        Ok(Received::Nothing) => None,
        Ok(Received::End) | Err(_) => Some(None),
    })
}

fn say(socket: &Seqpacket, message: &Message, fds: &[BorrowedFd<'_>]) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).unwrap();
    socket.send(&bytes, fds)
}

/// Hello, and an AdoptAck in mid-handoff with a page that is revoked, and the successor that is to be killed for it.
fn claim(listener: &ControlListener, page: &DecisionPage, successor: &Pidfd) {
    loop {
        let (socket, _) = wait_until("a supervisor", || listener.accept().unwrap());
        let greeted = say(&socket, &Message::Hello(hello(Side::Incumbent, std::process::id())), &[]);
        // The first one only looks who listens.
        if greeted.is_err() || !matches!(next(&socket), Some(Message::Adopt(_))) {
            continue;
        }
        let (pid, id) = (std::process::id(), HandoffId(ID));
        let ack = AdoptAck { version: 1, pid, generation: 1, phase: 5, id, listeners: 0 };
        say(&socket, &Message::AdoptAck(ack), &[page.as_fd(), successor.as_fd()]).unwrap();
        assert_eq!(next(&socket), None, "the session ends");
        return;
    }
}

#[test]
fn a_liar_of_another_user_gets_nobody_killed() {
    if !can_be_another() {
        return;
    }
    let service = Service::place();
    fs::create_dir(service.path("run")).unwrap();
    set_mode(&service.path("run"), 0o700);
    let listener = ControlListener::prepare(&service.path("run/kv.control")).unwrap().publish().unwrap();
    let mut innocent = service.other_command("sleep").arg("1000").spawn().unwrap();
    let pid = innocent.id() as i32;
    let (page, pidfd) = (DecisionPage::create(None, ID).unwrap(), Pidfd::open(pid).unwrap());
    page.decide(Word::Revoked);
    let mut run: Command = service.command("run");
    run.args(["--data-dir"]).arg(service.path("data")).arg("--").arg(&programs().kv_a);
    let run = run.stderr(Stdio::piped()).spawn().unwrap();
    as_nobody(|| claim(&listener, &page, &pidfd));
    drop(listener);
    let output = run.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.contains("AdoptAck came with 2 descriptors"), "{text}");
    assert!(lives(pid), "{text}");
    innocent.kill().unwrap();
    innocent.wait().unwrap();
}
