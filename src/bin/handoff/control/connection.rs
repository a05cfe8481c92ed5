//! One client of the control socket, and what waits for it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use handoff::limits::{PENDING_MAX, REPLY_BYTES_MAX, REQUEST_BYTES_MAX};
use nix::poll::PollFlags;

/// Bytes that are read at a time.
const READ_BYTES_MAX: usize = 4096;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Connection {
    #[serde(with = "handoff::sys::inherit::fd")]
    stream: UnixStream,
    /// Less than a line.
    #[serde(with = "handoff::sys::inherit::bytes")]
    inbox: Vec<u8>,
    #[serde(with = "handoff::sys::inherit::bytes")]
    outbox: Vec<u8>,
    /// Requests without an answer yet.
    pub pending: usize,
    /// When anything happened last.
    #[serde(skip, default = "Instant::now")]
    pub seen: Instant,
    /// Nothing more will come.
    ended: bool,
    broken: bool,
}

impl Connection {
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (inbox, outbox) = (Vec::new(), Vec::new());
        Ok(Self { stream, inbox, outbox, pending: 0, seen: Instant::now(), ended: false, broken: false })
    }

    /// What to poll for. Who has asked for much that takes its time is not listened to until some of it is answered.
    pub fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, !self.ended && self.pending < PENDING_MAX);
        flags.set(PollFlags::POLLOUT, !self.outbox.is_empty());
        flags
    }

    /// Nothing is to be done for it any more.
    pub fn is_done(&self) -> bool {
        self.broken || self.ended && self.pending == 0 && self.outbox.is_empty()
    }

    /// Nothing is owed to it.
    pub fn is_idle(&self) -> bool {
        self.pending == 0 && self.outbox.is_empty()
    }

    /// The lines that have come, [`READ_BYTES_MAX`] bytes at a time so that nobody starves. A line that is too long
    /// is an error.
    pub fn read_lines(&mut self) -> Result<Vec<Vec<u8>>, &'static str> {
        let mut part = [0; READ_BYTES_MAX];
        match self.stream.read(&mut part) {
            Ok(0) => self.ended = true,
            Ok(len) => {
                self.seen = Instant::now();
                self.inbox.extend_from_slice(&part[..len]);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.broken = true,
        }
        let mut lines: Vec<Vec<u8>> = self.inbox.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let partial = lines.pop_if(|line| line.last() != Some(&b'\n'));
        self.inbox = partial.unwrap_or_default();
        if self.inbox.len() > REQUEST_BYTES_MAX {
            self.inbox.clear();
            return Err("the request is too long");
        }
        lines.retain(|line| !line.trim_ascii().is_empty());
        Ok(lines)
    }

    /// Sends what can be sent now, and keeps the rest; a client that does not read what it got before is cut off.
    pub fn send(&mut self, line: &str) {
        self.broken |= self.outbox.len() > REPLY_BYTES_MAX;
        if !self.broken {
            self.outbox.extend_from_slice(line.as_bytes());
            self.flush();
        }
    }

    /// Bytes that it has not read.
    pub fn unread(&self) -> usize {
        self.outbox.len()
    }

    /// Sends a line that a client can do without, unless it has not read much of what it got.
    pub fn send_if_read(&mut self, line: &str) {
        if self.outbox.len() < REPLY_BYTES_MAX / 2 {
            self.send(line);
        }
    }

    pub fn flush(&mut self) {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(len) => {
                    self.seen = Instant::now();
                    self.outbox.drain(..len);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    /// Reads nothing more; it is closed when everything was sent.
    pub fn close_after_answer(&mut self) {
        self.ended = true;
        self.pending = 0;
    }

    /// The other side is gone altogether.
    pub fn hung_up(&mut self) {
        self.broken = true;
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
