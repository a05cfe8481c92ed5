//! What processes write to stdout and stderr, in files that the supervisor follows.

mod record;
mod spool;
mod watch;

pub use watch::OutputWatch;
#[cfg(feature = "program")]
pub(crate) use watch::anew as output_watch_anew;

use super::Event;
use super::engine::Engine;
use super::leftovers::is_id;
use super::process::{Process, Token};
use super::spec::SpawnSpec;
use crate::error::{Error, Result};
use crate::limits::{EVENTS_MAX, OUTPUT_BACKLOG_BYTES_MAX, OUTPUT_LAST_READS_MAX, REASON_BYTES_MAX, REASON_LINES_MAX};
use crate::sys::fd::file_context;
use crate::sys::listing::Listing;
use record::{Kept, Record};
use spool::{Portion, Spool};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};

/// Where a process wrote something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// `stdout` or `stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Nobody but the program asks for output ([`SpawnSpec::capture`]): a library without it has no code for it.
const CAPTURES: bool = cfg!(feature = "program");

/// The record of how far it was read, beside the files.
const RECORD: &str = ".read";

/// The files of one process.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Output {
    /// The path of its files, without what tells them apart.
    base: PathBuf,
    record: Record,
    spools: Vec<Spool>,
    /// The last bytes that were read.
    #[serde(with = "crate::sys::inherit::bytes")]
    tail: Vec<u8>,
}

/// What the process gets; none: what S itself has.
#[derive(Debug, Default)]
pub(super) struct Sinks {
    pub(super) stdout: Option<File>,
    pub(super) stderr: Option<File>,
}

impl Output {
    pub(super) fn create(
        base: PathBuf,
        stdout: bool,
        owner: Option<u32>,
        watch: &OutputWatch,
    ) -> Result<(Self, Sinks)> {
        let failed = |error: io::Error| {
            let what = format_args!("cannot create {}", base.display());
            Error::system("no file for the output of the process")(file_context(error, what))
        };
        let record = Record::create(&with(&base, RECORD)).map_err(failed)?;
        let mut made = Self { base: base.clone(), record, spools: Vec::new(), tail: Vec::new() };
        match made.create_spools(stdout, owner, watch) {
            Ok(sinks) => Ok((made, sinks)),
            Err(error) => {
                made.remove(Some(watch));
                Err(failed(error))
            }
        }
    }

    fn create_spools(&mut self, stdout: bool, owner: Option<u32>, watch: &OutputWatch) -> io::Result<Sinks> {
        let mut sinks = Sinks::default();
        for stream in Stream::ALL.into_iter().filter(|stream| stdout || *stream == Stream::Stderr) {
            let (spool, sink) = Spool::create(stream, &path(&self.base, stream))?;
            self.spools.push(spool);
            // Or its user could not open /dev/stdout.
            owner.map_or(Ok(()), |owner| fchown(&sink, Some(owner), None))?;
            match stream {
                Stream::Stdout => sinks.stdout = Some(sink),
                Stream::Stderr => sinks.stderr = Some(sink),
            }
        }
        self.watch(watch)?;
        Ok(sinks)
    }

    /// The files of a process that another supervisor has started, from where that one was.
    fn open(base: PathBuf) -> io::Result<Self> {
        let record = Record::open(&with(&base, RECORD))?;
        let mut spools = Vec::new();
        for (stream, from) in Stream::ALL.into_iter().zip(record.kept.offsets) {
            match Spool::open(stream, &path(&base, stream), from) {
                Ok(spool) => spools.push(spool),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { base, record, spools, tail: Vec::new() })
    }

    /// It was read from what another program of this process has left.
    #[cfg(feature = "program")]
    pub(super) fn watch_again(&mut self, watch: &OutputWatch) -> nix::Result<()> {
        for spool in &mut self.spools {
            spool.watch = Some(watch.add(&spool.link())?);
            spool.more = true; // what came meanwhile, nobody has told of
        }
        Ok(())
    }

    fn watch(&mut self, watch: &OutputWatch) -> io::Result<()> {
        for spool in &mut self.spools {
            spool.watch = Some(watch.add(&spool.path)?);
        }
        Ok(())
    }

    /// Something can be read.
    fn waits(&self, watch: &OutputWatch) -> bool {
        self.spools.iter().any(|spool| spool.more || spool.watch.is_some_and(|own| watch.is_written(own)))
    }

    /// Reads a part of each file that has one. Says whether there was any.
    fn read(&mut self, watch: Option<&OutputWatch>, mut take: impl FnMut(Stream, Portion)) -> bool {
        let mut found = false;
        for spool in &mut self.spools {
            let written = watch.zip(spool.watch).is_none_or(|(watch, own)| watch.take(own));
            if !written && !spool.more {
                continue;
            }
            let portion = spool.read();
            if portion.is_empty() {
                continue;
            }
            found = true;
            let start = portion.bytes.len().saturating_sub(REASON_BYTES_MAX);
            self.tail.extend_from_slice(&portion.bytes[start..]);
            take(spool.stream, portion);
        }
        let excess = self.tail.len().saturating_sub(REASON_BYTES_MAX);
        self.tail.drain(..excess);
        found
    }

    /// What was read is dealt with, but for lines that have no end yet.
    pub(super) fn keep(&mut self, pid: i32, generation: u64) {
        let mut offsets = self.record.kept.offsets;
        for spool in &self.spools {
            offsets[spool.stream as usize] = spool.line_start;
        }
        self.record.keep(Kept { pid, generation, offsets });
    }

    /// The last lines, for the reason of an outcome; None if nothing was written.
    pub(super) fn last_lines(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.tail);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let lines = &lines[lines.len().saturating_sub(REASON_LINES_MAX)..];
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// The process is gone and everything was read.
    pub(super) fn remove(self, watch: Option<&OutputWatch>) {
        if !CAPTURES {
            return;
        }
        for spool in &self.spools {
            if let (Some(watch), Some(own)) = (watch, spool.watch) {
                watch.remove(own);
            }
            let _ = fs::remove_file(&spool.path);
        }
        let _ = fs::remove_file(with(&self.base, RECORD));
    }
}

fn with(base: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(base);
    path.push(suffix);
    path.into()
}

fn path(base: &Path, stream: Stream) -> PathBuf {
    with(base, &format!(".{}", stream.name()))
}

fn event(process: &Process, stream: Stream, portion: Portion, last: bool) -> Event {
    let Portion { bytes, dropped } = portion;
    let Process { key, pid, generation, .. } = *process;
    Event::Output { key, pid, generation, stream, bytes, dropped, last }
}

impl Engine {
    /// The files of a process that is to be started as this user, if that is another one.
    pub(super) fn create_output(
        &mut self,
        spec: &SpawnSpec,
        id: u64,
        owner: Option<u32>,
    ) -> Result<(Option<Output>, Sinks)> {
        let Some(capture) = spec.capture() else { return Ok((None, Sinks::default())) };
        let base = capture.dir.join(format!("{}.{id}", self.service));
        let (output, sinks) = Output::create(base, capture.stdout, owner, self.output_watch()?)?;
        Ok((Some(output), sinks))
    }

    /// Made for the first process whose output is captured, unless the caller has given one.
    fn output_watch(&mut self) -> Result<&OutputWatch> {
        let watch = match self.output_watch.take() {
            Some(watch) => watch,
            None => {
                let watch = OutputWatch::new()?;
                let added = self.epoll.add(&watch, Token::Output.event());
                added.map_err(|errno| Error::system("cannot watch the output of processes")(errno.into()))?;
                watch
            }
        };
        Ok(self.output_watch.insert(watch))
    }

    /// Something is to be read, and there is room for it.
    pub(super) fn output_waits(&self) -> bool {
        let Some(watch) = self.output_watch.as_ref().filter(|_| CAPTURES) else { return false };
        let waits = |process: &Process| process.output.as_ref().is_some_and(|output| output.waits(watch));
        self.processes.iter().any(waits) && self.has_room_for_output()
    }

    /// A caller that fetches no events must not make us keep everything.
    fn has_room_for_output(&self) -> bool {
        let bytes = |event: &Event| if let Event::Output { bytes, .. } = event { bytes.len() } else { 0 };
        let waiting: usize = self.events.iter().map(bytes).sum();
        self.events.len() < EVENTS_MAX / 2 && (waiting as u64) < OUTPUT_BACKLOG_BYTES_MAX
    }

    pub(super) fn read_output(&mut self) {
        let mut news = Vec::new();
        for process in self.processes.iter_mut() {
            let Some(mut output) = process.output.take() else { continue };
            output
                .read(self.output_watch.as_ref(), |stream, portion| news.push(event(process, stream, portion, false)));
            process.output = Some(output);
        }
        news.into_iter().for_each(|event| self.push(event));
    }

    /// The caller has dealt with all events: a supervisor after this one need not read again what was in them.
    pub(super) fn keep_output(&mut self) {
        if !CAPTURES {
            return;
        }
        for process in self.processes.iter_mut() {
            if let Some(output) = &mut process.output {
                output.keep(process.pid, process.generation);
            }
        }
    }

    pub(super) fn read_last_output(&mut self, process: &mut Process) {
        let Some(mut output) = process.output.take().filter(|_| CAPTURES) else { return };
        // A child that it leaves behind may write for ever.
        for _ in 0..OUTPUT_LAST_READS_MAX {
            if !output.read(None, |stream, portion| self.push(event(process, stream, portion, false))) {
                break;
            }
        }
        process.output = Some(output);
    }

    /// The process is gone.
    pub(super) fn remove_output(&mut self, process: &mut Process) {
        self.read_last_output(process);
        let Some(output) = process.output.take().filter(|_| CAPTURES) else { return };
        for spool in &output.spools {
            self.push(event(process, spool.stream, Portion::default(), true));
        }
        output.remove(self.output_watch.as_ref());
    }

    // ---- what another supervisor has left

    /// The files that a process of another supervisor writes to.
    pub(super) fn output_of(&mut self, pid: i32, spec: &SpawnSpec) -> Option<Output> {
        let dir = &spec.capture()?.dir;
        let (known, start) = (self.listing(dir), self.file_start());
        let found = self.output_in(&known, pid);
        // It may have come since the listing was made.
        let mut output = found.or_else(|| self.output_in(&Listing::beginning_with(dir, start.as_bytes()), pid))?;
        output.watch(self.output_watch().ok()?).ok()?;
        Some(output)
    }

    fn output_in(&self, listing: &Listing, pid: i32) -> Option<Output> {
        let bases = self.bases(listing).into_iter();
        let mut outputs: Vec<Output> = bases.filter_map(|base| Output::open(base).ok()).collect();
        let by_record = outputs.iter().position(|output| output.record.kept.pid == pid);
        // That supervisor may have been killed before it could write down whose they are.
        let by_file = || {
            let own: Vec<_> =
                [1, 2].iter().filter_map(|fd| fs::metadata(format!("/proc/{pid}/fd/{fd}")).ok()).collect();
            outputs.iter().position(|output| output.spools.iter().any(|spool| own.iter().any(|own| spool.is(own))))
        };
        by_record.or_else(by_file).map(|at| outputs.swap_remove(at))
    }

    /// Reads, and removes, the files of processes that nobody has any more.
    pub(super) fn sweep_output(&mut self, dir: &Path) {
        let kept: Vec<PathBuf> =
            self.processes.iter().filter_map(|process| Some(process.output.as_ref()?.base.clone())).collect();
        for base in self.bases(&self.listing(dir)).into_iter().filter(|base| !kept.contains(base)) {
            if let Ok(output) = Output::open(base.clone()) {
                self.tell_leftover(output);
            }
            let suffixes = Stream::ALL.map(|stream| path(&base, stream));
            suffixes.iter().chain([&with(&base, RECORD)]).for_each(|path| drop(fs::remove_file(path)));
        }
    }

    /// The last words of a process that died while nobody supervised it.
    fn tell_leftover(&mut self, mut output: Output) {
        let (key, Kept { pid, generation, .. }) = (self.next_key, output.record.kept);
        self.next_key += 1;
        let of = |stream, Portion { bytes, dropped }: Portion, last| Event::Output {
            key,
            pid,
            generation,
            stream,
            bytes,
            dropped,
            last,
        };
        for _ in 0..OUTPUT_LAST_READS_MAX {
            if !output.read(None, |stream, portion| self.push(of(stream, portion, false))) {
                break;
            }
        }
        for spool in &output.spools {
            self.push(of(spool.stream, Portion::default(), true));
        }
    }

    /// The paths of all such files of this service, each once.
    fn bases(&self, listing: &Listing) -> Vec<PathBuf> {
        let start = self.file_start();
        let is_one = |rest: &[u8]| {
            let id = [RECORD, ".stdout", ".stderr"].iter().find_map(|suffix| rest.strip_suffix(suffix.as_bytes()));
            id.is_some_and(is_id)
        };
        let files = listing.paths(start.as_bytes()).filter(|(rest, _)| is_one(rest));
        let mut bases: Vec<PathBuf> = files.map(|(_, path)| path.with_extension("")).collect();
        bases.dedup(); // they are in order
        bases
    }
}
