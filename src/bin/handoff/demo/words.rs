//! Texts of the demo, for a terminal and for a pipe.

use super::daemon::Fault;
use handoff::sys::terminal;
use std::io;

/// Which build it was.
pub fn kind(fault: Option<Fault>) -> &'static str {
    match fault {
        None => "good",
        Some(Fault::Crash) => "crashes",
        Some(Fault::Hang) => "hangs",
        Some(Fault::LostWrite) => "loses a write",
    }
}

/// A text of several lines in one.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `1234567` as `1 234 567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// At most so many characters.
pub fn cut(line: &str, width: usize) -> String {
    let line = line.trim_end();
    if line.chars().count() <= width {
        return line.into();
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Columns of the terminal; without one there is no limit.
pub fn width() -> usize {
    terminal::width(io::stdout()).map_or(usize::MAX, |columns| columns.unwrap_or(80).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(["0", "999", "1 000", "12 345 678"], [0, 999, 1000, 12_345_678].map(grouped)[..]);
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(one_line(" a\n  b\n"), "a b");
    }
}
