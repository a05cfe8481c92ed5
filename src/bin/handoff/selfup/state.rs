//! The state of a supervisor as bytes: four parts, each of the last three with its length before it.
//!
//! A head in JSON, which every version of this program can read; the supervisor in JSON; bytes that it refers to.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use handoff::sys::inherit::{self, Saved};
use handoff::sys::memfd::{Mapping, sealed_copy};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of the state. Within one, fields may be added that older programs do not know, and leave out; and that newer ones do not
/// find, and have a default for.
const FORMAT: u32 = 1;
/// What it begins with.
const MAGIC: &[u8; 8] = b"HANDOFFS";

/// What comes first.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    /// Of the program that wrote it.
    version: String,
    /// The descriptors that belong to it.
    fds: BTreeSet<RawFd>,
}

/// A state that nobody can change any more.
#[derive(Debug)]
pub struct Sealed {
    pub fd: OwnedFd,
    /// The descriptors that must stay open.
    pub kept: BTreeSet<RawFd>,
}

/// A state that was read.
#[derive(Debug)]
pub struct Restored<T> {
    pub it: T,
    /// The descriptors of the program before, of which it has duplicates.
    pub left: BTreeSet<RawFd>,
}

pub fn seal(it: &impl Serialize) -> io::Result<Sealed> {
    let (body, Saved { fds, bytes, .. }) = inherit::save(|| serde_json::to_vec(it));
    let head = Head { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), fds };
    let mut data = MAGIC.to_vec();
    for part in [serde_json::to_vec(&head)?, body?, bytes] {
        data.extend_from_slice(&(part.len() as u64).to_le_bytes());
        data.extend_from_slice(&part);
    }
    Ok(Sealed { fd: sealed_copy(&data)?, kept: head.fds })
}

/// Reads it; on a `trial` without its descriptors. Until [`inherit::end_restore`] what was read is only a copy.
pub fn read<T: DeserializeOwned>(fd: &File, trial: bool) -> Result<Restored<T>, String> {
    let unreadable = |error: io::Error| format!("the state can not be read: {error}");
    let mapping = Mapping::new(std::os::fd::AsFd::as_fd(fd)).map_err(unreadable)?;
    let mut data = mapping.bytes().strip_prefix(MAGIC).ok_or("this is no state of handoff")?;
    let mut part = || {
        let (len, rest) = data.split_first_chunk::<8>()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let (part, rest) = rest.split_at_checked(len)?;
        data = rest;
        Some(part)
    };
    let parts = [part(), part(), part()];
    let [Some(head), Some(body), Some(bytes)] = parts else { return Err("the state is cut off".to_owned()) };
    let head: Head = serde_json::from_slice(head).map_err(|error| format!("the state has no head: {error}"))?;
    if head.format != FORMAT {
        return Err(format!(
            "handoff {} has written format {} of the state, and handoff {} reads format {FORMAT} only",
            head.version,
            head.format,
            env!("CARGO_PKG_VERSION")
        ));
    }
    inherit::begin_restore(bytes.to_vec(), trial).map_err(unreadable)?;
    let not_understood = |error: &dyn std::fmt::Display| {
        format!("the state that handoff {} has written is not understood: {error}", head.version)
    };
    // All at once, not each of its strings: that takes a fifth of the time.
    let body = std::str::from_utf8(body).map_err(|error| not_understood(&error))?;
    let it = serde_json::from_str(body).map_err(|error| not_understood(&error))?;
    Ok(Restored { it, left: head.fds })
}
