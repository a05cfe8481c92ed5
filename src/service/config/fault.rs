//! What is wrong in a configuration, and where.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Characters of a text from a file that are shown at most.
const SHOWN_CHARS_MAX: usize = 60;

/// What may be misspelt is compared with all that it may mean for so many faults at most.
pub(super) const HINTS_MAX: usize = 20;

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// Where in it; none: the file as a whole.
    pub position: Option<Position>,
}

/// Line and column, both from 1. A column is a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.file.to_string_lossy()))?;
        match self.position {
            Some(position) => write!(f, ":{}:{}", position.line, position.column),
            None => Ok(()),
        }
    }
}

/// One thing that is wrong. In the order of files and lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// The unit or target that can not be used because of it; none: what is there belongs to none.
    pub unit: Option<String>,
    /// The key, with a dot before the last part if it is in a table of its own: `health.interval`.
    pub key: Option<String>,
    /// What is wrong; what to do.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        let parts = [&self.unit, &self.key].into_iter().flatten().map(|part| one_line(&shown(part)));
        let whose = parts.collect::<Vec<_>>().join(", ");
        if !whose.is_empty() {
            write!(f, "{whose}: ")?;
        }
        f.write_str(&one_line(&self.text))
    }
}

/// Without characters that a terminal acts on, or that break a line.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// The beginning of a text that somebody wrote.
pub(super) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut beginning: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    if chars.next().is_some() {
        beginning.push('…');
    }
    beginning
}

/// Where the lines of a text begin.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// The place of this byte, which is the end of the text at most.
    pub(super) fn position(&self, at: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts[line - 1];
        let before = self.text.get(start..at).unwrap_or_default();
        Position { line, column: before.chars().count() + 1 }
    }
}

/// The one of these that is nearly what was written.
pub(super) fn hint<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of a short word may be wrong: else it is another word.
    let length = written.chars().count();
    let allowed = (length / 3).clamp(1, 3);
    let near = known
        .into_iter()
        .filter(|known| known.chars().count().abs_diff(length) <= allowed)
        .map(|known| (distance(written, known), known));
    near.filter(|(distance, _)| *distance <= allowed).min().map(|(_, known)| known)
}

/// How many letters are changed, added, left out or exchanged with their neighbour (the optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = [vec![0; b.len() + 1], (0..=b.len()).collect::<Vec<_>>(), vec![0; b.len() + 1]];
    for i in 1..=a.len() {
        rows[2][0] = i;
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[1][j - 1] + same).min(rows[1][j] + 1).min(rows[2][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[0][j - 2] + 1);
            }
            rows[2][j] = least;
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found() {
        let known = ["exec", "env", "env_file", "requires", "restart"];
        for (written, meant) in
            [("exce", Some("exec")), ("require", Some("requires")), ("env-file", Some("env_file")), ("x", None)]
        {
            assert_eq!(hint(written, known), meant, "{written}");
        }
        assert_eq!(hint("conflicts", known), None);
    }

    #[test]
    fn positions_count_characters() {
        let lines = Lines::of("a\n\u{e4}\u{f6}x\n");
        let at = |at| {
            let position = lines.position(at);
            (position.line, position.column)
        };
        assert_eq!([at(0), at(1), at(2), at(6), at(8)], [(1, 1), (1, 2), (2, 1), (2, 3), (3, 1)]);
    }

    #[test]
    fn nothing_breaks_a_line() {
        let place = Place { file: Path::new("a\nb").into(), position: Some(Position { line: 1, column: 2 }) };
        let fault = Fault { place, unit: Some("x\u{1b}[m".into()), key: None, text: "is \r bad; mend it".into() };
        assert_eq!(fault.to_string(), "a\\nb:1:2: x\\u{1b}[m: is \\r bad; mend it");
    }
}
