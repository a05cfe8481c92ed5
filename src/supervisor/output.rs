//! What a process writes to stderr, in a file that the supervisor follows.
//!
//! Not a pipe: the daemon must outlive its supervisor without EPIPE and without a block. The file is append-only, so a
//! daemon and its children can share it; what was read of it, but for the last MiB or two, is given back to the file system.

use super::Event;
use super::engine::Engine;
use super::process::Process;
use crate::error::{Error, Result};
use crate::limits::{
    OUTPUT_KEPT_BYTES, OUTPUT_LAST_READS_MAX, OUTPUT_READ_BYTES_MAX, REASON_BYTES_MAX, REASON_LINES_MAX,
};
use crate::sys::fd::file_context;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::inotify::{AddWatchFlags, Inotify, WatchDescriptor};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file of one process.
#[derive(Debug)]
pub(super) struct Output {
    /// Opened for appending: what the process gets.
    sink: File,
    /// Opened for reading, and for the holes.
    source: File,
    path: PathBuf,
    pub(super) watch: WatchDescriptor,
    offset: u64,
    /// Where the holes end.
    hole_end: u64,
    /// The last bytes that were read.
    tail: Vec<u8>,
    /// More was there than one turn may read.
    pub(super) more: bool,
}

impl Output {
    pub(super) fn create(path: PathBuf, inotify: &Inotify) -> Result<Self> {
        let failed = |error| {
            let what = format_args!("cannot create {}", path.display());
            Error::system("no file for the output of the process")(file_context(error, what))
        };
        let sink = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let sink = sink.map_err(failed)?;
        let watched = OpenOptions::new().read(true).write(true).open(&path).and_then(|source| {
            let watch = inotify.add_watch(&path, AddWatchFlags::IN_MODIFY)?;
            Ok((source, watch))
        });
        let (source, watch) = watched.map_err(|error| {
            let _ = fs::remove_file(&path);
            failed(error)
        })?;
        Ok(Self { sink, source, path, watch, offset: 0, hole_end: 0, tail: Vec::new(), more: false })
    }

    /// The file of a process that another supervisor has started; what is in it was for that one.
    pub(super) fn follow(path: PathBuf, inotify: &Inotify) -> io::Result<Self> {
        let sink = OpenOptions::new().append(true).open(&path)?;
        let source = OpenOptions::new().read(true).write(true).open(&path)?;
        let watch = inotify.add_watch(&path, AddWatchFlags::IN_MODIFY)?;
        let offset = source.metadata()?.len();
        Ok(Self { sink, source, path, watch, offset, hole_end: 0, tail: Vec::new(), more: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the process gets as its stderr.
    pub(super) fn sink(&self) -> BorrowedFd<'_> {
        self.sink.as_fd()
    }

    /// Reads what is new, [`OUTPUT_READ_BYTES_MAX`] at most.
    pub(super) fn read(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut part = vec![0; 64 * 1024];
        self.more = false;
        while let Ok(len @ 1..) = self.source.read_at(&mut part, self.offset) {
            bytes.extend_from_slice(&part[..len]);
            self.offset += len as u64;
            if bytes.len() >= OUTPUT_READ_BYTES_MAX {
                self.more = true;
                break;
            }
        }
        self.remember(&bytes);
        self.punch();
        bytes
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(REASON_BYTES_MAX)..]);
        let excess = self.tail.len().saturating_sub(REASON_BYTES_MAX);
        self.tail.drain(..excess);
    }

    fn punch(&mut self) {
        let end = self.offset.saturating_sub(OUTPUT_KEPT_BYTES);
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

    /// The last lines, for the reason of an outcome; None if nothing was written.
    pub(super) fn last_lines(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.tail);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let lines = &lines[lines.len().saturating_sub(REASON_LINES_MAX)..];
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// The process is gone and everything was read.
    pub(super) fn remove(self, inotify: &Inotify) {
        let _ = inotify.rm_watch(self.watch);
        let _ = fs::remove_file(&self.path);
    }
}

/// Where the output of the process goes that is started for this id.
pub(super) fn path(dir: &Path, service: &str, id: u64) -> PathBuf {
    dir.join(format!("{service}.{id}.stderr"))
}

impl Engine {
    pub(super) fn output_waits(&self) -> bool {
        let waits = |process: &Process| process.output.as_ref().is_some_and(|output| output.more);
        self.processes.iter().any(waits)
    }

    pub(super) fn read_output(&mut self) {
        if let Some(inotify) = &self.inotify {
            let _ = inotify.read_events(); // which file it was is cheaper seen than looked up
        }
        let mut news = Vec::new();
        for process in self.processes.iter_mut() {
            let bytes = process.output.as_mut().map(|output| output.read()).unwrap_or_default();
            if !bytes.is_empty() {
                news.push(Event::Stderr { pid: process.pid, bytes });
            }
        }
        news.into_iter().for_each(|event| self.push(event));
    }

    pub(super) fn read_last_output(&mut self, process: &mut Process) {
        let Some(output) = &mut process.output else { return };
        // A child that it leaves behind may write for ever.
        for _ in 0..OUTPUT_LAST_READS_MAX {
            let bytes = output.read();
            let more = output.more;
            if !bytes.is_empty() {
                let event = Event::Stderr { pid: process.pid, bytes };
                self.push(event);
            }
            if !more {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::inotify::InitFlags;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn follows_keeps_the_end_and_gives_back_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
        let path = path(dir.path(), "kv", 7);
        let mut output = Output::create(path.clone(), &inotify).unwrap();
        assert!(Output::create(path.clone(), &inotify).is_err());
        assert_eq!(output.last_lines(), None);
        let mut daemon = output.sink.try_clone().unwrap();
        daemon.write_all(b"one\ntwo\n\xff").unwrap();
        assert_eq!(output.read(), b"one\ntwo\n\xff");
        assert_eq!(output.last_lines().unwrap(), "one\ntwo\n\u{fffd}");
        assert!(!inotify.read_events().unwrap().is_empty());

        let line = [b'x'; 99];
        for _ in 0..40_000 {
            daemon.write_all(&line).unwrap();
            daemon.write_all(b"\n").unwrap();
        }
        let mut total = 0;
        while output.more || total == 0 {
            total += output.read().len();
        }
        assert_eq!(total, 4_000_000);
        assert_eq!(output.last_lines().unwrap().lines().count(), REASON_LINES_MAX);
        let found = fs::metadata(&path).unwrap();
        assert!(found.blocks() * 512 <= 3 * OUTPUT_KEPT_BYTES, "{} blocks", found.blocks());
        output.remove(&inotify);
        assert!(!path.exists());
    }
}
