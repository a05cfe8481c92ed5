//! The last lines of a unit.

use crate::supervisor::Stream;
use std::collections::VecDeque;

/// The room of a ring with a line in it: most units write little.
const FIRST_BYTES: usize = 256;

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Source {
    /// The process.
    pub pid: i32,
    /// Which process of the service it was; 0 if it never served.
    pub generation: u64,
    /// Where it wrote.
    pub origin: Origin,
}

/// Where a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Origin {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Either of them, by what runs before or after the process.
    Hook,
    /// Nowhere: it is a remark of the supervisor.
    Handoff,
}

impl Origin {
    /// `stdout`, `stderr`, `hook` or `handoff`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Hook => "hook",
            Self::Handoff => "handoff",
        }
    }
}

impl From<Stream> for Origin {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Self::Stdout,
            Stream::Stderr => Self::Stderr,
        }
    }
}

/// A line, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was read: `CLOCK_REALTIME` nanoseconds.
    pub time_ns: u64,
    /// Who wrote it.
    pub source: Source,
    /// It was too long, and the next line of this source is its next part.
    pub goes_on: bool,
    /// Any bytes but a line end.
    pub bytes: Vec<u8>,
}

/// Lines, numbered from 0; the oldest make room for the newest.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Ring {
    lines_max: usize,
    bytes_max: usize,
    #[serde(with = "packed")]
    lines: VecDeque<Header>,
    /// One after the other, each with a byte that stands for its end.
    #[serde(with = "crate::sys::inherit::bytes")]
    bytes: VecDeque<u8>,
    /// Lines that made room.
    gone: u64,
    /// Bytes of these.
    gone_bytes: u64,
}

/// What is known of a line.
#[derive(Debug)]
struct Header {
    time_ns: u64,
    source: Source,
    goes_on: bool,
    /// Where its bytes begin, counted from the first that there ever was.
    begin: u64,
    len: usize,
}

/// What is known of the lines, as bytes: there may be thousands for each unit.
mod packed {
    use super::{Header, Origin, Source};
    use crate::sys::inherit::bytes;
    use serde::{Deserializer, Serializer, de::Error};
    use std::collections::VecDeque;

    /// Numbers in little-endian order.
    const HEADER_BYTES: usize = 8 + 4 + 8 + 1 + 1 + 8 + 8;
    const ORIGINS: [Origin; 4] = [Origin::Stdout, Origin::Stderr, Origin::Hook, Origin::Handoff];

    pub(super) fn serialize<S: Serializer>(lines: &VecDeque<Header>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut packed: Vec<u8> = Vec::with_capacity(lines.len() * HEADER_BYTES);
        for Header { time_ns, source, goes_on, begin, len } in lines {
            packed.extend(time_ns.to_le_bytes());
            packed.extend(source.pid.to_le_bytes());
            packed.extend(source.generation.to_le_bytes());
            packed.push(source.origin as u8);
            packed.push(u8::from(*goes_on));
            packed.extend(begin.to_le_bytes());
            packed.extend((*len as u64).to_le_bytes());
        }
        bytes::serialize(&packed, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VecDeque<Header>, D::Error> {
        let packed: Vec<u8> = bytes::deserialize(deserializer)?;
        let headers = packed.chunks(HEADER_BYTES).map(unpack).collect::<Option<_>>();
        headers.ok_or_else(|| D::Error::custom("the lines of a log make no sense"))
    }

    fn unpack(mut packed: &[u8]) -> Option<Header> {
        let mut number = |len: usize| {
            let (part, rest) = packed.split_at_checked(len)?;
            packed = rest;
            let mut bytes = [0; 8];
            bytes[..len].copy_from_slice(part);
            Some(u64::from_le_bytes(bytes))
        };
        let (time_ns, pid, generation) = (number(8)?, number(4)? as i32, number(8)?);
        let origin = *ORIGINS.get(usize::try_from(number(1)?).ok()?)?;
        let (goes_on, begin, len) = (number(1)? != 0, number(8)?, usize::try_from(number(8)?).ok()?);
        Some(Header { time_ns, source: Source { pid, generation, origin }, goes_on, begin, len })
    }

    #[cfg(test)]
    mod tests {
        use crate::service::log::ring::{Line, Origin, Ring, Source};
        use crate::sys::inherit::{begin_restore, end_restore, save};

        #[test]
        fn a_ring_is_the_same_afterwards() {
            let mut ring = Ring::new(3, 1000);
            for (number, origin) in
                [Origin::Stdout, Origin::Stderr, Origin::Hook, Origin::Handoff].into_iter().enumerate()
            {
                let source = Source { pid: -1 + number as i32, generation: u64::MAX, origin };
                ring.push(7, source, number % 2 == 0, &[0, 255, number as u8]);
            }
            let lines = |ring: &Ring| (0..5).map(|number| ring.line(number)).collect::<Vec<Option<Line>>>();
            let (json, saved) = save(|| serde_json::to_string(&ring).unwrap());
            begin_restore(saved.bytes, true).unwrap();
            let again: Ring = serde_json::from_str(&json).unwrap();
            end_restore();
            assert_eq!((lines(&again), again.first(), again.next()), (lines(&ring), 1, 4));
        }
    }
}

impl Ring {
    /// One that keeps so many lines, and so many bytes, with a byte for the end of each; but always the newest line.
    pub fn new(lines_max: usize, bytes_max: usize) -> Self {
        Self { lines_max, bytes_max, lines: VecDeque::new(), bytes: VecDeque::new(), gone: 0, gone_bytes: 0 }
    }

    /// Another size, from now on.
    pub fn resize(&mut self, lines_max: usize, bytes_max: usize) {
        (self.lines_max, self.bytes_max) = (lines_max, bytes_max);
        self.make_room(0, 0);
        self.bytes.shrink_to(bytes_max);
    }

    /// Adds a line.
    pub fn push(&mut self, time_ns: u64, source: Source, goes_on: bool, line: &[u8]) {
        self.make_room(1, line.len() + 1);
        self.reserve(line.len() + 1);
        let begin = self.gone_bytes + self.bytes.len() as u64;
        self.bytes.extend(line);
        self.bytes.push_back(b'\n');
        self.lines.push_back(Header { time_ns, source, goes_on, begin, len: line.len() });
    }

    fn make_room(&mut self, lines: usize, bytes: usize) {
        while self.lines.len() + lines > self.lines_max || self.bytes.len() + bytes > self.bytes_max {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes.drain(..=oldest.len);
            self.gone += 1;
            self.gone_bytes += oldest.len as u64 + 1;
        }
    }

    /// Doubles, but never beyond what may be in it: a thousand units have a ring each.
    fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let most = self.bytes_max.max(needed);
            let capacity = (2 * self.bytes.capacity()).max(FIRST_BYTES).max(needed).min(most);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
    }

    /// The number of the oldest line that is there.
    pub fn first(&self) -> u64 {
        self.gone
    }

    /// The number of the line that comes next: so many there ever were.
    pub fn next(&self) -> u64 {
        self.gone + self.lines.len() as u64
    }

    /// The bytes of all lines that are there.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The line of this number, if it is there.
    pub fn line(&self, number: u64) -> Option<Line> {
        let header = self.header(number)?;
        let bytes = self.bytes_of(number)?.concat();
        Some(Line { time_ns: header.time_ns, source: header.source, goes_on: header.goes_on, bytes })
    }

    /// The bytes of it alone, which may be in two places.
    pub fn bytes_of(&self, number: u64) -> Option<[&[u8]; 2]> {
        let header = self.header(number)?;
        let begin = (header.begin - self.gone_bytes) as usize;
        let end = begin + header.len;
        let (first, second) = self.bytes.as_slices();
        let turn = first.len();
        Some([&first[begin.min(turn)..end.min(turn)], &second[begin.max(turn) - turn..end.max(turn) - turn]])
    }

    /// When it was read.
    pub fn time_ns(&self, number: u64) -> Option<u64> {
        self.header(number).map(|header| header.time_ns)
    }

    fn header(&self, number: u64) -> Option<&Header> {
        self.lines.get(usize::try_from(number.checked_sub(self.gone)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOURCE: Source = Source { pid: 7, generation: 1, origin: Origin::Stderr };

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// It is always the longest end of all lines that is within both bounds, or the newest line.
        #[test]
        fn its_bounds_hold_and_no_line_goes_without_need(
            (lines_max, bytes_max) in (1..20usize, 1..300usize),
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..60),
        ) {
            let mut ring = Ring::new(lines_max, bytes_max);
            for (count, line) in (1..).zip(&lines) {
                ring.push(count as u64, SOURCE, false, line);
                let size = |number: usize| lines[..count][number..].iter().map(|line| line.len() + 1).sum::<usize>();
                let first = (0..count).find(|first| count - first <= lines_max && size(*first) <= bytes_max);
                let first = first.unwrap_or(count - 1);
                prop_assert_eq!((ring.first(), ring.next(), ring.bytes()), (first as u64, count as u64, size(first)));
                prop_assert!(ring.bytes.capacity() <= bytes_max.max(80));
                prop_assert_eq!(ring.line(first as u64).unwrap().bytes, &lines[first][..]);
                prop_assert_eq!(ring.line(count as u64 - 1).unwrap().bytes, &line[..]);
                prop_assert_eq!(ring.time_ns(count as u64 - 1), Some(count as u64));
                prop_assert!(ring.line(count as u64).is_none() && (first == 0 || ring.line(first as u64 - 1).is_none()));
            }
        }
    }

    #[test]
    fn a_smaller_one_keeps_the_newest() {
        let mut ring = Ring::new(10, 100);
        (0..10u8).for_each(|number| ring.push(0, SOURCE, number == 3, &[number]));
        ring.resize(7, 4);
        assert_eq!((ring.first(), ring.next(), ring.bytes()), (8, 10, 4));
        assert_eq!(ring.line(9).unwrap(), Line { time_ns: 0, source: SOURCE, goes_on: false, bytes: vec![9] });
    }
}
