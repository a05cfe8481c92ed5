//! The five messages whose layout never changes, packed by hand.

use super::{HEADER_BYTES, Result, fail};
use crate::limits::{BUILD_ID_BYTES_MAX, TEXT_BYTES_MAX};
use crate::protocol::HandoffId;
use crate::protocol::message::{Adopt, AdoptAck, Hello, HelloAck, Message, Mode, Reject, RejectCode, Side, Terms};

pub(super) const HELLO: u16 = 1;
pub(super) const HELLO_ACK: u16 = 2;
pub(super) const REJECT: u16 = 3;
pub(super) const ADOPT: u16 = 4;
pub(super) const ADOPT_ACK: u16 = 5;

/// Extension of Hello: [`Hello::descriptors_max`], u64.
const HELLO_DESCRIPTORS_MAX: u16 = 1;
/// Extension of HelloAck: [`Terms::open_descriptors`], u32.
const HELLO_ACK_OPEN_DESCRIPTORS: u16 = 1;

/// Appends a Hello. A build id is for people: it is cut like a text.
pub(super) fn hello(m: &Hello, out: &mut Vec<u8>) {
    let side: u8 = match m.side {
        Side::Incumbent => 1,
        Side::Successor => 2,
    };
    let build_id = &m.build_id[..m.build_id.len().min(BUILD_ID_BYTES_MAX)];
    out.push(side);
    out.extend_from_slice(&m.pid.to_le_bytes());
    out.extend_from_slice(&m.version_min.to_le_bytes());
    out.extend_from_slice(&m.version_max.to_le_bytes());
    out.extend_from_slice(&m.capabilities.to_le_bytes());
    out.extend_from_slice(&m.generation.to_le_bytes());
    out.extend_from_slice(&m.open_descriptors.to_le_bytes());
    out.extend_from_slice(&m.time_namespace.to_le_bytes());
    out.extend_from_slice(&(build_id.len() as u16).to_le_bytes()); // at most BUILD_ID_BYTES_MAX
    out.extend_from_slice(build_id);
    if m.descriptors_max != 0 {
        extension(HELLO_DESCRIPTORS_MAX, &m.descriptors_max.to_le_bytes(), out);
    }
}

/// Appends what a reader may skip.
fn extension(tag: u16, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u16).to_le_bytes()); // a few bytes
    out.extend_from_slice(bytes);
}

pub(super) fn hello_ack(m: &HelloAck, out: &mut Vec<u8>) {
    out.extend_from_slice(&m.version.to_le_bytes());
    out.extend_from_slice(&m.generation.to_le_bytes());
    out.push(u8::from(m.terms.is_some()));
    if let Some(terms) = m.terms {
        out.extend_from_slice(&terms.id.0.to_le_bytes());
        out.push(match terms.mode {
            Mode::Exclusive => 0,
            Mode::Overlap => 1,
        });
        out.extend_from_slice(&terms.deadline_ns.to_le_bytes());
        out.extend_from_slice(&terms.park_ns.to_le_bytes());
        if terms.open_descriptors != 0 {
            extension(HELLO_ACK_OPEN_DESCRIPTORS, &terms.open_descriptors.to_le_bytes(), out);
        }
    }
}

pub(super) fn reject(m: &Reject, out: &mut Vec<u8>) -> Result<()> {
    let code: u16 = match m.code {
        RejectCode::Version => 1,
        RejectCode::Role => 2,
        RejectCode::Pid => 3,
        RejectCode::Uid => 4,
        RejectCode::TimeNamespace => 5,
        RejectCode::Unable => 6,
    };
    out.extend_from_slice(&code.to_le_bytes());
    string("Reject: text", &m.text, out)
}

pub(super) fn adopt(m: &Adopt, out: &mut Vec<u8>) {
    out.extend_from_slice(&m.version_min.to_le_bytes());
    out.extend_from_slice(&m.version_max.to_le_bytes());
}

pub(super) fn adopt_ack(m: &AdoptAck, out: &mut Vec<u8>) {
    out.extend_from_slice(&m.version.to_le_bytes());
    out.extend_from_slice(&m.pid.to_le_bytes());
    out.extend_from_slice(&m.generation.to_le_bytes());
    out.push(m.phase);
    out.extend_from_slice(&m.id.0.to_le_bytes());
    out.extend_from_slice(&m.listeners.to_le_bytes());
}

fn string(what: &str, text: &str, out: &mut Vec<u8>) -> Result<()> {
    let Some(length) = u16::try_from(text.len()).ok().filter(|_| text.len() <= TEXT_BYTES_MAX) else {
        return fail(format!("{what} has {} bytes, at most {TEXT_BYTES_MAX} are allowed", text.len()));
    };
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Reads a body; none if the message is not one of the five.
pub(super) fn decode(number: u16, body: &[u8]) -> Option<Result<Message>> {
    let read = match number {
        HELLO => |r: &mut Reader| r.hello().map(Message::Hello),
        HELLO_ACK => |r: &mut Reader| r.hello_ack().map(Message::HelloAck),
        REJECT => |r: &mut Reader| r.reject().map(Message::Reject),
        ADOPT => |r: &mut Reader| r.adopt().map(Message::Adopt),
        ADOPT_ACK => |r: &mut Reader| r.adopt_ack().map(Message::AdoptAck),
        _ => return None,
    };
    let name = ["Hello", "HelloAck", "Reject", "Adopt", "AdoptAck"][usize::from(number) - 1];
    let mut reader = Reader { name, bytes: body, start: 0, at: 0 };
    Some(read(&mut reader).and_then(|mut message| reader.extensions(&mut message).map(|()| message)))
}

struct Reader<'a> {
    name: &'static str,
    bytes: &'a [u8],
    /// Where the field that is being read begins.
    start: usize,
    at: usize,
}

impl<'a> Reader<'a> {
    fn error<T>(&self, field: &str, what: impl std::fmt::Display) -> Result<T> {
        fail(format!("{}: {field} at byte {}: {what}", self.name, HEADER_BYTES + self.start))
    }

    fn take(&mut self, field: &str, length: usize) -> Result<&'a [u8]> {
        self.start = self.at;
        let rest = &self.bytes[self.at..]; // `at` never passes the end
        let Some(taken) = rest.get(..length) else {
            return self.error(field, format_args!("{length} bytes wanted, {} left", rest.len()));
        };
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    fn u8(&mut self, field: &str) -> Result<u8> {
        self.array(field).map(u8::from_le_bytes)
    }

    fn u16(&mut self, field: &str) -> Result<u16> {
        self.array(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &str) -> Result<u32> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &str) -> Result<u64> {
        self.array(field).map(u64::from_le_bytes)
    }

    fn bool(&mut self, field: &str) -> Result<bool> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => self.error(field, format_args!("{other} is neither 0 nor 1")),
        }
    }

    fn bytes(&mut self, field: &str, max: usize) -> Result<&'a [u8]> {
        let length = usize::from(self.u16(field)?);
        if length > max {
            return self.error(field, format_args!("{length} bytes, at most {max} are allowed"));
        }
        self.take(field, length)
    }

    fn string(&mut self, field: &str) -> Result<String> {
        let bytes = self.bytes(field, TEXT_BYTES_MAX)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(error) => self.error(field, error),
        }
    }

    fn hello(&mut self) -> Result<Hello> {
        let side = match self.u8("side")? {
            1 => Side::Incumbent,
            2 => Side::Successor,
            other => return self.error("side", format_args!("{other} is unknown")),
        };
        Ok(Hello {
            side,
            pid: self.u32("pid")?,
            version_min: self.u16("oldest version")?,
            version_max: self.u16("newest version")?,
            capabilities: self.u32("capabilities")?,
            generation: self.u64("generation")?,
            open_descriptors: self.u32("open descriptors")?,
            descriptors_max: 0, // may come as an extension
            time_namespace: self.u64("time namespace")?,
            build_id: self.bytes("build id", BUILD_ID_BYTES_MAX)?.to_vec(),
        })
    }

    fn hello_ack(&mut self) -> Result<HelloAck> {
        let (version, generation) = (self.u16("version")?, self.u64("generation")?);
        let terms = if self.bool("with terms")? { Some(self.terms()?) } else { None };
        Ok(HelloAck { version, generation, terms })
    }

    fn terms(&mut self) -> Result<Terms> {
        let id = HandoffId(self.u64("id")?);
        let mode = match self.u8("mode")? {
            0 => Mode::Exclusive,
            1 => Mode::Overlap,
            other => return self.error("mode", format_args!("{other} is unknown")),
        };
        let (deadline_ns, park_ns) = (self.u64("deadline")?, self.u64("park time")?);
        Ok(Terms { id, mode, deadline_ns, park_ns, open_descriptors: 0 }) // may come as an extension
    }

    fn reject(&mut self) -> Result<Reject> {
        let code = match self.u16("code")? {
            1 => RejectCode::Version,
            2 => RejectCode::Role,
            3 => RejectCode::Pid,
            4 => RejectCode::Uid,
            5 => RejectCode::TimeNamespace,
            // A later version may have more reasons; a refusal must be understood all the same.
            _ => RejectCode::Unable,
        };
        Ok(Reject { code, text: self.string("text")? })
    }

    fn adopt(&mut self) -> Result<Adopt> {
        Ok(Adopt { version_min: self.u16("oldest version")?, version_max: self.u16("newest version")? })
    }

    fn adopt_ack(&mut self) -> Result<AdoptAck> {
        let (version, pid, generation) = (self.u16("version")?, self.u32("pid")?, self.u64("generation")?);
        let (phase, id) = (self.u8("phase")?, HandoffId(self.u64("id")?));
        let listeners = self.u16("number of listeners")?;
        Ok(AdoptAck { version, pid, generation, phase, id, listeners })
    }

    /// Reads the extensions that are known, and skips what a later version has to add.
    fn extensions(&mut self, message: &mut Message) -> Result<()> {
        while self.at < self.bytes.len() {
            let tag = self.u16("tag of an extension")?;
            let bytes = self.bytes("extension", usize::from(u16::MAX))?;
            match (tag, &mut *message) {
                (HELLO_DESCRIPTORS_MAX, Message::Hello(hello)) => {
                    hello.descriptors_max = u64::from_le_bytes(self.exactly("open descriptors at most", bytes)?);
                }
                (HELLO_ACK_OPEN_DESCRIPTORS, Message::HelloAck(HelloAck { terms: Some(terms), .. })) => {
                    terms.open_descriptors = u32::from_le_bytes(self.exactly("open descriptors", bytes)?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn exactly<const N: usize>(&self, field: &str, bytes: &[u8]) -> Result<[u8; N]> {
        match bytes.try_into() {
            Ok(array) => Ok(array),
            Err(_) => self.error(field, format_args!("{} bytes, it has {N}", bytes.len())),
        }
    }
}
