//! The results as Markdown: a column for each supervisor.

use crate::bed::Kind;
use std::time::Instant;

pub struct Table {
    title: String,
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), rows: Vec::new() }
    }

    /// Measured for one after the other; who is not there is named as missing.
    pub fn row(&mut self, what: &str, mut measure: impl FnMut(Kind) -> String) {
        let begin = Instant::now();
        let cell = |kind: Kind| match kind.missing() {
            Some(program) => format!("**MISSING: {program}**"),
            None => measure(kind),
        };
        let cells = Kind::ALL.into_iter().map(cell).collect();
        eprintln!("{:6.1} s: {what}: {cells:?}", begin.elapsed().as_secs_f64());
        self.rows.push((what.to_owned(), cells));
    }

    /// With how it was taken.
    pub fn print(&self, how: &str) {
        println!("\n### {}\n", self.title);
        println!("| | {} |", Kind::ALL.map(Kind::name).join(" | "));
        println!("|---|---|---|---|---|");
        for (what, cells) in &self.rows {
            println!("| {what} | {} |", cells.join(" | "));
        }
        println!("\n{how}");
    }
}

pub fn median(mut values: Vec<u64>) -> u64 {
    percentile(&mut values, 50)
}

/// Nearest rank.
pub fn percentile(values: &mut [u64], percent: usize) -> u64 {
    values.sort_unstable();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

pub fn ms(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

pub fn multiple(value: u64, floor: u64) -> String {
    format!("× {:.1}", value as f64 / floor as f64)
}
