//! How far the output of a process was read: for the supervisor that comes after this one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes of a record at most, and then some.
const RECORD_BYTES_MAX: usize = 128;

/// The file. It is not the one that the process has: that one anybody may cut off, and to write to it would look like output.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Record {
    #[serde(with = "crate::sys::inherit::fd")]
    file: File,
    pub(super) kept: Kept,
}

/// What is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Kept {
    pub(super) pid: i32,
    pub(super) generation: u64,
    /// Of stdout and stderr.
    pub(super) offsets: [u64; 2],
}

impl Record {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let record = Self { file, kept: Kept::default() };
        record.write(Kept::default())?; // its page is there from now on, also when the file system is full
        Ok(record)
    }

    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut bytes = [0; RECORD_BYTES_MAX];
        let len = file.read_at(&mut bytes, 0)?;
        let kept = Kept::parse(&bytes[..len]).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { file, kept })
    }

    pub(super) fn keep(&mut self, kept: Kept) {
        // What can not be written is read twice by the next supervisor.
        if kept != self.kept && self.write(kept).is_ok() {
            self.kept = kept;
        }
    }

    fn write(&self, kept: Kept) -> io::Result<()> {
        let Kept { pid, generation, offsets: [stdout, stderr] } = kept;
        // Always as long, so that nothing of the one before is left.
        let line = format!("{pid:>10} {generation:>20} {stdout:>20} {stderr:>20}\n");
        self.file.write_all_at(line.as_bytes(), 0)
    }
}

impl Kept {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.split_ascii_whitespace();
        let pid = words.next()?.parse().ok()?;
        let mut number = || words.next()?.parse().ok();
        Some(Self { pid, generation: number()?, offsets: [number()?, number()?] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.7.read");
        let mut record = Record::create(&path).unwrap();
        assert_eq!(Record::open(&path).unwrap().kept, Kept::default());
        for kept in [
            Kept { pid: i32::MAX, generation: u64::MAX, offsets: [u64::MAX; 2] },
            Kept { pid: 7, generation: 1, offsets: [5, 0] },
        ] {
            record.keep(kept);
            assert_eq!(Record::open(&path).unwrap().kept, kept);
        }
        for bad in ["", "7", "7 1 5", "x 1 5 0", "7 -1 5 0", "\u{0}\u{0}"] {
            std::fs::write(&path, bad).unwrap();
            assert!(Record::open(&path).is_err(), "{bad:?}");
        }
    }
}
