//! Protocol messages over a socket: the one place where `protocol` and `sys` meet.

use crate::limits::{FRAME_BYTES_MAX, UNREAD_BYTES_MAX};
use crate::protocol::codec::{CodecError, decode, encode};
use crate::protocol::{Decide, Decision, Message};
use crate::sys::clock::monotonic_ns;
use crate::sys::page::{DecisionPage, Word};
use crate::sys::seqpacket::{Credentials, LostDescriptors, Received, Seqpacket};
use nix::errno::Errno;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// Why a channel can not be used any more.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The kernel says no.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// What came, or should go, is no message.
    #[error("{0}")]
    Codec(#[from] CodecError),
    /// More or fewer descriptors than the message needs.
    #[error("{message} came with {came} descriptors, it needs {needed}")]
    Attachments {
        /// The message.
        message: &'static str,
        /// How many it needs.
        needed: usize,
        /// How many came.
        came: usize,
    },
}

impl ChannelError {
    /// It may go when the peer has read: the queue is full, or too many descriptors are on the way.
    pub fn is_full(&self) -> bool {
        let later = [Errno::EAGAIN, Errno::ETOOMANYREFS, Errno::ENOBUFS].map(|errno| Some(errno as i32));
        matches!(self, Self::Socket(error) if later.contains(&error.raw_os_error()))
    }

    /// The peer has closed its end.
    pub fn is_gone(&self) -> bool {
        let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
        matches!(self, Self::Socket(error) if gone.contains(&error.kind()))
    }
}

/// What came.
#[derive(Debug)]
pub enum Incoming {
    /// A message, with as many descriptors as [`Message::attachments`] names, in that order; with none of them if this
    /// process has no room for so many: the message can still be refused.
    Message(Message, Vec<OwnedFd>, Option<Credentials>),
    /// Nothing now.
    Nothing,
    /// The peer's end is closed, and everything that it sent was read.
    End,
}

thread_local! {
    /// Room for the largest frame: not for each of a thousand channels, since what came is read at once.
    static INCOMING: RefCell<Box<[u8]>> = RefCell::new(vec![0; FRAME_BYTES_MAX].into());
}

/// One session, or one transfer socket.
#[derive(Debug)]
pub struct Channel {
    socket: Seqpacket,
    outgoing: Vec<u8>,
}

impl Channel {
    /// Takes over a connected socket.
    pub fn new(socket: Seqpacket) -> Self {
        Self { socket, outgoing: Vec::new() }
    }

    /// Sends a message with its descriptors.
    ///
    /// # Errors
    /// `EPIPE` if the peer has closed, `EAGAIN` if its queue is full: a peer that does not read is treated as gone.
    pub fn send(&mut self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        debug_assert_eq!(fds.len(), message.attachments().len());
        encode(message, &mut self.outgoing)?;
        Ok(self.socket.send(&self.outgoing, fds)?)
    }

    /// As [`Channel::send`], for descriptors that the application keeps open; `EBADF` if it has closed one.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn send_numbers(&mut self, message: &Message, fds: &[RawFd]) -> Result<(), ChannelError> {
        debug_assert_eq!(fds.len(), message.attachments().len());
        encode(message, &mut self.outgoing)?;
        Ok(self.socket.send_numbers(&self.outgoing, fds)?)
    }

    /// Sends a message whose loss harms nobody, unless much is unread: then the room is for those that are needed.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn send_if_read(&mut self, message: &Message) -> Result<(), ChannelError> {
        match self.socket.unread_bytes()? {
            0..=UNREAD_BYTES_MAX => self.send(message, &[]),
            _ => Ok(()),
        }
    }

    /// What was sent can still be received; whoever sends after this hears that nobody does.
    pub fn stop_receiving(&self) {
        self.socket.stop_receiving();
    }

    /// Receives the next message, without waiting.
    ///
    /// # Errors
    /// What came is no message of this protocol; the session can not go on.
    pub fn receive(&mut self) -> Result<Incoming, ChannelError> {
        INCOMING.with_borrow_mut(|incoming| self.receive_into(incoming))
    }

    fn receive_into(&self, incoming: &mut [u8]) -> Result<Incoming, ChannelError> {
        let packet = match self.socket.receive(incoming) {
            Ok(Received::Packet(packet)) => packet,
            Ok(Received::Nothing) => return Ok(Incoming::Nothing),
            Ok(Received::End) => return Ok(Incoming::End),
            Err(error) => return without_descriptors(incoming, error),
        };
        let message = decode(&incoming[..packet.len])?;
        let (needed, came) = (message.attachments().len(), packet.fds.len());
        if needed != came {
            return Err(ChannelError::Attachments { message: message.name(), needed, came });
        }
        Ok(Incoming::Message(message, packet.fds, packet.sender))
    }
}

/// The message whose descriptors were lost, if that is the error.
fn without_descriptors(incoming: &[u8], error: io::Error) -> Result<Incoming, ChannelError> {
    let lost = error.get_ref().and_then(|error| error.downcast_ref::<LostDescriptors>());
    let Some(LostDescriptors { len }) = lost else { return Err(error.into()) };
    let message = decode(&incoming[..*len])?;
    if message.attachments().is_empty() {
        return Err(error.into());
    }
    Ok(Incoming::Message(message, Vec::new(), None))
}

/// The socket: what was sent, and not received yet, is in it.
impl Serialize for Channel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.socket.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Channel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Seqpacket::deserialize(deserializer).map(Self::new)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Carries out what a machine asks of the decision word; the value that holds afterwards.
pub fn decide(page: &DecisionPage, decide: Decide) -> Decision {
    let word = match decide {
        Decide::Commit { deadline_ns: Some(deadline_ns), .. } if monotonic_ns() > deadline_ns => page.word(),
        Decide::Commit { incompatible: true, .. } => page.decide(Word::CommittedIncompatible),
        Decide::Commit { .. } => page.decide(Word::Committed),
        Decide::Revoke => page.decide(Word::Revoked),
    };
    match word {
        Word::Open => Decision::Open,
        Word::Committed => Decision::Committed,
        Word::CommittedIncompatible => Decision::CommittedIncompatible,
        Word::Revoked => Decision::Revoked,
    }
}
