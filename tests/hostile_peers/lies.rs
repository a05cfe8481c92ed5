//! What a liar sends.

use handoff::channel::Channel;
use handoff::limits::FRAME_BYTES_MAX;
use handoff::protocol::codec::encode;
use handoff::protocol::message::*;
use handoff::protocol::transfer::Totals;
use handoff::protocol::{HandoffId, Message};
use nix::sys::socket::{MsgFlags, send};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// One of each message, in the order of their numbers.
pub fn every_message(id: HandoffId) -> Vec<Message> {
    let fingerprint = Fingerprint { directory: (1, 2), lock: (1, 3) };
    let (pid, side) = (std::process::id(), Side::Incumbent);
    let readiness = Readiness { revisions: vec![u64::MAX; 3], detail: "a lie".into(), ..Readiness::default() };
    vec![
        Message::Hello(hello(side, pid)),
        Message::HelloAck(HelloAck { version: 1, generation: 99, terms: None }),
        Message::Reject(Reject { code: RejectCode::Unable, text: "a lie".into() }),
        Message::Adopt(Adopt { version_min: 1, version_max: 1 }),
        Message::AdoptAck(AdoptAck { version: 1, pid, generation: 99, phase: 9, id, listeners: 9 }),
        Message::Warmed(Warmed { id }),
        Message::PrepareHandoff(prepare(id)),
        Message::Drained(Drained { id, connections_open: u32::MAX, accept_stopped_ns: u64::MAX }),
        Message::SealRequest(SealRequest { id }),
        Message::Gate(Gate { id, sent: Totals::default() }),
        Message::SealProgress(SealProgress { id, done: u64::MAX, total: 0 }),
        Message::SealComplete(SealComplete { id, revisions: vec![u64::MAX; 4096], fingerprint }),
        Message::SealFailed(SealFailed { id, step: SealStep::Seal, error: "a lie".into() }),
        Message::Begin(Begin { id, sealed: Sealed::Recover }),
        Message::Ready(Ready { id, readiness, taken: Totals::default() }),
        Message::Committed(Committed { id }),
        Message::Serving(Serving { id, committed_ns: u64::MAX, control: Err("a lie".into()) }),
        Message::Commit(Commit { id }),
        Message::Abort(Abort { id, reason: "a lie".into() }),
        Message::ResumeAfterAbort(ResumeAfterAbort { id }),
        Message::Resumed(Resumed { id, error: Some("a lie".into()) }),
        Message::Stopping(Stopping { id }),
        Message::Heartbeat(heartbeat(id)),
        Message::AdoptListeners(AdoptListeners { names: Vec::new() }),
    ]
}

/// How many of them there are.
pub const MESSAGES: usize = 23;

pub fn hello(side: Side, pid: u32) -> Hello {
    Hello {
        side,
        pid,
        version_min: 1,
        version_max: 1,
        capabilities: capability::EXCLUSIVE,
        generation: 0,
        open_descriptors: 10,
        descriptors_max: 0,
        time_namespace: 0,
        build_id: b"liar".to_vec(),
    }
}

pub fn prepare(id: HandoffId) -> PrepareHandoff {
    let second = 1_000_000_000;
    let deadline_ns = handoff::sys::clock::monotonic_ns() + 60 * second;
    PrepareHandoff { id, mode: Mode::Exclusive, deadline_ns, drain_grace_ns: 10 * second, park_ns: 0, transfer: None }
}

pub fn heartbeat(id: HandoffId) -> Heartbeat {
    Heartbeat { id, progress: Some((u64::MAX, 0)) }
}

/// A frame by its name: a heartbeat, or what is no message.
pub fn frame(name: &str, id: HandoffId) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&Message::Heartbeat(heartbeat(id)), &mut bytes).unwrap();
    match name {
        "heartbeat" => {}
        "empty" => bytes.clear(),
        "one-byte" => bytes.truncate(1),
        "truncated" => bytes.truncate(12),
        "left-over" => bytes.push(0),
        "version" => bytes[4] = 7,
        "unknown" => bytes[6..8].copy_from_slice(&999_u16.to_le_bytes()),
        "garbage" => bytes = vec![0xA5; FRAME_BYTES_MAX],
        "oversized" => bytes = vec![0; FRAME_BYTES_MAX + 1],
        // Counts that name more than any memory has.
        "bomb" => {
            bytes[6..8].copy_from_slice(&12_u16.to_le_bytes());
            bytes[16..].fill(0xFF);
        }
        other => panic!("unknown: {other}"),
    }
    bytes
}

/// Each frame that is no message, and a word of what is said about it.
pub const FRAMES: [(&str, &str); 9] = [
    ("empty", "a message is empty"),
    ("one-byte", "a frame of 1 bytes"),
    ("truncated", "bad body of 4 bytes"),
    ("left-over", "1 bytes left over"),
    ("version", "protocol version 7"),
    ("unknown", "unknown message id 999"),
    ("garbage", "not a message of this protocol"),
    ("oversized", "larger than allowed"),
    ("bomb", "bad body"),
];

/// Sends bytes past every check; waits while the queue is full. False if nobody is there any more.
pub fn send_raw(socket: impl AsFd, bytes: &[u8]) -> bool {
    send(socket.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).is_ok()
}

pub fn pipe() -> OwnedFd {
    nix::unistd::pipe().unwrap().0
}

/// Sends a message with as many descriptors as it needs, which are all pipes.
pub fn send_with_pipes(channel: &mut Channel, message: &Message) {
    let pipes: Vec<OwnedFd> = message.attachments().iter().map(|_| pipe()).collect();
    let fds: Vec<BorrowedFd<'_>> = pipes.iter().map(AsFd::as_fd).collect();
    let _ = channel.send(message, &fds);
}
