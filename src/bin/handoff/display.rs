//! The phases of a handoff as they come: a line that moves for each on a terminal, plain lines in a pipe, nothing for programs.

use handoff::service::words::counted;
use std::io::{self, Write};
use std::time::Instant;

use console::style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::text;

/// Phases that mean that the handoff is being undone.
const UNDOING: [&str; 3] = ["revoking", "rolling back", "reverting"];

pub struct Progress {
    silent: bool,
    terminal: bool,
    phase: Option<(Phase, ProgressBar)>,
}

/// What the supervisor tells of a phase.
pub struct Phase {
    service: String,
    name: String,
    /// For people; often empty.
    waits_for: String,
    since: Instant,
}

impl Phase {
    pub fn of(params: &Value) -> Self {
        let word = |field: &str| params[field].as_str().unwrap_or_default().to_owned();
        let (name, waits_for) = (word("phase"), word("waits_for"));
        Self { service: word("service"), name, waits_for, since: Instant::now() }
    }

    pub fn text(&self) -> String {
        if self.waits_for.is_empty() { self.name.clone() } else { format!("{}: {}", self.name, self.waits_for) }
    }

    fn elapsed(&self) -> String {
        text::nanoseconds(self.since.elapsed().as_nanos() as u64)
    }
}

impl Progress {
    pub fn new(silent: bool) -> Self {
        Self { silent, terminal: io::IsTerminal::is_terminal(&io::stdout()), phase: None }
    }

    pub fn notice(&mut self, method: &str, params: &Value) {
        match method {
            _ if self.silent => {}
            "phase" => self.enter(params),
            "progress" => self.go_on(params),
            _ => {}
        }
    }

    fn enter(&mut self, params: &Value) {
        self.end();
        let phase = Phase::of(params);
        if phase.name == "idle" {
            return;
        }
        if !self.terminal {
            let _ = writeln!(io::stdout(), "{}: {}", phase.service, phase.text());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        bar.set_style(look("{prefix} {spinner:.cyan} {msg}"));
        bar.set_prefix(phase.service.clone());
        self.phase = Some((phase, bar));
        self.draw();
    }

    fn go_on(&mut self, params: &Value) {
        let (Some((_, bar)), Some(done), Some(total)) =
            (&self.phase, params["done"].as_u64(), params["total"].as_u64())
        else {
            return;
        };
        if bar.length().is_none() && total > 0 {
            bar.set_style(look("{prefix} {spinner:.cyan} {msg} {bar:24.cyan/dim} {pos} of {len} ({percent} %)"));
        }
        bar.set_length(total);
        bar.set_position(done);
        self.draw();
    }

    /// Draws the line of the phase again: its time goes on.
    pub fn draw(&self) {
        if let Some((phase, bar)) = &self.phase {
            bar.set_message(format!("{} {}", phase.text(), phase.elapsed()));
            bar.tick();
        }
    }

    /// The phase is over: its line stays.
    pub fn end(&mut self) {
        let Some((phase, bar)) = self.phase.take() else { return };
        bar.finish_and_clear();
        if self.terminal {
            let undoing = UNDOING.contains(&phase.name.as_str());
            let mark = if undoing { style("↶").yellow() } else { style("✓").green() };
            let time = style(phase.elapsed()).dim();
            let _ = writeln!(io::stdout(), "{} {mark} {} {time}", phase.service, phase.text());
        }
    }
}

/// The templates are those above, and good.
fn look(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// How it ended: a line for success on standard output, for anything else on standard error, and what it took.
pub fn summarize(answer: &Value, code: u8) {
    let (service, outcome) = (answer["service"].as_str().unwrap_or_default(), &answer["outcome"]);
    let mut text = format!("{service}: {}\n", text::told_outcome(outcome));
    let details = [times(outcome), moved(answer)];
    details.iter().flatten().for_each(|line| text.push_str(&format!("    {line}\n")));
    // Nobody may read it any more; the exit code tells.
    let _ = if code == 0 {
        let mark = if console::user_attended() { format!("{} ", style("✓").green()) } else { String::new() };
        io::stdout().write_all((mark + &text).as_bytes())
    } else {
        let attended = console::user_attended_stderr();
        let mark = if attended { format!("{} ", style("✗").for_stderr().red()) } else { String::new() };
        io::stderr().write_all((mark + &text).as_bytes())
    };
}

fn times(outcome: &Value) -> Option<String> {
    let steps = ["warm", "drain", "seal", "ready", "pause", "total"].map(|step| (step, format!("{step}_ns")));
    let steps = steps.iter().filter_map(|(step, field)| {
        let ns = outcome[field].as_u64().filter(|ns| *ns > 0)?;
        Some(format!("{step} {}", text::nanoseconds(ns)))
    });
    let steps: Vec<_> = steps.collect();
    (!steps.is_empty()).then(|| steps.join(", "))
}

/// From which process to which, and what moved along.
fn moved(answer: &Value) -> Option<String> {
    let outcome = &answer["outcome"];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let (from, to) = (answer["from"]["generation"].as_u64()?, number(&outcome["generation"]));
    if from == to {
        return None; // nothing moved in the end
    }
    let who = format!("generation {from} → {to}, process {} → {}", answer["from"]["pid"], outcome["pid"]);
    let connections = match number(&outcome["transferred_connections"]) {
        0 => String::new(),
        many => format!(", {} moved", counted(many, "connection")),
    };
    let state = match number(&outcome["transferred_state_bytes"]) {
        0 => String::new(),
        bytes => format!(", {} of state", text::bytes(bytes)),
    };
    Some(format!("{who}{connections}{state}"))
}
