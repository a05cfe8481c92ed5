//! What the processes of a service write: kept, written to files, and followed.
//!
//! Nothing here waits for anybody. All of it is data, but for one open file, which is opened again where it is missing.

mod files;
mod ring;
mod splitter;

pub use files::Files;
pub use ring::{Line, Origin, Ring, Source};
pub use splitter::Splitter;

use std::collections::BTreeMap;

use serde::Serialize;

use super::config::LogBudget;
use crate::service::words::counted;
use crate::sys::clock::{monotonic_ns, realtime_ns};

/// The output of one service.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Log {
    ring: Ring,
    files: Option<Files>,
    /// Of each stream of a process.
    #[serde(with = "crate::sys::inherit::pairs")]
    splitters: BTreeMap<(u64, Origin), Splitter>,
    /// What was wrong with the files when that was last asked.
    told: Option<String>,
    flood_bytes: u64,
    reader_lines: u64,
    /// Lines that files dropped which are not used any more.
    file_lines: u64,
}

/// A part of the output.
#[derive(Debug)]
pub(super) struct Part<'a> {
    /// The same for all that a process and its children write.
    pub(super) key: u64,
    pub(super) source: Source,
    pub(super) bytes: &'a [u8],
    /// Bytes before these that are missing; then these begin with a line.
    pub(super) dropped: u64,
    /// Nothing more comes from this source.
    pub(super) last: bool,
}

/// What is kept, and what is not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LogStatus {
    /// Lines that `handoff logs` has.
    pub lines: u64,
    /// Their bytes.
    pub bytes: usize,
    /// Lines that there ever were.
    pub lines_total: u64,
    /// The file that lines are written to.
    pub file: Option<String>,
    /// Why that can not be done now.
    pub trouble: Option<String>,
    /// Bytes that came faster than they could be read.
    pub dropped_bytes: u64,
    /// Lines that could not be written to the file.
    pub dropped_from_file: u64,
    /// Lines that were not sent to a reader who was too slow; to all of them together.
    pub dropped_from_readers: u64,
}

impl Log {
    /// That of the service `name`.
    pub fn new(name: &str, budget: &LogBudget) -> Self {
        Self {
            ring: Ring::new(budget.lines, budget.bytes),
            files: files(name, budget),
            splitters: BTreeMap::new(),
            told: None,
            flood_bytes: 0,
            reader_lines: 0,
            file_lines: 0,
        }
    }

    /// What was kept stays, as far as there is room for it.
    pub fn resize(&mut self, name: &str, budget: &LogBudget) {
        self.ring.resize(budget.lines, budget.bytes);
        self.file_lines += self.files.as_ref().map_or(0, Files::dropped);
        self.files = files(name, budget);
    }

    pub(super) fn take(&mut self, part: &Part<'_>) {
        let (time_ns, now_ns) = (realtime_ns(), monotonic_ns());
        let Part { key, source, bytes, dropped, last } = *part;
        let (ring, files) = (&mut self.ring, &mut self.files);
        let mut add = |source, line: &[u8], goes_on| {
            ring.push(time_ns, source, goes_on, line);
            files.iter_mut().for_each(|files| files.add(line, now_ns));
        };
        let splitter = self.splitters.entry((key, source.origin)).or_default();
        if dropped > 0 {
            let dropped = dropped + splitter.discard() as u64;
            let remark = format!("-- {} dropped: more came than could be read --", counted(dropped, "byte"));
            add(Source { origin: Origin::Handoff, ..source }, remark.as_bytes(), false);
            self.flood_bytes += dropped;
        }
        splitter.feed(bytes, |line, goes_on| add(source, line, goes_on));
        if last {
            splitter.finish(|line, goes_on| add(source, line, goes_on));
            self.splitters.remove(&(key, source.origin));
        }
        self.files.iter_mut().for_each(|files| files.flush(now_ns));
    }

    /// The lines that are there.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// A reader was too slow.
    pub fn note_dropped(&mut self, lines: u64) {
        self.reader_lines += lines;
    }

    /// What is new about the files, for people: that they can not be written, or can be again.
    pub(super) fn news(&mut self) -> Option<String> {
        let now = self.files.as_ref().and_then(Files::trouble);
        if self.told.as_deref().is_some() == now.is_some() {
            return None;
        }
        self.told = now.map(str::to_owned);
        Some(match now {
            Some(trouble) => format!("{trouble}; its output is dropped there until that is possible"),
            None => "its output is written to the file again".to_owned(),
        })
    }

    pub(super) fn status(&self) -> LogStatus {
        let files = self.files.as_ref();
        LogStatus {
            lines: self.ring.next() - self.ring.first(),
            bytes: self.ring.bytes(),
            lines_total: self.ring.next(),
            file: files.map(|files| files.path().display().to_string()),
            trouble: files.and_then(Files::trouble).map(str::to_owned),
            dropped_bytes: self.flood_bytes,
            dropped_from_file: self.file_lines + files.map_or(0, Files::dropped),
            dropped_from_readers: self.reader_lines,
        }
    }
}

fn files(name: &str, budget: &LogBudget) -> Option<Files> {
    let dir = budget.dir.as_ref()?;
    Some(Files::new(dir.join(format!("{name}.log")), budget.file_bytes, budget.files))
}
