//! What is seen while the demo runs: a live picture on a terminal, a line for each replacement in a pipe.

use super::DemoArgs;
use super::daemon::Fault;
use super::driver::Step;
use super::live::Live;
use super::load::Snapshot;
use crate::text::nanoseconds;
use handoff::HandoffOutcome;
use handoff::supervisor::verdict_name;
use handoff::sys::terminal;
use std::io::{self, IsTerminal, Write};

/// The way to show it.
pub enum View {
    /// With `--json`.
    Silent,
    Lines,
    Live(Box<Live>),
}

impl View {
    pub fn new(args: &DemoArgs) -> Self {
        if args.json {
            return Self::Silent;
        }
        print(&format!("A key-value store under {} clients is replaced {} times.", args.clients, args.replacements));
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if io::stdout().is_terminal() && !dumb {
            Self::Live(Box::new(Live::new(args.replacements)))
        } else {
            Self::Lines
        }
    }

    /// A replacement was asked for.
    pub fn begin(&mut self, number: u32, fault: Option<Fault>) {
        if let Self::Live(live) = self {
            live.begin(number, fault);
        }
    }

    pub fn phase(&mut self, phase: &'static str) {
        if let Self::Live(live) = self {
            live.phase(phase);
        }
    }

    pub fn outcome(&mut self, outcome: &HandoffOutcome) {
        if let Self::Live(live) = self {
            live.outcome(outcome);
        }
    }

    /// Again some time is over.
    pub fn tick(&mut self, snapshot: &Snapshot) {
        if let Self::Live(live) = self {
            live.tick(snapshot);
        }
    }

    /// A replacement is over.
    pub fn step(&mut self, step: &Step) {
        match self {
            Self::Silent => {}
            Self::Lines => print(&line(step)),
            Self::Live(live) => live.step(&line(step), step.as_wanted()),
        }
    }
}

fn line(step: &Step) -> String {
    let outcome = &step.outcome;
    let result = verdict_name(outcome.verdict).replace('_', " ");
    let (total, stall) = (nanoseconds(outcome.total_ns), nanoseconds(step.slowest_ns));
    let line = format!("{:>4}  {:<14}{result:<12}{total:>9}  stall {stall:>9}", step.number, kind(step.fault));
    if outcome.committed() {
        format!("{line}  pause {:>9}  pid {}", nanoseconds(outcome.pause_ns), outcome.pid)
    } else {
        format!("{line}  {}", one_line(&outcome.reason))
    }
}

/// Which build it was.
pub fn kind(fault: Option<Fault>) -> &'static str {
    match fault {
        None => "good",
        Some(Fault::Crash) => "crashes",
        Some(Fault::Hang) => "hangs",
        Some(Fault::LostWrite) => "loses a write",
    }
}

/// Writes a line to stdout. A reader that has gone is no reason to end in the middle.
pub fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
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
