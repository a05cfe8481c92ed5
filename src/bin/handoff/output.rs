//! Standard error, without ever waiting for its reader.

use handoff::service::words::counted;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use handoff::limits::{EVENTS_MAX, OUTPUT_BYTES_MAX};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::text::now_ms;

/// A pipe that polls as writable takes this much at once (pipe(7)); so a write never blocks.
const WRITE_BYTES_MAX: usize = 4096;

/// What happened, as it is told.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct News {
    /// Milliseconds since 1970, UTC.
    pub time_ms: u64,
    pub service: String,
    /// With `event`, `service` and `text`.
    pub object: Map<String, Value>,
}

/// What the daemons and we ourselves say. What nobody reads is dropped, and counted.
#[derive(Clone, Debug)]
pub struct Output {
    shared: Arc<Mutex<Pending>>,
    json: bool,
}

#[derive(Debug)]
struct Pending {
    bytes: VecDeque<u8>,
    dropped: u64,
    at_line_start: bool,
    /// What [`Output::news`] has not taken yet.
    news: VecDeque<News>,
}

/// What waits in it.
#[derive(Serialize, Deserialize)]
struct Carried {
    json: bool,
    #[serde(with = "handoff::sys::inherit::bytes")]
    bytes: VecDeque<u8>,
    dropped: u64,
    at_line_start: bool,
    news: VecDeque<News>,
}

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Pending { bytes, dropped, at_line_start, news } = &*self.lock();
        let (bytes, news, dropped, at_line_start) = (bytes.clone(), news.clone(), *dropped, *at_line_start);
        Carried { json: self.json, bytes, dropped, at_line_start, news }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Carried { json, bytes, dropped, at_line_start, news } = Carried::deserialize(deserializer)?;
        Ok(Self { shared: Arc::new(Mutex::new(Pending { bytes, dropped, at_line_start, news })), json })
    }
}

impl Output {
    /// With `json`, [`Self::say`] writes JSON lines.
    pub fn new(json: bool) -> Self {
        let pending = Pending { bytes: VecDeque::new(), dropped: 0, at_line_start: true, news: VecDeque::new() };
        Self { shared: Arc::new(Mutex::new(pending)), json }
    }

    /// Copies bytes as they are.
    pub fn copy(&self, bytes: &[u8]) {
        let mut pending = self.lock();
        // In parts: what does not fit must not take along what does.
        for part in bytes.chunks(WRITE_BYTES_MAX) {
            pending.push(&[part]);
            pending.flush();
        }
    }

    /// An event of ours, on a line of its own.
    pub fn say(&self, event: &str, service: &str, text: &str, details: Value) {
        let object = self.note(event, service, text, details);
        let line =
            if self.json { format!("{}\n", Value::Object(object)) } else { format!("handoff: {service}: {text}\n") };
        self.line(line.as_bytes());
    }

    /// Lines that a service has written, in parts.
    pub fn lines_of<'a>(&self, service: &str, lines: impl Iterator<Item = [&'a [u8]; 2]>) {
        let mut pending = self.lock();
        if !pending.at_line_start {
            pending.push(&[b"\n"]);
        }
        let mut unflushed = 0;
        for [begin, end] in lines {
            unflushed += pending.push(&[service.as_bytes(), b" | ", begin, end, b"\n"]);
            // Not for each line.
            if unflushed >= OUTPUT_BYTES_MAX / 4 {
                pending.flush();
                unflushed = 0;
            }
        }
        pending.flush();
    }

    /// An event of ours that is only for those who follow events.
    pub fn note(&self, event: &str, service: &str, text: &str, details: Value) -> Map<String, Value> {
        let mut object = Map::new();
        object.extend([("event".to_owned(), json!(event)), ("service".to_owned(), json!(service))]);
        if let Value::Object(details) = details {
            object.extend(details);
        }
        object.insert("text".to_owned(), json!(text));
        let mut pending = self.lock();
        if pending.news.len() < EVENTS_MAX {
            let news = News { time_ms: now_ms(), service: service.to_owned(), object: object.clone() };
            pending.news.push_back(news);
        }
        object
    }

    /// What happened since the last call.
    pub fn news(&self) -> VecDeque<News> {
        std::mem::take(&mut self.lock().news)
    }

    fn line(&self, line: &[u8]) {
        let mut pending = self.lock();
        if !pending.at_line_start {
            pending.push(&[b"\n"]);
        }
        pending.push(&[line]);
        pending.flush();
    }

    /// Something waits for a reader.
    pub fn is_waiting(&self) -> bool {
        !self.lock().bytes.is_empty()
    }

    /// Writes what can be written now.
    pub fn flush(&self) {
        self.lock().flush();
    }

    /// Waits for the reader, but not for long: the last words.
    pub fn finish(&self, patience: Duration) {
        let end = Instant::now() + patience;
        while self.is_waiting() && Instant::now() < end {
            if ready(50u16.into()) {
                self.flush();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // Standard error lives as long as the program.
        STDERR.as_fd()
    }
}

static STDERR: std::sync::LazyLock<io::Stderr> = std::sync::LazyLock::new(io::stderr);

impl Pending {
    /// All of these or nothing; how much it is.
    fn push(&mut self, parts: &[&[u8]]) -> usize {
        let len = parts.iter().map(|part| part.len()).sum();
        let room = OUTPUT_BYTES_MAX.saturating_sub(self.bytes.len());
        if self.dropped > 0 && room > OUTPUT_BYTES_MAX / 2 {
            let note = format!("\nhandoff: {} dropped: nobody read standard error\n", counted(self.dropped, "byte"));
            self.bytes.extend(note.as_bytes());
            self.dropped = 0;
        }
        if self.dropped > 0 || room < len {
            self.dropped += len as u64;
            return len;
        }
        parts.iter().for_each(|part| self.bytes.extend(*part));
        if len > 0 {
            self.at_line_start = self.bytes.back() == Some(&b'\n');
        }
        len
    }

    fn flush(&mut self) {
        while !self.bytes.is_empty() && ready(PollTimeout::ZERO) {
            let chunk = self.bytes.as_slices().0;
            let chunk = &chunk[..chunk.len().min(WRITE_BYTES_MAX)];
            match nix::unistd::write(&*STDERR, chunk) {
                Ok(written) => drop(self.bytes.drain(..written)),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return,
                // Nobody will ever read it.
                Err(_) => self.bytes.clear(),
            }
        }
    }
}

/// Whether a write would not wait, be it because it fails.
fn ready(timeout: PollTimeout) -> bool {
    let mut fds = [PollFd::new(STDERR.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, timeout).is_ok_and(|count| count > 0)
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.clone())
    }
}

/// A message of the library's log.
pub struct Line(Output);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.line(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
