//! What is seen while the demo runs: a live picture on a terminal, a line for each replacement in a pipe.

use super::DemoArgs;
use super::daemon::Fault;
use super::live::Live;
use super::load::Snapshot;
use super::step::Step;
use super::words::{kind, one_line};
use crate::text::{nanoseconds, print};
use handoff::HandoffOutcome;
use handoff::service::words::counted;
use handoff::supervisor::verdict_name;
use std::io::{self, IsTerminal};

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
        print(&format!(
            "A key-value store under {} is replaced {}.",
            counted(args.clients as u64, "client"),
            counted(args.replacements.into(), "time")
        ));
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
