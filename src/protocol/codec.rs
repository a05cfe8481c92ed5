//! Messages as bytes.
//!
//! A frame is one message: a header of 8 bytes, then the body. Numbers are little endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `HOFF` |
//! | 4 | 2 | version of the protocol that the sender speaks |
//! | 6 | 2 | message id |
//!
//! Hello (1), HelloAck (2), Reject (3), Adopt (4) and AdoptAck (5) are packed by hand and frozen for ever, so that two
//! versions that can not talk can still say so: they are read whatever version the header has. After their fixed part
//! come extensions, each a tag (u16), a length (u16) and that many bytes; an unknown tag is skipped. All others are bincode 2 in its `legacy` configuration and belong to a version: Warmed (6), PrepareHandoff
//! (7), Drained (8), SealRequest (9), Gate (10), SealProgress (11), SealComplete (12), SealFailed (13), Begin (14),
//! Ready (15), Committed (16), Serving (17), Commit (18), Abort (19), ResumeAfterAbort (20), Resumed (21),
//! Stopping (22), Heartbeat (23), AdoptListeners (24), Connections (25), State (26), Taken (27),
//! Announced (28), EndProbation (29). A number is never used again for something else.
//!
//! `docs/protocol.md` has the bodies. This is the only file that knows bincode.

mod frozen;
#[cfg(test)]
mod tests;

use super::message::{Message, Sealed, VERSION_MAX, VERSION_MIN};
use super::transfer;
use crate::limits::{FRAME_BYTES_MAX, LISTENERS_IN_MESSAGE_MAX, REVISIONS_MAX, TEXT_BYTES_MAX};
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
/// For the bodies of messages. A `Deserialize` would bring what prints floats, and twice the code.
pub(super) use bincode::{Decode, Encode};

/// The first bytes of every frame.
pub const MAGIC: [u8; 4] = *b"HOFF";
/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;

/// Why bytes are no message, or a message does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub String);

type Result<T> = std::result::Result<T, CodecError>;

fn fail<T>(what: impl Into<String>) -> Result<T> {
    Err(CodecError(what.into()))
}

/// Appends the message to `out`, which is cleared first. A text that is too long is cut.
///
/// # Errors
/// The message is larger than [`crate::limits::FRAME_BYTES_MAX`], or has more parts than fit; `out` is then empty.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION_MAX.to_le_bytes());
    out.extend_from_slice(&number(message).to_le_bytes());
    let result = if text(message).is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
        let mut cut = message.clone();
        if let Some(text) = text_mut(&mut cut) {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        }
        encode_body(&cut, out)
    } else {
        encode_body(message, out)
    };
    let result = result.and_then(|()| check(message, out.len()));
    if result.is_err() {
        out.clear();
    }
    result
}

/// Reads one message, which must fill `frame`.
///
/// # Errors
/// What is wrong with the bytes, and where.
pub fn decode(frame: &[u8]) -> Result<Message> {
    let Some((header, body)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        return fail(format!("a frame of {} bytes has no room for a header of {HEADER_BYTES}", frame.len()));
    };
    let [m0, m1, m2, m3, v0, v1, n0, n1] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return fail(format!(
            "not a message of this protocol: it starts with {:02x?}, not {MAGIC:02x?}",
            [m0, m1, m2, m3]
        ));
    }
    let (version, number) = (u16::from_le_bytes([v0, v1]), u16::from_le_bytes([n0, n1]));
    if let Some(message) = frozen::decode(number, body) {
        return message.and_then(|message| checked(message, frame.len()));
    }
    if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
        return fail(format!(
            "message {number} is of protocol version {version}, this library speaks {VERSION_MIN} to {VERSION_MAX}"
        ));
    }
    checked(decode_body(number, body)?, frame.len())
}

fn checked(message: Message, frame_bytes: usize) -> Result<Message> {
    if let Some(length) = text(&message).map(|text| text.len()).filter(|length| *length > TEXT_BYTES_MAX) {
        return fail(format!("{}: a text of {length} bytes, at most {TEXT_BYTES_MAX} are allowed", message.name()));
    }
    check(&message, frame_bytes)?;
    Ok(message)
}

/// The bounds that hold in both directions.
fn check(message: &Message, frame_bytes: usize) -> Result<()> {
    let revisions = match message {
        Message::SealComplete(m) => m.revisions.len(),
        Message::Begin(m) => match &m.sealed {
            Sealed::Complete { revisions, .. } => revisions.len(),
            Sealed::Recover | Sealed::Beside => 0,
        },
        Message::Ready(m) => m.readiness.revisions.len(),
        _ => 0,
    };
    if revisions > REVISIONS_MAX {
        return fail(format!("{}: {revisions} revisions, at most {REVISIONS_MAX} are allowed", message.name()));
    }
    if let Message::AdoptListeners(m) = message
        && m.names.len() > LISTENERS_IN_MESSAGE_MAX
    {
        return fail(format!(
            "AdoptListeners: {} names, at most {LISTENERS_IN_MESSAGE_MAX} are allowed",
            m.names.len()
        ));
    }
    if let Err(error) = transfer::check(message) {
        return fail(format!("{}: {error}", message.name()));
    }
    if frame_bytes > FRAME_BYTES_MAX {
        return fail(format!(
            "{}: a frame of {frame_bytes} bytes, at most {FRAME_BYTES_MAX} are allowed",
            message.name()
        ));
    }
    Ok(())
}

/// The text for people in a message; none has two.
fn text(message: &Message) -> Option<&String> {
    match message {
        Message::Reject(m) => Some(&m.text),
        Message::SealFailed(m) => Some(&m.error),
        Message::Ready(m) => Some(&m.readiness.detail),
        Message::Serving(m) => m.control.as_ref().err(),
        Message::Abort(m) => Some(&m.reason),
        Message::Resumed(m) => m.error.as_ref(),
        _ => None,
    }
}

fn text_mut(message: &mut Message) -> Option<&mut String> {
    match message {
        Message::Reject(m) => Some(&mut m.text),
        Message::SealFailed(m) => Some(&mut m.error),
        Message::Ready(m) => Some(&mut m.readiness.detail),
        Message::Serving(m) => m.control.as_mut().err(),
        Message::Abort(m) => Some(&mut m.reason),
        Message::Resumed(m) => m.error.as_mut(),
        _ => None,
    }
}

/// The message id on the wire.
fn number(message: &Message) -> u16 {
    match message {
        Message::Hello(_) => frozen::HELLO,
        Message::HelloAck(_) => frozen::HELLO_ACK,
        Message::Reject(_) => frozen::REJECT,
        Message::Adopt(_) => frozen::ADOPT,
        Message::AdoptAck(_) => frozen::ADOPT_ACK,
        Message::Warmed(_) => 6,
        Message::PrepareHandoff(_) => 7,
        Message::Drained(_) => 8,
        Message::SealRequest(_) => 9,
        Message::Gate(_) => 10,
        Message::SealProgress(_) => 11,
        Message::SealComplete(_) => 12,
        Message::SealFailed(_) => 13,
        Message::Begin(_) => 14,
        Message::Ready(_) => 15,
        Message::Committed(_) => 16,
        Message::Serving(_) => 17,
        Message::Commit(_) => 18,
        Message::Abort(_) => 19,
        Message::ResumeAfterAbort(_) => 20,
        Message::Resumed(_) => 21,
        Message::Stopping(_) => 22,
        Message::Heartbeat(_) => 23,
        Message::AdoptListeners(_) => 24,
        Message::Connections(_) => 25,
        Message::State(_) => 26,
        Message::Taken(_) => 27,
        Message::Announced(_) => 28,
        Message::EndProbation(_) => 29,
    }
}

fn encode_body(message: &Message, out: &mut Vec<u8>) -> Result<()> {
    match message {
        Message::Hello(m) => frozen::hello(m, out),
        Message::HelloAck(m) => frozen::hello_ack(m, out),
        Message::Reject(m) => frozen::reject(m, out)?,
        Message::Adopt(m) => frozen::adopt(m, out),
        Message::AdoptAck(m) => frozen::adopt_ack(m, out),
        Message::Warmed(m) => pack(m, out)?,
        Message::PrepareHandoff(m) => pack(m, out)?,
        Message::Drained(m) => pack(m, out)?,
        Message::SealRequest(m) => pack(m, out)?,
        Message::Gate(m) => pack(m, out)?,
        Message::SealProgress(m) => pack(m, out)?,
        Message::SealComplete(m) => pack(m, out)?,
        Message::SealFailed(m) => pack(m, out)?,
        Message::Begin(m) => pack(m, out)?,
        Message::Ready(m) => pack(m, out)?,
        Message::Committed(m) => pack(m, out)?,
        Message::Serving(m) => pack(m, out)?,
        Message::Commit(m) => pack(m, out)?,
        Message::Abort(m) => pack(m, out)?,
        Message::ResumeAfterAbort(m) => pack(m, out)?,
        Message::Resumed(m) => pack(m, out)?,
        Message::Stopping(m) => pack(m, out)?,
        Message::Heartbeat(m) => pack(m, out)?,
        Message::AdoptListeners(m) => pack(m, out)?,
        Message::Connections(m) => pack(m, out)?,
        Message::State(m) => pack(m, out)?,
        Message::Taken(m) => pack(m, out)?,
        Message::Announced(m) => pack(m, out)?,
        Message::EndProbation(m) => pack(m, out)?,
    }
    Ok(())
}

fn decode_body(number: u16, body: &[u8]) -> Result<Message> {
    match number {
        6 => unpack("Warmed", body).map(Message::Warmed),
        7 => unpack("PrepareHandoff", body).map(Message::PrepareHandoff),
        8 => unpack("Drained", body).map(Message::Drained),
        9 => unpack("SealRequest", body).map(Message::SealRequest),
        10 => unpack("Gate", body).map(Message::Gate),
        11 => unpack("SealProgress", body).map(Message::SealProgress),
        12 => unpack("SealComplete", body).map(Message::SealComplete),
        13 => unpack("SealFailed", body).map(Message::SealFailed),
        14 => unpack("Begin", body).map(Message::Begin),
        15 => unpack("Ready", body).map(Message::Ready),
        16 => unpack("Committed", body).map(Message::Committed),
        17 => unpack("Serving", body).map(Message::Serving),
        18 => unpack("Commit", body).map(Message::Commit),
        19 => unpack("Abort", body).map(Message::Abort),
        20 => unpack("ResumeAfterAbort", body).map(Message::ResumeAfterAbort),
        21 => unpack("Resumed", body).map(Message::Resumed),
        22 => unpack("Stopping", body).map(Message::Stopping),
        23 => unpack("Heartbeat", body).map(Message::Heartbeat),
        24 => unpack("AdoptListeners", body).map(Message::AdoptListeners),
        25 => unpack("Connections", body).map(Message::Connections),
        26 => unpack("State", body).map(Message::State),
        27 => unpack("Taken", body).map(Message::Taken),
        28 => unpack("Announced", body).map(Message::Announced),
        29 => unpack("EndProbation", body).map(Message::EndProbation),
        _ => fail(format!("unknown message id {number}")),
    }
}

fn pack(body: &impl Encode, out: &mut Vec<u8>) -> Result<()> {
    match bincode::encode_into_writer(body, Out(out), bincode::config::legacy()) {
        Ok(()) => Ok(()),
        Err(error) => Err(not_packed(&error)),
    }
}

fn unpack<T: Decode<()>>(name: &str, body: &[u8]) -> Result<T> {
    // For a list it counts what the parts that are still to come will have in memory, which is at most three times their bytes here.
    let config = bincode::config::legacy().with_limit::<{ 3 * FRAME_BYTES_MAX }>();
    match bincode::decode_from_slice(body, config) {
        Ok((value, read)) if read == body.len() => Ok(value),
        Ok((_, read)) => Err(left_over(name, body, read)),
        Err(error) => Err(bad_body(name, body, &error)),
    }
}

// What is wrong is said in functions of their own, or it would be compiled anew into each message.

#[inline(never)]
fn not_packed(error: &EncodeError) -> CodecError {
    CodecError(format!("the message can not be packed: {error}"))
}

#[inline(never)]
fn left_over(name: &str, body: &[u8], read: usize) -> CodecError {
    CodecError(format!("{name}: {} bytes left over after byte {}", body.len() - read, HEADER_BYTES + read))
}

#[inline(never)]
fn bad_body(name: &str, body: &[u8], error: &DecodeError) -> CodecError {
    CodecError(format!("{name}: bad body of {} bytes: {error}", body.len()))
}

/// Where the bytes of a body go. bincode has one of its own, which is compiled anew into each field of each message.
struct Out<'a>(&'a mut Vec<u8>);

impl Writer for Out<'_> {
    #[inline(never)]
    fn write(&mut self, bytes: &[u8]) -> std::result::Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}
