//! `handoff upgrade`: asks for a new process, shows the way, and says how it ended.

use std::io::{self, IsTerminal, Write};
use std::path::absolute;
use std::time::{Duration, Instant};

use handoff::limits::HANDOFF_DEADLINE;
use handoff::service::Upgrade;
use serde_json::Value;

use crate::args::{RollbackArgs, UpgradeArgs};
use crate::control::client::{Client, Message};
use crate::control::{Request, RollbackParams, UpgradeParams};
use crate::exit::{Failure, TIMED_OUT, USAGE, of_result};
use crate::text;

/// What an answer may take beyond the handoff's own deadline.
const ANSWER_SLACK: Duration = Duration::from_secs(30);
/// How often the clock on a terminal moves.
const TICK: Duration = Duration::from_millis(100);

pub fn upgrade(args: &UpgradeArgs) -> u8 {
    let mut progress = Progress::new(args.json);
    let answer = ask(args, &mut progress);
    tell(answer, progress, args.json)
}

/// `handoff rollback`: the same, back to the program before.
pub fn rollback(args: &RollbackArgs) -> u8 {
    let mut progress = Progress::new(args.json);
    let end = Instant::now() + args.timeout;
    let answer = Client::connect(&args.place, args.service.as_deref()).and_then(|client| {
        let (service, when_draining) = (args.service.clone(), args.when_draining.into());
        let request = Request::Rollback(RollbackParams { service, when_draining });
        follow(client, &request, end, &mut progress)
    });
    tell(answer, progress, args.json)
}

fn tell(answer: Result<Value, Failure>, mut progress: Progress, json: bool) -> u8 {
    progress.end();
    match answer {
        Err(failure) => failure.report(json),
        Ok(answer) => {
            let outcome = &answer["outcome"];
            // What a rollback wants is success, whatever its name.
            let code = match &outcome["result"] {
                result if *result == answer["wanted"] => 0,
                result => of_result(result.as_str().unwrap_or_default()),
            };
            if json {
                text::print(&outcome.to_string());
            } else {
                summarize(answer["service"].as_str().unwrap_or_default(), outcome, code);
            }
            code
        }
    }
}

fn ask(args: &UpgradeArgs, progress: &mut Progress) -> Result<Value, Failure> {
    let binary = args.binary.as_ref().map(absolute).transpose();
    let binary = binary.map_err(|error| Failure::new(USAGE, format!("--binary: {error}")))?;
    let deadline = args.times.deadline.unwrap_or(HANDOFF_DEADLINE);
    let end = Instant::now() + args.timeout.unwrap_or(deadline + ANSWER_SLACK);
    let client = Client::connect(&args.place, args.service.as_deref())?;
    let (promote, force, when_draining) = (args.promote, args.force, args.when_draining.into());
    let upgrade = Upgrade { binary, promote, force, times: args.times.into(), when_draining };
    let params = UpgradeParams::new(args.service.clone(), &upgrade);
    follow(client, &Request::Upgrade(params), end, progress)
}

/// Asks, and shows the way to the answer.
fn follow(mut client: Client, request: &Request, end: Instant, progress: &mut Progress) -> Result<Value, Failure> {
    client.send(request)?;
    let mut waits = None;
    loop {
        match client.next(TICK, end).map_err(|failure| unbegun(failure, waits.as_deref()))? {
            Message::Result(result) => return Ok(result),
            Message::Notification(method, params) => {
                if method == "phase" {
                    let has_begun = params["waits"].is_null() && params["waits_for"].is_null();
                    waits = (!has_begun).then(|| Phase::of(&params).text());
                }
                progress.notice(&method, &params);
            }
            Message::Quiet => progress.draw(),
        }
    }
}

/// What it says of one that waits to begin, when nobody waits for it any more.
fn unbegun(failure: Failure, waits: Option<&str>) -> Failure {
    match waits.filter(|_| failure.code == TIMED_OUT) {
        Some(waits) => Failure::new(TIMED_OUT, format!("timed out: it has not begun, and is given up: {waits}")),
        None => failure,
    }
}

/// A line for success on standard output, for anything else on standard error.
fn summarize(service: &str, outcome: &Value, code: u8) {
    let mut text = format!("{service}: {}\n", text::outcome_line(outcome));
    let steps = ["warm", "drain", "seal", "ready", "pause", "total"].map(|step| (step, format!("{step}_ns")));
    let steps = steps.iter().filter_map(|(step, field)| {
        let ns = outcome[field].as_u64().filter(|ns| *ns > 0)?;
        Some(format!("{step} {}", text::nanoseconds(ns)))
    });
    let steps: Vec<_> = steps.collect();
    if !steps.is_empty() {
        text.push_str(&format!("    {}\n", steps.join(", ")));
    }
    // Nobody may read it any more; the exit code tells.
    let _ = if code == 0 { io::stdout().write_all(text.as_bytes()) } else { io::stderr().write_all(text.as_bytes()) };
}

/// The phases as they come: a line that moves on a terminal, plain lines in a pipe, nothing with `--json`.
struct Progress {
    silent: bool,
    terminal: bool,
    phase: Option<Phase>,
}

struct Phase {
    service: String,
    name: String,
    /// For people; often empty.
    waits_for: String,
    since: Instant,
    done: Option<(u64, u64)>,
}

impl Phase {
    fn of(params: &Value) -> Self {
        let word = |field: &str| params[field].as_str().unwrap_or_default().to_owned();
        let (name, waits_for) = (word("phase"), word("waits_for"));
        Self { service: word("service"), name, waits_for, since: Instant::now(), done: None }
    }

    fn text(&self) -> String {
        if self.waits_for.is_empty() { self.name.clone() } else { format!("{}: {}", self.name, self.waits_for) }
    }
}

impl Progress {
    fn new(silent: bool) -> Self {
        Self { silent, terminal: io::stdout().is_terminal(), phase: None }
    }

    fn notice(&mut self, method: &str, params: &Value) {
        if self.silent {
            return;
        }
        match method {
            "phase" => self.enter(params),
            "progress" => {
                if let Some(phase) = &mut self.phase {
                    phase.done = params["done"].as_u64().zip(params["total"].as_u64());
                }
                self.draw();
            }
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
        self.phase = Some(phase);
        self.draw();
    }

    /// Draws the line of the phase again.
    fn draw(&self) {
        let (Some(phase), true) = (&self.phase, self.terminal) else { return };
        let done = match phase.done {
            Some((done, total)) if total > 0 => format!(", {done} of {total} ({} %)", done.saturating_mul(100) / total),
            _ => String::new(),
        };
        let time = text::nanoseconds(phase.since.elapsed().as_nanos() as u64);
        let mut out = io::stdout();
        let _ = write!(out, "\r\x1b[K{}: {} {time}{done}", phase.service, phase.text());
        let _ = out.flush();
    }

    /// The phase is over: its line stays.
    fn end(&mut self) {
        self.draw();
        if self.phase.take().is_some() && self.terminal {
            let _ = writeln!(io::stdout());
        }
    }
}
