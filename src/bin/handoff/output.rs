//! Standard error, without ever waiting for its reader.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use handoff::limits::OUTPUT_BYTES_MAX;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Map, Value, json};
use tracing_subscriber::fmt::MakeWriter;

/// A pipe that polls as writable takes this much at once (pipe(7)); so a write never blocks.
const WRITE_BYTES_MAX: usize = 4096;

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
}

impl Output {
    /// With `json`, [`Self::say`] writes JSON lines.
    pub fn new(json: bool) -> Self {
        let pending = Pending { bytes: VecDeque::new(), dropped: 0, at_line_start: true };
        Self { shared: Arc::new(Mutex::new(pending)), json }
    }

    /// Copies bytes as they are.
    pub fn copy(&self, bytes: &[u8]) {
        let mut pending = self.lock();
        // In parts: what does not fit must not take along what does.
        for part in bytes.chunks(WRITE_BYTES_MAX) {
            pending.push(part);
            pending.flush();
        }
    }

    /// An event of ours, on a line of its own.
    pub fn say(&self, event: &str, service: &str, text: &str, details: Value) {
        let line = if self.json {
            let mut object = Map::new();
            object.extend([("event".to_owned(), json!(event)), ("service".to_owned(), json!(service))]);
            if let Value::Object(details) = details {
                object.extend(details);
            }
            object.insert("text".to_owned(), json!(text));
            format!("{}\n", Value::Object(object))
        } else {
            format!("handoff: {service}: {text}\n")
        };
        self.line(line.as_bytes());
    }

    fn line(&self, line: &[u8]) {
        let mut pending = self.lock();
        if !pending.at_line_start {
            pending.push(b"\n");
        }
        pending.push(line);
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
    fn push(&mut self, bytes: &[u8]) {
        let room = OUTPUT_BYTES_MAX.saturating_sub(self.bytes.len());
        if self.dropped > 0 && room > OUTPUT_BYTES_MAX / 2 {
            let note = format!("\nhandoff: {} bytes were dropped: nobody read standard error\n", self.dropped);
            self.bytes.extend(note.as_bytes());
            self.dropped = 0;
        }
        if self.dropped > 0 || room < bytes.len() {
            self.dropped += bytes.len() as u64;
            return;
        }
        self.bytes.extend(bytes);
        self.at_line_start = bytes.last().map_or(self.at_line_start, |byte| *byte == b'\n');
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
