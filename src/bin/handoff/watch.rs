//! `handoff status --watch`: what runs, again whenever something changes.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use console::Term;
use serde_json::{Value, json};

use crate::args::StatusArgs;
use crate::control::client::{Client, Message};
use crate::control::{Request, ServiceParam};
use crate::exit::Failure;
use crate::status::lines;
use crate::text;

/// How often times move on a terminal.
const TICK: Duration = Duration::from_secs(1);
/// Events that come together are shown together.
const TOGETHER: Duration = Duration::from_millis(20);

pub fn watch(args: &StatusArgs) -> u8 {
    match follow(args) {
        Ok(()) => 0,
        Err(failure) => failure.report(args.ask.json),
    }
}

fn follow(args: &StatusArgs) -> Result<(), Failure> {
    let param = || ServiceParam { service: args.service.clone() };
    // First, so that nothing is missed in between.
    let mut events = Client::connect(&args.ask.place, args.service.as_deref())?;
    events.send(&Request::Events(param()))?;
    let mut asking = Client::connect(&args.ask.place, args.service.as_deref())?;
    let terminal = !args.ask.json && console::user_attended();
    let mut screen = Screen { term: Term::buffered_stdout(), drawn: 0 };
    let mut known = Vec::new();
    loop {
        let answer = asking.send(&Request::Status(param()));
        let status = match answer.and_then(|()| asking.answer(Instant::now() + args.ask.timeout)) {
            Ok(status) => status,
            Err(_) if has_ended(&mut events) => return Ok(()),
            Err(failure) => return Err(failure),
        };
        let changed = changes(&mut known, &status);
        let shown = match (terminal, args.ask.json) {
            (true, _) => screen.draw(&lines(&status)),
            (false, true) if !changed.is_empty() => writeln!(io::stdout(), "{status}"),
            (false, _) => changed.iter().try_for_each(|service| writeln!(io::stdout(), "{}", line(service))),
        };
        if shown.is_err() || !wait(&mut events)? {
            return Ok(()); // nobody looks any more, or the supervisor ended
        }
    }
}

/// Until something happened, or time has passed; false at the end of the supervisor.
fn wait(events: &mut Client) -> Result<bool, Failure> {
    let (mut patience, end) = (TICK, Instant::now() + TICK);
    while Instant::now() < end {
        match events.follow(patience)? {
            None => return Ok(false),
            Some(Message::Quiet) => break,
            Some(_) => patience = TOGETHER,
        }
    }
    Ok(true)
}

/// The supervisor, which closes one connection before the other.
fn has_ended(events: &mut Client) -> bool {
    loop {
        match events.follow(TICK) {
            Ok(None) => return true,
            Ok(Some(Message::Quiet)) | Err(_) => return false,
            Ok(Some(_)) => {}
        }
    }
}

/// The services that are not as they were.
fn changes(known: &mut Vec<Value>, status: &Value) -> Vec<Value> {
    let services = status["services"].as_array().cloned().unwrap_or_default();
    // Times and counts that only go on are no change.
    let key = |service: &Value| {
        let fields = ["name", "state", "want", "why", "phase", "pid", "generation", "draining", "waits", "health"];
        let of = |field: &str| match &service[field] {
            Value::Array(all) => json!(all.iter().map(|one| one["pid"].clone()).collect::<Vec<_>>()),
            Value::Object(one) => one.get("what").or(one.get("state")).cloned().unwrap_or_default(),
            other => other.clone(),
        };
        Value::from(fields.map(of).to_vec())
    };
    let keys: Vec<Value> = services.iter().map(key).collect();
    let before = std::mem::replace(known, keys.clone());
    let is_new = |(_, key): &(Value, Value)| !before.contains(key);
    services.into_iter().zip(keys).filter(is_new).map(|(service, _)| service).collect()
}

fn line(service: &Value) -> String {
    let word = |field: &str| service[field].as_str().unwrap_or_default();
    let process = service["pid"]
        .as_i64()
        .map_or(String::new(), |pid| format!(", process {pid} (generation {})", service["generation"]));
    let phase = if word("phase") == "idle" { String::new() } else { format!(", {}", word("phase")) };
    let why = word("why").lines().next().unwrap_or_default();
    format!("{} {}: {}{process}{phase}: {why}", text::utc(text::now_ms()), word("name"), word("state"))
}

struct Screen {
    term: Term,
    /// Lines that are there.
    drawn: usize,
}

impl Screen {
    /// In the place of what is there; what does not fit is left out.
    fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let (rows, columns) = self.term.size();
        let room = usize::from(rows).saturating_sub(2).max(1);
        self.term.clear_last_lines(self.drawn)?;
        for line in lines.iter().take(room) {
            self.term.write_line(&console::truncate_str(line, usize::from(columns), "…"))?;
        }
        let left = lines.len().saturating_sub(room);
        if left > 0 {
            self.term.write_line(&format!("… and {left} more"))?;
        }
        self.drawn = lines.len().min(room) + usize::from(left > 0);
        self.term.flush()
    }
}
