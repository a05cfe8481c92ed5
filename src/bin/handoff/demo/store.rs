//! The daemon's data: a map in memory and an append-only log, synced before a write is acknowledged.
//!
//! A line of the log is `<checksum> <revision> <key> <value>`; the revisions count up from 1 without a gap.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The store. It can be written while it is open.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    state: Mutex<State>,
    synced: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// None while it is not ours to write.
    log: Option<Arc<File>>,
    /// Of the log, as far as it is known.
    size: u64,
    /// Of the last line.
    revision: u64,
    /// Of the last line that is on disk.
    durable: u64,
    /// One thread is in fdatasync, for all that wait.
    syncing: bool,
    /// A write or a sync failed: nobody knows what is on disk, so nothing more is accepted.
    broken: bool,
    entries: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    revision: u64,
    value: String,
}

impl Store {
    /// Of this directory; nothing is read or written yet.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.into(), state: Mutex::default(), synced: Condvar::new() }
    }

    /// Reads what is in the log by now, without the right to write it: somebody else appends to it.
    pub fn warm(&self) -> io::Result<()> {
        match File::open(self.log_path()) {
            Ok(log) => self.state().catch_up(&log),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads what it does not know yet, and writes from here on.
    pub fn open(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.log.is_some() {
            return Ok(()); // the handoff was given up before the seal
        }
        let log = OpenOptions::new().read(true).append(true).create(true).open(self.log_path())?;
        state.catch_up(&log)?;
        if log.metadata()?.len() > state.size {
            log.set_len(state.size)?; // a torn last line, which nobody was told of
        }
        // The last lines may be in memory only, if their writer was killed before its sync.
        log.sync_data()?;
        if state.size == 0 {
            File::open(&self.dir)?.sync_all()?;
        }
        state.durable = state.revision;
        state.log = Some(Arc::new(log));
        Ok(())
    }

    /// Makes everything durable; nothing is written from here on. Returns the last revision.
    pub fn close(&self) -> io::Result<u64> {
        let mut state = self.state();
        while state.syncing {
            state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.broken {
            return Err(io::Error::other("the log is broken"));
        }
        if let Some(log) = state.log.take().filter(|_| state.durable < state.revision) {
            let result = log.sync_data();
            state.broken = result.is_err();
            result?;
            state.durable = state.revision;
        }
        Ok(state.revision)
    }

    /// The last revision.
    pub fn revision(&self) -> u64 {
        self.state().revision
    }

    /// Writes, and waits until it is on disk. Returns the revision.
    pub fn set(&self, key: &str, value: &str) -> io::Result<u64> {
        let broken = || io::Error::other("the log is broken");
        let mut state = self.state();
        let log = state.log.clone().filter(|_| !state.broken).ok_or_else(broken)?;
        let revision = state.append(&log, key, value)?;
        // Whoever finds nobody in fdatasync syncs for all that wait.
        while state.durable < revision && !state.broken {
            if state.syncing {
                state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let written = state.revision;
            state.syncing = true;
            drop(state);
            let result = log.sync_data();
            state = self.state();
            state.syncing = false;
            match result {
                Ok(()) => state.durable = written,
                Err(_) => state.broken = true,
            }
            self.synced.notify_all();
        }
        if state.durable < revision {
            return Err(broken());
        }
        state.put(key, value, revision);
        Ok(revision)
    }

    pub fn get(&self, key: &str) -> Option<String> {
        self.state().entries.get(key).map(|entry| entry.value.clone())
    }

    /// How many keys there are, and the last revision that is on disk.
    pub fn count(&self) -> (usize, u64) {
        let state = self.state();
        (state.entries.len(), state.durable)
    }

    /// A fault on purpose: drops the last write from memory.
    pub fn forget_last(&self) {
        let mut state = self.state();
        let last = state.revision;
        state.entries.retain(|_, entry| entry.revision != last);
        state.revision = last.saturating_sub(1);
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("kv.log")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, mut log: &File, key: &str, value: &str) -> io::Result<u64> {
        let revision = self.revision + 1;
        let body = format!("{revision} {key} {value}");
        let line = format!("{:08x} {body}\n", fnv1a(body.as_bytes()));
        if let Err(error) = log.write_all(line.as_bytes()) {
            self.broken = true;
            return Err(error);
        }
        self.revision = revision;
        self.size += line.len() as u64;
        Ok(revision)
    }

    /// Writes that were synced together come here in any order: the highest revision wins.
    fn put(&mut self, key: &str, value: &str, revision: u64) {
        match self.entries.get_mut(key) {
            Some(entry) if entry.revision > revision => {}
            Some(entry) => *entry = Entry { revision, value: value.into() },
            None => drop(self.entries.insert(key.into(), Entry { revision, value: value.into() })),
        }
    }

    /// All complete lines after what is known.
    fn catch_up(&mut self, mut log: &File) -> io::Result<()> {
        log.seek(SeekFrom::Start(self.size))?;
        let mut lines = BufReader::with_capacity(1 << 16, log);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            let damaged = || io::Error::other(format!("kv.log is damaged at byte {}", self.size));
            let (revision, key, value) = parse(&line[..line.len() - 1]).ok_or_else(damaged)?;
            if revision != self.revision + 1 {
                return Err(damaged());
            }
            self.put(key, value, revision);
            self.revision = revision;
            self.size += line.len() as u64;
            line.clear();
        }
        Ok(())
    }
}

fn parse(line: &[u8]) -> Option<(u64, &str, &str)> {
    let (sum, body) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    if u32::from_str_radix(sum, 16).ok()? != fnv1a(body.as_bytes()) {
        return None;
    }
    let mut words = body.split(' ');
    let (revision, key, value) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    words.next().is_none().then_some((revision, key, value))
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_is_there_after_a_torn_line_and_in_a_warm_reader() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (Store::new(dir.path()), Store::new(dir.path()));
        assert!(old.set("a", "1").is_err(), "not open");
        old.open().unwrap();
        assert_eq!(old.set("a", "1").unwrap(), 1);
        new.warm().unwrap();
        assert_eq!(old.set("a", "2").unwrap(), 2);
        assert_eq!(old.close().unwrap(), 2);
        assert!(old.set("a", "3").is_err(), "sealed");
        OpenOptions::new().append(true).open(dir.path().join("kv.log")).unwrap().write_all(b"1234 3 a").unwrap();

        new.open().unwrap();
        assert_eq!((new.get("a").as_deref(), new.count()), (Some("2"), (1, 2)));
        assert_eq!(new.set("b", "1").unwrap(), 3);
        new.close().unwrap();
        old.open().unwrap();
        assert_eq!((old.get("b").as_deref(), old.revision()), (Some("1"), 3));
    }

    #[test]
    fn a_damaged_line_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        store.open().unwrap();
        store.set("key", "value").unwrap();
        store.close().unwrap();
        let path = dir.path().join("kv.log");
        let text = std::fs::read_to_string(&path).unwrap().replace("value", "vulue");
        std::fs::write(&path, text).unwrap();
        assert!(Store::new(dir.path()).open().unwrap_err().to_string().contains("byte 0"));
    }

    #[test]
    fn a_forgotten_write_shows_in_the_revision() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        store.open().unwrap();
        store.set("a", "1").unwrap();
        store.set("b", "1").unwrap();
        store.forget_last();
        assert_eq!((store.revision(), store.get("b"), store.get("a").as_deref()), (1, None, Some("1")));
    }
}
