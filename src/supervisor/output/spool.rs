//! The file that one stream of a process goes to.
//!
//! Not a pipe: the process must outlive its supervisor without EPIPE and without a block. The file is append-only, so a
//! daemon and its children can share it; what was read of it, but for the last MiB or two, is given back to the file system.

use super::Stream;
use super::watch::Watched;
use crate::limits::{LINE_BYTES_MAX, OUTPUT_BACKLOG_BYTES_MAX, OUTPUT_KEPT_BYTES, OUTPUT_READ_BYTES_MAX};
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Spool {
    pub(super) stream: Stream,
    pub(super) path: PathBuf,
    /// Opened for reading, and for the holes.
    #[serde(with = "crate::sys::inherit::fd")]
    source: File,
    #[serde(skip)]
    pub(super) watch: Option<Watched>,
    offset: u64,
    /// Where the line begins that was not read to its end: whoever goes on from here has whole lines.
    pub(super) line_start: u64,
    /// Where the holes end.
    hole_end: u64,
    /// There is more than one turn may read.
    pub(super) more: bool,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Portion {
    pub(super) bytes: Vec<u8>,
    /// Bytes before them that were never read.
    pub(super) dropped: u64,
}

impl Portion {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.dropped == 0
    }
}

impl Spool {
    /// With what the process gets: opened for appending.
    pub(super) fn create(stream: Stream, path: &Path) -> io::Result<(Self, File)> {
        let sink = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        Ok((Self::open(stream, path, 0)?, sink))
    }

    /// One that is there, from where a line begins.
    pub(super) fn open(stream: Stream, path: &Path, from: u64) -> io::Result<Self> {
        let source = OpenOptions::new().read(true).write(true).open(path)?;
        let (path, watch) = (path.to_owned(), None);
        Ok(Self { stream, path, source, watch, offset: from, line_start: from, hole_end: 0, more: true })
    }

    /// The file, whatever has become of its name.
    #[cfg(feature = "program")]
    pub(super) fn link(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}", self.source.as_raw_fd()).into()
    }

    /// Whether it is this file.
    pub(super) fn is(&self, other: &std::fs::Metadata) -> bool {
        use std::os::unix::fs::MetadataExt;
        self.source.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    /// Reads what is new, [`OUTPUT_READ_BYTES_MAX`] at most. Of a process that writes faster than it is read, the oldest is left
    /// out.
    pub(super) fn read(&mut self) -> Portion {
        self.more = false;
        let Ok(end) = self.source.metadata().map(|found| found.len()) else { return Portion::default() };
        if end < self.offset {
            // Who opens /dev/stderr may cut it off (O_TRUNC).
            (self.offset, self.line_start, self.hole_end) = (0, 0, 0);
        }
        let mut dropped = self.skip(end);
        let wanted = (end - self.offset).min(OUTPUT_READ_BYTES_MAX as u64) as usize;
        let mut bytes = vec![0; wanted];
        let mut len = 0;
        while len < wanted {
            match self.source.read_at(&mut bytes[len..], self.offset) {
                Ok(0) => break,
                Ok(read) => {
                    len += read;
                    self.offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        bytes.truncate(len);
        self.more = len == wanted && self.offset < end;
        // After a gap it begins amidst a line.
        if dropped > 0
            && let Some(newline) = bytes.iter().position(|byte| *byte == b'\n')
        {
            bytes.drain(..=newline);
            dropped += newline as u64 + 1;
        }
        self.note_lines(&bytes);
        self.punch();
        Portion { bytes, dropped }
    }

    /// Leaves out what is too much; how much that is.
    fn skip(&mut self, end: u64) -> u64 {
        let behind = end - self.offset;
        if behind <= OUTPUT_BACKLOG_BYTES_MAX {
            return 0;
        }
        // More than needed: a gap, and then a while of whole lines.
        let dropped = behind - OUTPUT_BACKLOG_BYTES_MAX / 2;
        self.offset += dropped;
        self.line_start = self.offset;
        dropped
    }

    /// Where the last line begins, or the last part of one that is too long.
    fn note_lines(&mut self, bytes: &[u8]) {
        if let Some(newline) = bytes.iter().rposition(|byte| *byte == b'\n') {
            self.line_start = self.offset - (bytes.len() - newline - 1) as u64;
        }
        let part = LINE_BYTES_MAX as u64;
        let parts = (self.offset - self.line_start).saturating_sub(1) / part;
        self.line_start += parts * part;
    }

    fn punch(&mut self) {
        let end = self.offset.saturating_sub(OUTPUT_KEPT_BYTES).min(self.line_start);
        // Not for each line.
        if end < self.hole_end + OUTPUT_KEPT_BYTES {
            return;
        }
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // Not every file system can; then the file grows, and nothing else is wrong.
        if let (Ok(start), Ok(len)) = (i64::try_from(self.hole_end), i64::try_from(end - self.hole_end)) {
            let _ = fallocate(&self.source, mode, start, len);
        }
        self.hole_end = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    fn all(spool: &mut Spool) -> (Vec<u8>, u64) {
        let (mut bytes, mut dropped) = (Vec::new(), 0);
        loop {
            let portion = spool.read();
            assert!(portion.bytes.len() <= OUTPUT_READ_BYTES_MAX);
            bytes.extend(portion.bytes);
            dropped += portion.dropped;
            if !spool.more {
                return (bytes, dropped);
            }
        }
    }

    #[test]
    fn it_gives_back_what_was_read_and_the_next_reader_begins_with_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.7.stderr");
        let (mut spool, mut sink) = Spool::create(Stream::Stderr, &path).unwrap();
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        for _ in 0..40_000 {
            sink.write_all(&line).unwrap();
        }
        sink.write_all(b"half").unwrap();
        let (bytes, dropped) = all(&mut spool);
        assert_eq!((bytes.len(), dropped, spool.line_start), (4_000_004, 0, 4_000_000));
        let found = path.metadata().unwrap();
        assert!(found.blocks() * 512 <= 3 * OUTPUT_KEPT_BYTES, "{} blocks", found.blocks());
        sink.write_all(b" a line\n").unwrap();
        let mut next = Spool::open(Stream::Stderr, &path, spool.line_start).unwrap();
        assert_eq!(all(&mut next).0, b"half a line\n");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_at_the_same_places_by_the_next_reader() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, mut sink) = Spool::create(Stream::Stdout, &dir.path().join("s")).unwrap();
        for (more, start) in [(LINE_BYTES_MAX, 0), (1, LINE_BYTES_MAX), (3 * LINE_BYTES_MAX, 4 * LINE_BYTES_MAX)] {
            sink.write_all(&vec![b'x'; more]).unwrap();
            all(&mut spool);
            assert_eq!(spool.line_start, start as u64);
        }
    }

    #[test]
    fn too_much_is_left_out_and_counted_and_begins_with_a_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (mut spool, mut sink) = Spool::create(Stream::Stdout, &path).unwrap();
        let total = OUTPUT_BACKLOG_BYTES_MAX as usize + 1_000_000;
        let text: Vec<u8> = (0..).flat_map(|number| format!("{number:09}\n").into_bytes()).take(total).collect();
        sink.write_all(&text).unwrap();
        let (bytes, dropped) = all(&mut spool);
        assert!(dropped > 1_000_000, "{dropped}");
        assert_eq!(bytes, text[dropped as usize..]);
        assert_eq!(text[dropped as usize - 1], b'\n');
        assert!(path.metadata().unwrap().blocks() * 512 <= 3 * OUTPUT_KEPT_BYTES);
    }

    #[test]
    fn a_file_that_was_cut_off_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (mut spool, mut sink) = Spool::create(Stream::Stdout, &path).unwrap();
        sink.write_all(b"one\ntwo\n").unwrap();
        all(&mut spool);
        File::create(&path).unwrap();
        sink.write_all(b"three\n").unwrap();
        assert_eq!(all(&mut spool).0, b"three\n");
    }
}
