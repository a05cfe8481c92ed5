//! The picture on a terminal: what goes on, the counters, and the slowest request of each moment with the handoffs
//! marked. Finished replacements scroll away above it.

use super::daemon::Fault;
use super::load::Snapshot;
use super::words::{cut, grouped, kind, width};
use handoff::HandoffOutcome;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// A bar, by the latency that it stands for at most.
const BARS: [(Duration, char); 8] = [
    (Duration::from_millis(1), '▁'),
    (Duration::from_millis(2), '▂'),
    (Duration::from_millis(4), '▃'),
    (Duration::from_millis(8), '▄'),
    (Duration::from_millis(16), '▅'),
    (Duration::from_millis(64), '▆'),
    (Duration::from_millis(256), '▇'),
    (Duration::MAX, '█'),
];
const LEGEND: &str =
    "slowest request of each 50 ms: ▁ 1 ▂ 2 ▃ 4 ▄ 8 ▅ 16 ▆ 64 ▇ 256 ms █ more    ▲ committed  ✗ rolled back";
const COMMITTED: char = '▲';
const ROLLED_BACK: char = '✗';
const CELLS_MAX: usize = 512;
const INDENT: usize = 2;
const CLEAR_TO_THE_END: &str = "\x1b[J";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

pub struct Live {
    replacements: u32,
    what: String,
    began: Option<Instant>,
    snapshot: Snapshot,
    cells: VecDeque<Cell>,
    /// For the next cell.
    mark: Option<char>,
    /// Lines of the picture that is on the screen.
    drawn: usize,
    colour: bool,
}

#[derive(Clone, Copy)]
struct Cell {
    bar: char,
    mark: Option<char>,
}

impl Live {
    pub fn new(replacements: u32) -> Self {
        Self {
            replacements,
            what: "starting".into(),
            began: None,
            snapshot: Snapshot::default(),
            cells: VecDeque::new(),
            mark: None,
            drawn: 0,
            colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

impl Live {
    pub fn begin(&mut self, number: u32, fault: Option<Fault>) {
        self.what = format!("replacement {number} of {} ({})", self.replacements, kind(fault));
        self.began = Some(Instant::now());
    }

    pub fn phase(&mut self, phase: &'static str) {
        if let Some((what, _)) = self.what.split_once(": ") {
            self.what = what.into();
        }
        self.what = format!("{}: {phase}", self.what);
        // A good one is over before the next tick.
        self.draw("");
    }

    pub fn outcome(&mut self, outcome: &HandoffOutcome) {
        self.began = None;
        self.what = format!("generation {} serves, process {}", outcome.generation, outcome.pid);
        self.mark = Some(if outcome.committed() { COMMITTED } else { ROLLED_BACK });
    }

    pub fn tick(&mut self, snapshot: &Snapshot) {
        let slowest = Duration::from_nanos(snapshot.slowest_ns);
        let bar = BARS.iter().find(|(most, _)| slowest <= *most).map_or('█', |(_, bar)| *bar);
        // Nothing has ended: they all wait, or there is no load.
        let bar = if slowest.is_zero() { ' ' } else { bar };
        self.cells.push_back(Cell { bar, mark: self.mark.take() });
        if self.cells.len() > CELLS_MAX {
            self.cells.pop_front();
        }
        self.snapshot = *snapshot;
        self.draw("");
    }

    /// A line that stays, above the picture.
    pub fn step(&mut self, line: &str, good: bool) {
        let line = cut(line, width());
        let line = if good { line } else { self.paint(RED, &line) };
        self.draw(&format!("{line}\n"));
    }

    fn draw(&mut self, above: &str) {
        let width = width();
        let picture = self.picture(width);
        let up = if self.drawn > 0 { format!("\x1b[{}A\r{CLEAR_TO_THE_END}", self.drawn) } else { String::new() };
        self.drawn = picture.len();
        let mut out = io::stdout().lock();
        let _ = out.write_all(format!("{up}{above}{}\n", picture.join("\n")).as_bytes()).and_then(|()| out.flush());
    }

    fn picture(&self, width: usize) -> Vec<String> {
        let Snapshot { requests, failed_requests, closed_connections, .. } = self.snapshot;
        let seconds = self.began.map_or(String::new(), |began| format!("  {:.1} s", began.elapsed().as_secs_f64()));
        let counters = format!(
            "  requests {}   failed {failed_requests}   connections closed {}",
            grouped(requests),
            grouped(closed_connections)
        );
        let shown = self.cells.len().min(width.saturating_sub(INDENT));
        let cells = self.cells.range(self.cells.len() - shown..);
        let bars: String = cells.clone().map(|cell| cell.bar).collect();
        let marks: String = cells.map(|cell| self.mark_text(cell.mark)).collect();
        vec![
            String::new(),
            format!("{:INDENT$}{bars}", ""),
            format!("{:INDENT$}{marks}", ""),
            self.paint(DIM, &cut(&format!("  {LEGEND}"), width)),
            cut(&counters, width),
            cut(&format!("  {}{seconds}", self.what), width),
        ]
    }

    fn mark_text(&self, mark: Option<char>) -> String {
        match mark {
            None => " ".into(),
            Some(COMMITTED) => self.paint(GREEN, &COMMITTED.to_string()),
            Some(other) => self.paint(RED, &other.to_string()),
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("{colour}{text}{PLAIN}") } else { text.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_fits_and_marks_the_handoff() {
        let mut live = Live::new(4);
        live.colour = false;
        for slowest_ns in [0, 500_000, 3_000_000, 2_000_000_000] {
            live.cells.push_back(Cell { bar: ' ', mark: None });
            live.tick(&Snapshot { slowest_ns, requests: 12_345, ..Snapshot::default() });
        }
        live.cells.back_mut().unwrap().mark = Some(COMMITTED);
        for width in [4, 10, 40, 200] {
            let picture = live.picture(width);
            assert!(picture.iter().all(|line| line.chars().count() <= width), "{width}: {picture:?}");
        }
        let picture = live.picture(200);
        assert_eq!(picture[1], "     ▁ ▃ █");
        assert_eq!(picture[2], "         ▲");
        assert!(picture[4].contains("12 345"), "{picture:?}");
    }
}
