//! Lines of bytes that come in any parts.

use crate::limits::LINE_BYTES_MAX;
use std::io::BufRead;

/// What came last, and has no end yet.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Splitter {
    #[serde(with = "crate::sys::inherit::bytes")]
    partial: Vec<u8>,
}

impl Splitter {
    /// Gives each line that has an end now to `take`, without that end. A line of more than [`LINE_BYTES_MAX`] comes in parts of
    /// that size; with all but the last it is told that the line goes on.
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.partial.len();
            // One byte more: an end that is just behind what fits.
            let near = &bytes[..bytes.len().min(room + 1)];
            let (len, skipped, goes_on) = match line_end(near) {
                Some(end) => (end, 1, false),
                None if near.len() > room => (room, 0, true),
                None => return self.partial.extend_from_slice(near),
            };
            let (line, rest) = bytes.split_at(len);
            if self.partial.is_empty() {
                take(line, goes_on);
            } else {
                self.partial.extend_from_slice(line);
                take(&self.partial, goes_on);
                self.partial.clear();
            }
            bytes = &rest[skipped..];
        }
    }

    /// What follows does not belong to what has no end yet: forgets that, and says how much it was.
    pub fn discard(&mut self) -> usize {
        let len = self.partial.len();
        self.partial.clear();
        len
    }

    /// No more comes: what has no end is a line, too.
    pub fn finish(&mut self, take: impl FnOnce(&[u8], bool)) {
        if !self.partial.is_empty() {
            take(&self.partial, false);
            self.partial.clear();
        }
    }
}

/// By the standard library's memchr, which has no other name: a flood is searched many times faster than byte by byte.
fn line_end(mut bytes: &[u8]) -> Option<usize> {
    let all = bytes;
    let len = bytes.skip_until(b'\n').unwrap_or_default();
    (len > 0 && all[len - 1] == b'\n').then(|| len - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Lines = Vec<(Vec<u8>, bool)>;

    fn lines(parts: &[&[u8]]) -> Lines {
        let (mut splitter, mut lines) = (Splitter::default(), Lines::new());
        for part in parts {
            splitter.feed(part, |line, goes_on| lines.push((line.to_vec(), goes_on)));
        }
        splitter.finish(|line, goes_on| lines.push((line.to_vec(), goes_on)));
        lines
    }

    /// What must come of it, said as simply as possible.
    fn expected(text: &[u8]) -> Lines {
        let mut all: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        all.pop_if(|last| last.is_empty());
        let parts = |line: &&[u8]| {
            let count = line.len().div_ceil(LINE_BYTES_MAX).max(1);
            let part = |at: usize| &line[at * LINE_BYTES_MAX..line.len().min((at + 1) * LINE_BYTES_MAX)];
            (0..count).map(|at| (part(at).to_vec(), at + 1 < count)).collect::<Lines>()
        };
        all.iter().flat_map(parts).collect()
    }

    /// Bytes with ends here and there, among them lines just below and above the limit.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let lengths = prop_oneof![
            4 => 0..200usize,
            1 => LINE_BYTES_MAX - 2..LINE_BYTES_MAX + 3,
            1 => 2 * LINE_BYTES_MAX - 1..2 * LINE_BYTES_MAX + 2
        ];
        let line = (lengths, any::<u8>()).prop_map(|(len, byte)| [vec![byte; len], b"\n".to_vec()].concat());
        (prop::collection::vec(line, 0..8), any::<bool>()).prop_map(|(lines, ended)| {
            let mut text = lines.concat();
            text.truncate(text.len().saturating_sub(usize::from(!ended)));
            text
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_split_of_the_same_bytes_gives_the_same_lines(text in text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(lines(&parts), expected(&text));
        }
    }

    #[test]
    fn byte_by_byte() {
        let text = [&b"one\n\ntwo\0\xff\n"[..], &vec![b'x'; 2 * LINE_BYTES_MAX], b"\nend"].concat();
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(lines(&bytes), expected(&text));
        assert_eq!(expected(b"\n\n"), [(vec![], false), (vec![], false)]);
        assert_eq!(expected(&vec![b'x'; LINE_BYTES_MAX + 1])[1], (vec![b'x'], false));
    }
}
