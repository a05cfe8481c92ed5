//! The lines of a unit in files: `UNIT.log`, before it `UNIT.log.1`, and so on.
//!
//! Every line is written as it came, with an end, by write(2), and never fsync(2). What can not be written is dropped and counted;
//! the service never hears of it.

use crate::limits::LOG_RETRY;
use crate::service::words::counted;
use crate::sys::clock::nanoseconds;
use crate::sys::fd::advice;
use nix::fcntl::OFlag;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Lines that are written together, in bytes.
const BATCH_BYTES: usize = 64 * 1024;

/// The files of one unit.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Files {
    /// That of the newest lines.
    path: PathBuf,
    bytes_max: u64,
    count: usize,
    current: Option<Current>,
    /// Lines with their ends, to be written next.
    #[serde(with = "crate::sys::inherit::bytes")]
    batch: Vec<u8>,
    /// When to try again, in `CLOCK_MONOTONIC` nanoseconds; zero: nothing was wrong.
    retry_ns: u64,
    trouble: Option<String>,
    /// Lines that were dropped since the last one that was written.
    gap: u64,
    /// All of them.
    dropped: u64,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Current {
    #[serde(with = "crate::sys::inherit::fd")]
    file: File,
    size: u64,
}

impl Files {
    /// Files of `bytes_max` at most, but for a single line that is longer, and `count` of them.
    pub fn new(path: PathBuf, bytes_max: u64, count: usize) -> Self {
        let (batch, trouble) = (Vec::new(), None);
        Self { path, bytes_max, count, current: None, batch, retry_ns: 0, trouble, gap: 0, dropped: 0 }
    }

    /// That of the newest lines.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why nothing can be written now, for people.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Lines that were not written.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Adds a line, which is written now or by [`Self::flush`].
    pub fn add(&mut self, line: &[u8], now_ns: u64) {
        if self.batch.len() + line.len() >= BATCH_BYTES {
            self.flush(now_ns);
        }
        self.batch.extend_from_slice(line);
        self.batch.push(b'\n');
    }

    /// Writes what was added.
    pub fn flush(&mut self, now_ns: u64) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let mut rest = &batch[..];
        // A full disk is not asked for each line.
        if now_ns >= self.retry_ns
            && let Err(error) = self.write(&mut rest)
        {
            let what = format!("cannot write {}: {error}{}", self.path.display(), advice(error.kind()));
            self.trouble = Some(what);
            self.current = None;
            self.retry_ns = now_ns + nanoseconds(LOG_RETRY);
        }
        let left = lines(rest);
        (self.gap, self.dropped) = (self.gap + left, self.dropped + left);
        self.batch = batch;
        self.batch.clear();
    }

    /// Leaves in `rest` the lines that are not written.
    fn write(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        self.reopen_if_moved()?;
        if self.gap > 0 {
            let why = self.trouble.as_deref().unwrap_or_default();
            let remark = format!("-- {} dropped: {why} --\n", counted(self.gap, "line"));
            let mut remark = remark.as_bytes();
            while !remark.is_empty() {
                self.write_lines(&mut remark)?;
            }
            (self.gap, self.trouble, self.retry_ns) = (0, None, 0);
        }
        while !rest.is_empty() {
            self.write_lines(rest)?;
        }
        // Nothing was dropped, but something was wrong.
        (self.trouble, self.retry_ns) = (None, 0);
        Ok(())
    }

    /// Writes as many lines as fit into the file, or begins another one.
    fn write_lines(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        let room = self.bytes_max.saturating_sub(self.current()?.size);
        let fitting = whole_lines(rest, usize::try_from(room).unwrap_or(usize::MAX));
        let len = match fitting {
            0 if self.current()?.size > 0 => return self.rotate(),
            0 => rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1),
            fitting => fitting,
        };
        let Current { file, size } = self.current()?;
        let (written, outcome) = write_all(file, &rest[..len]);
        let whole = if written == len { len } else { whole_lines(rest, written) };
        if whole < written {
            file.set_len(*size + whole as u64)?;
        }
        *size += whole as u64;
        *rest = &rest[whole..];
        outcome
    }

    fn current(&mut self) -> io::Result<&mut Current> {
        let current = match self.current.take() {
            Some(current) => current,
            None => Current::open(&self.path)?,
        };
        Ok(self.current.insert(current))
    }

    /// Somebody may have removed the file, or moved it away.
    fn reopen_if_moved(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let own = current.file.metadata()?;
        let is_ours = |found: Metadata| (found.dev(), found.ino()) == (own.dev(), own.ino());
        current.size = own.len(); // or cut it off
        if !fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            self.current = None;
        }
        Ok(())
    }

    /// Each file gets the next number, and the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.count.saturating_sub(1)).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match self.count {
            0 | 1 => fs::remove_file(&self.path)?,
            _ => fs::rename(&self.path, self.numbered(1))?,
        }
        self.current = None;
        Ok(())
    }

    fn numbered(&self, number: usize) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(format!(".{number}"));
        path.into()
    }
}

impl Current {
    /// Its directory is made if it is not there.
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
            made.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => io::Error::new(
                    io::ErrorKind::NotADirectory,
                    "in the place of its directory is a file; move it away",
                ),
                _ => error,
            })?;
        }
        // Neither a link that leads elsewhere nor a pipe without a reader.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).mode(0o640).custom_flags(flags.bits()).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file; move it away"));
        }
        let mut current = Self { file, size: found.len() };
        current.end_last_line()?;
        Ok(current)
    }

    /// A supervisor that was killed as it wrote may have left half a line.
    fn end_last_line(&mut self) -> io::Result<()> {
        let mut last = [b'\n'];
        if self.size > 0 {
            self.file.read_exact_at(&mut last, self.size - 1)?;
        }
        if last != *b"\n" {
            self.file.write_all(b"\n")?;
            self.size += 1;
        }
        Ok(())
    }
}

/// How much could be written.
fn write_all(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(len) => written += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// The bytes of all lines that end within `room`.
fn whole_lines(bytes: &[u8], room: usize) -> usize {
    let near = &bytes[..bytes.len().min(room)];
    near.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    /// What is in the files, the oldest first, and how many there are.
    fn content(files: &Files) -> (Vec<u8>, usize) {
        let found: Vec<Vec<u8>> = (1..)
            .map_while(|number| fs::read(files.numbered(number)).ok())
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let newest = fs::read(&files.path).ok();
        let count = found.len() + newest.iter().len();
        (found.into_iter().chain(newest).flatten().collect(), count)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_line_is_lost_or_doubled_by_a_rotation(
            lines in prop::collection::vec((0..60usize, any::<bool>(), any::<bool>()), 1..60),
            bytes_max in 1..200u64,
            count in 1..6usize,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("u.log");
            let (mut files, mut all) = (Files::new(path.clone(), bytes_max, count), Vec::new());
            for (number, (len, flush, anew)) in lines.into_iter().enumerate() {
                let line = format!("{number:05}{}", "x".repeat(len));
                files.add(line.as_bytes(), 0);
                all.extend(line.bytes().chain([b'\n']));
                if flush || anew {
                    files.flush(0);
                }
                if anew {
                    files = Files::new(path.clone(), bytes_max, count);
                }
            }
            files.flush(0);
            let (found, found_count) = content(&files);
            prop_assert!(found_count <= count && files.dropped() == 0);
            prop_assert!(all.ends_with(&found) && (found.len() == all.len() || found_count == count));
            for path in (1..count).map(|number| files.numbered(number)).chain([files.path.clone()]) {
                let text = fs::read(path).unwrap_or_default();
                prop_assert!(text.len() as u64 <= bytes_max || super::lines(&text) == 1);
                prop_assert!(text.is_empty() || text.ends_with(b"\n") && text[..5].iter().all(u8::is_ascii_digit));
            }
        }
    }

    fn add(files: &mut Files, line: &str, now_ns: u64) {
        files.add(line.as_bytes(), now_ns);
        files.flush(now_ns);
    }

    #[test]
    fn a_directory_that_can_not_be_used_costs_lines_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let mut files = Files::new(logs.join("u.log"), 1000, 4);
        add(&mut files, "one", 0);
        fs::remove_dir_all(&logs).unwrap();
        add(&mut files, "made anew", 0);
        assert_eq!((content(&files).0, files.trouble()), (b"made anew\n".to_vec(), None));
        fs::remove_dir_all(&logs).unwrap();
        fs::write(&logs, "").unwrap();
        add(&mut files, "lost", 5);
        let trouble = files.trouble().unwrap().to_owned();
        assert!(trouble.starts_with(&format!("cannot write {}: ", logs.join("u.log").display())), "{trouble}");
        fs::remove_file(&logs).unwrap();
        add(&mut files, "lost, too: it is not tried again so soon", 6);
        add(&mut files, "there", 5 + SECOND);
        let text = String::from_utf8(content(&files).0).unwrap();
        assert_eq!(text, format!("-- 2 lines dropped: {trouble} --\nthere\n"));
        assert_eq!((files.dropped(), files.trouble()), (2, None));
    }

    #[test]
    fn what_somebody_moves_cuts_off_or_puts_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("u.log");
        fs::write(&path, "half a li").unwrap();
        let mut files = Files::new(path.clone(), 30, 4);
        add(&mut files, "one", 0);
        assert_eq!(content(&files).0, b"half a li\none\n");
        fs::rename(&path, dir.path().join("moved")).unwrap();
        add(&mut files, "two", 0);
        assert_eq!(content(&files).0, b"two\n");
        File::create(&path).unwrap();
        add(&mut files, "twenty-nine bytes and an end.", 0);
        assert_eq!(content(&files), (b"twenty-nine bytes and an end.\n".to_vec(), 1));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        add(&mut files, "three", 0);
        assert!(files.trouble().unwrap().contains("it is no regular file; move it away"), "{files:?}");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        add(&mut files, "four", SECOND);
        assert_eq!(files.dropped(), 2);
    }
}
