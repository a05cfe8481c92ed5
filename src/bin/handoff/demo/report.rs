//! What the demo has shown, for people and for programs.

use super::daemon::Fault;
use super::driver::Performance;
use super::load::{self, stall_ms};
use super::step::{Step, Window};
use super::words;
use crate::text::nanoseconds;
use handoff::Verdict;
use handoff::service::words::counted;
use handoff::supervisor::verdict_name;
use serde_json::{Value, json};

/// Numbers, and what is wrong with them.
#[derive(Debug)]
pub struct Report {
    /// Empty if everything went as it should.
    pub complaints: Vec<String>,
    committed: usize,
    rolled_back: usize,
    requests: u64,
    failed_requests: u64,
    lost_writes: usize,
    closed_connections: u64,
    transferred_connections: u64,
    elapsed_s: f64,
    /// All in nanoseconds.
    stall: Spread,
    rolled_back_stall: Spread,
    quiet_stall: Spread,
    pause: Spread,
    handoff: Spread,
    bad: Vec<Bad>,
}

/// A replacement that did not commit.
#[derive(Debug)]
struct Bad {
    number: u32,
    result: &'static str,
    fault: Option<Fault>,
    reason: String,
}

/// The median and the largest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Spread {
    p50: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        match values[..] {
            [] => Self::default(),
            _ => Self { p50: values[(values.len() - 1) / 2], max: values[values.len() - 1] },
        }
    }

    /// In a unit of so many nanoseconds, with three digits after the point.
    fn json(self, unit_ns: f64) -> Value {
        let round = |ns: f64| (ns / unit_ns * 1e3).round() / 1e3;
        json!({ "p50": round(self.p50), "max": round(self.max) })
    }
}

impl Report {
    pub fn new(performance: &Performance) -> Self {
        let Performance { steps, loads, lost, elapsed } = performance;
        let [once, kept] = loads;
        let of = |verdict| steps.iter().filter(move |step| step.outcome.verdict == verdict);
        let committed = || of(Verdict::Committed);
        let stall = |windows: Vec<Window>| Spread::of(stalls(loads, &windows));
        let mut report = Self {
            complaints: Vec::new(),
            committed: committed().count(),
            rolled_back: of(Verdict::RolledBack).count(),
            requests: once.requests + kept.requests,
            failed_requests: once.failed_requests + kept.failed_requests,
            lost_writes: lost.len(),
            closed_connections: kept.closed_connections,
            transferred_connections: committed().map(|step| step.outcome.transferred_connections).sum(),
            elapsed_s: elapsed.as_secs_f64(),
            stall: stall(committed().map(|step| step.during).collect()),
            rolled_back_stall: stall(of(Verdict::RolledBack).map(|step| step.during).collect()),
            quiet_stall: stall(steps.iter().map(|step| step.before).collect()),
            pause: Spread::of(committed().map(|step| step.outcome.pause_ns as f64)),
            handoff: Spread::of(committed().map(|step| step.outcome.total_ns as f64)),
            bad: steps.iter().filter(|step| step.outcome.verdict != Verdict::Committed).map(Bad::of).collect(),
        };
        report.complain(steps, loads, lost);
        report
    }

    fn complain(&mut self, steps: &[Step], loads: &[load::Report; 2], lost: &[String]) {
        const SHOWN: usize = 5;
        for step in steps.iter().filter(|step| !step.as_wanted()) {
            let (bad, result) = (step.fault.is_some(), verdict_name(step.outcome.verdict).replace('_', " "));
            let kind = if bad { "bad" } else { "good" };
            self.complaints
                .push(format!("replacement {}, a {kind} build, was {result}: {}", step.number, step.outcome.reason));
        }
        if self.failed_requests > 0 {
            let shown: Vec<&str> =
                loads.iter().flat_map(|load| &load.failures).take(SHOWN).map(String::as_str).collect();
            self.complaints.push(format!(
                "{} failed, as: {}",
                counted(self.failed_requests, "request"),
                shown.join("; ")
            ));
        }
        if self.closed_connections > 0 {
            self.complaints
                .push(format!("{} closed that should have moved", counted(self.closed_connections, "connection")));
        }
        if !lost.is_empty() {
            let shown: Vec<&str> = lost.iter().take(SHOWN).map(String::as_str).collect();
            self.complaints.push(format!("{} acknowledged writes are lost, as: {}", lost.len(), shown.join("; ")));
        }
    }

    /// One object, in one line.
    pub fn json(&self) -> String {
        const MILLISECOND: f64 = 1e6;
        const MICROSECOND: f64 = 1e3;
        let bad = |bad: &Bad| json!({ "replacement": bad.number, "fault": bad.fault.map(Fault::name), "result": bad.result, "reason": bad.reason });
        let object = json!({
            "ok": self.complaints.is_empty(),
            "replacements": self.committed + self.rolled_back,
            "committed": self.committed,
            "rolled_back": self.rolled_back,
            "requests": self.requests,
            "failed_requests": self.failed_requests,
            "lost_writes": self.lost_writes,
            "closed_connections": self.closed_connections,
            "transferred_connections": self.transferred_connections,
            "stall_ms": self.stall.json(MILLISECOND),
            "rolled_back_stall_ms": self.rolled_back_stall.json(MILLISECOND),
            "quiet_stall_ms": self.quiet_stall.json(MILLISECOND),
            "pause_us": self.pause.json(MICROSECOND),
            "handoff_us": self.handoff.json(MICROSECOND),
            "not_committed": self.bad.iter().map(bad).collect::<Vec<_>>(),
            "elapsed_s": (self.elapsed_s * 1e3).round() / 1e3,
        });
        object.to_string()
    }

    /// For people, not wider than the terminal.
    pub fn table(&self) -> String {
        let mut lines = vec![String::new()];
        let mut row = |name: &str, text: String| lines.push(format!("  {name:<20}{text}"));
        row("committed", self.committed.to_string());
        row("rolled back", self.rolled_back.to_string());
        for bad in &self.bad {
            row("", format!("#{} {}: {}", bad.number, words::kind(bad.fault), bad.reason));
        }
        row("requests", format!("{} in {:.1} s", words::grouped(self.requests), self.elapsed_s));
        row("failed", self.failed_requests.to_string());
        row("writes lost", self.lost_writes.to_string());
        row(
            "connections moved",
            format!("{}, with what was read of them", words::grouped(self.transferred_connections)),
        );
        row("connections closed", self.closed_connections.to_string());
        lines.push(format!("  {:<20}{:>10}{:>10}", "", "p50", "max"));
        let mut spread = |name: &str, spread: Spread, note: &str| {
            let [p50, max] = [spread.p50, spread.max].map(|ns| nanoseconds(ns as u64));
            lines.push(format!("  {name:<20}{p50:>10}{max:>10}   {note}"));
        };
        spread("pause", self.pause, "nobody accepts");
        spread("handoff", self.handoff, "from the request to \"the new one serves\", its loading included");
        spread("stall", self.stall, "slowest request meanwhile");
        spread("  when rolled back", self.rolled_back_stall, "the one that hangs is given 1 s, and 1 s of slack");
        spread("  without a handoff", self.quiet_stall, "in the time before each");
        let width = words::width();
        lines.iter().map(|line| words::cut(line, width)).collect::<Vec<_>>().join("\n")
    }
}

impl Bad {
    fn of(step: &Step) -> Self {
        Self {
            number: step.number,
            result: verdict_name(step.outcome.verdict),
            fault: step.fault,
            reason: words::one_line(&step.outcome.reason),
        }
    }
}

/// In each window the slowest request of both loads, in nanoseconds.
fn stalls(loads: &[load::Report; 2], windows: &[Window]) -> Vec<f64> {
    let of =
        |load: usize| stall_ms(&loads[load].samples, &windows.iter().map(|window| window[load]).collect::<Vec<_>>());
    of(0).into_iter().zip(of(1)).map(|(once, kept)| once.max(kept) * 1e6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        assert_eq!(Spread::of([]), Spread { p50: 0.0, max: 0.0 });
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { p50: 2.0, max: 3.0 });
        assert_eq!(Spread::of([1500.0, 2_000_000.0]).json(1e3).to_string(), r#"{"max":2000.0,"p50":1.5}"#);
    }
}
