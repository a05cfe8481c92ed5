//! A manager: the socket of `NOTIFY_SOCKET`, and what came to it.

use crate::harness::{Place, Run, wait_until};
use handoff::sys::notify::NotifySocket;
use handoff::sys::seqpacket::Received;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// One message: its lines, its descriptors, its sender.
#[derive(Debug)]
pub struct Message {
    pub text: String,
    pub fds: Vec<OwnedFd>,
    pub pid: i32,
}

impl Message {
    /// The value of a field.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix('='))
    }
}

pub struct Fake {
    socket: NotifySocket,
    pub messages: Vec<Message>,
}

impl Fake {
    pub fn new(place: &Place) -> Self {
        Self { socket: NotifySocket::bind(&place.path("manager")).unwrap(), messages: Vec::new() }
    }

    pub fn path(&self) -> PathBuf {
        self.socket.path().to_owned()
    }

    /// Takes what has come.
    pub fn read(&mut self) {
        let mut buf = [0; 4096];
        while let Received::Packet(packet) = self.socket.receive(&mut buf).unwrap() {
            let text = String::from_utf8(buf[..packet.len].to_vec()).unwrap();
            self.messages.push(Message { text, fds: packet.fds, pid: packet.sender.unwrap().pid });
        }
    }

    /// Where the first message is, from this one on, that is as `look` wants it.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, from: usize, look: impl Fn(&Message) -> bool) -> usize {
        wait_until(what, || {
            self.read();
            self.messages[from..].iter().position(&look).map(|at| from + at)
        })
    }

    /// Where the first message is that has this field with this value.
    #[track_caller]
    pub fn wait_for_field(&mut self, field: &str, value: &str, from: usize) -> usize {
        self.wait_for(&format!("{field}={value}"), from, |message| message.get(field) == Some(value))
    }

    pub fn count(&self, field: &str) -> usize {
        self.messages.iter().filter(|message| message.get(field).is_some()).count()
    }

    /// `handoff run` as its service.
    pub fn command(&self, place: &Place, arguments: &[&str]) -> Command {
        let mut command = place.handoff("run");
        command.args(arguments).env("NOTIFY_SOCKET", self.path()).stdout(Stdio::null());
        command
    }

    pub fn run<'a>(&self, place: &'a Place, arguments: &[&str]) -> Run<'a> {
        place.spawn(self.command(place, arguments))
    }
}
