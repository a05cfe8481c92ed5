//! Commands that act on the units of a supervisor, or ask about them.

use std::fmt::Display;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use handoff::limits::REQUEST_BYTES_MAX;
use handoff::service::fleet::Left;
use handoff::sys::fd::read_bounded;
use serde::Deserialize;
use serde_json::Value;

use crate::args::{
    AddArgs, AskArgs, KillArgs, ReloadArgs, RemoveArgs, ShutdownArgs, TreeArgs, UnitsArgs, WaitArgs, WhyArgs,
};
use crate::control::client::ask;
use crate::control::{
    AddParams, KillParams, Names, ReloadParams, RemoveParams, Request, ServiceParam, ShutdownParams, UnitsParams,
    request_line,
};
use crate::exit::{ERROR, Failure, TIMED_OUT, of_result};
use crate::text;

/// One of `start`, `stop` and `restart`.
pub fn set(args: &UnitsArgs, request: fn(UnitsParams) -> Request) -> u8 {
    let params = UnitsParams { services: args.services.clone(), wait: !args.no_wait };
    let first = args.services.first().map(String::as_str);
    show(wait_for(&args.wait, first, &request(params)), args.wait.json, unit_lines, code_of_units)
}

/// Asks for what takes a while.
fn wait_for(args: &WaitArgs, service: Option<&str>, request: &Request) -> Result<Value, Failure> {
    ask(&args.place, service, request, args.timeout).map_err(|failure| match failure.code {
        TIMED_OUT => {
            Failure::new(TIMED_OUT, "timed out: it is not so yet; what was begun goes on, and handoff why tells more")
        }
        _ => failure,
    })
}

fn code_of_units(answer: &Value) -> u8 {
    let failed = answer["units"].as_array().into_iter().flatten().find(|unit| unit["ok"] != true);
    failed.map_or(0, |unit| unit["outcome"]["result"].as_str().map_or(ERROR, of_result))
}

fn unit_lines(answer: &Value) {
    answer["units"].as_array().into_iter().flatten().for_each(unit_line);
}

/// What has become so is said on standard output, what has not on standard error.
fn unit_line(unit: &Value) {
    let word = |field: &str| unit[field].as_str().unwrap_or_default();
    let mut line = format!("{}: {}", word("unit"), word("state"));
    if let Some(pid) = unit["pid"].as_i64() {
        line.push_str(&format!(", process {pid}"));
    }
    if !unit["outcome"].is_null() {
        line = format!("{}: {}", word("unit"), text::told_outcome(&unit["outcome"]));
    }
    if !unit["why"].is_null() {
        line.push_str(&format!(": {}", word("why")));
    }
    match unit["ok"] == true {
        true => text::print(&line),
        false => eprintln!("handoff: {line}"),
    }
}

pub fn reload(args: &ReloadArgs) -> u8 {
    let request = Request::Reload(ReloadParams { dry_run: args.dry_run });
    let lines = |answer: &Value| text::reloaded(answer).iter().for_each(|line| text::print(line));
    show(ask_by(&args.ask, None, &request), args.ask.json, lines, |answer| {
        u8::from(answer["faults"].as_array().is_some_and(|faults| !faults.is_empty()))
    })
}

pub fn add(args: &AddArgs) -> u8 {
    let request = read_added(&args.file).and_then(|(from, text)| {
        let request = Request::Add(AddParams { from, text, wait: !args.no_wait });
        match request_line(1, &request).len() > REQUEST_BYTES_MAX {
            true => {
                Err(Failure::new(ERROR, "this is too much for one request; add a part, or write a file and reload"))
            }
            false => Ok(request),
        }
    });
    let answer = request.and_then(|request| wait_for(&args.wait, None, &request));
    changed(answer, args.wait.json, "nothing was added")
}

pub fn remove(args: &RemoveArgs) -> u8 {
    let request = Request::Remove(RemoveParams { services: args.services.clone(), wait: !args.no_wait });
    changed(wait_for(&args.wait, None, &request), args.wait.json, "nothing was removed")
}

/// What units were written in, as seen from everywhere, and what is written there.
fn read_added(file: &Path) -> Result<(String, String), Failure> {
    let failed = |error: &dyn Display| Failure::new(ERROR, format!("{}: cannot read it: {error}", file.display()));
    let (from, bytes) = match file == Path::new("-") {
        true => {
            let mut bytes = Vec::new();
            let read = io::stdin().take(REQUEST_BYTES_MAX as u64).read_to_end(&mut bytes);
            (PathBuf::from("<stdin>"), read.map(|_| bytes))
        }
        false => (std::path::absolute(file).map_err(|error| failed(&error))?, read_bounded(file, REQUEST_BYTES_MAX)),
    };
    let text = String::from_utf8(bytes.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    Ok((from.to_string_lossy().into_owned(), text))
}

/// What is wrong, if `nothing` was changed; or else how units are by now.
fn changed(answer: Result<Value, Failure>, json: bool, nothing: &str) -> u8 {
    let lines = |answer: &Value| {
        unit_lines(answer);
        let faults = text::faults(answer);
        faults.iter().for_each(|line| text::print(line));
        if !faults.is_empty() {
            text::print(nothing);
        }
    };
    show(answer, json, lines, |answer| if text::faults(answer).is_empty() { code_of_units(answer) } else { ERROR })
}

pub fn kill(args: &KillArgs) -> u8 {
    let params = KillParams { services: vec![args.service.clone()], signal: args.signal.as_str().to_owned() };
    show_asked(&args.ask, Some(&args.service), &Request::Kill(params), |answer| {
        for told in answer["signalled"].as_array().into_iter().flatten() {
            let (unit, signal) =
                (told["unit"].as_str().unwrap_or_default(), answer["signal"].as_str().unwrap_or_default());
            text::print(&format!("{unit}: {signal} to process {}", told["pid"]));
        }
    })
}

pub fn why(args: &WhyArgs) -> u8 {
    let request = Request::Why(ServiceParam { service: args.service.clone() });
    show_asked(&args.ask, args.service.as_deref(), &request, |answer| {
        answer["links"].as_array().into_iter().flatten().for_each(link_lines);
    })
}

fn link_lines(link: &Value) {
    let word = |field: &str| link[field].as_str().unwrap_or_default();
    let by = match link["wanted_by"].as_str() {
        Some(by) => format!(", by {by}"),
        None => String::new(),
    };
    text::print(&format!("{}: {}, wanted {}{by}", word("unit"), word("state"), word("want")));
    text::print(&format!("    because    {}", word("why")));
    if !link["cause"].is_null() && link["cause"] != link["why"] {
        text::print(&format!("    at first   {}", word("cause")));
    }
    if let Some(stale) = text::stale(link) {
        text::print(&format!("    stale      {stale}"));
    }
}

pub fn tree(args: &TreeArgs) -> u8 {
    let first = args.services.first().map(String::as_str);
    let request = Request::Tree(Names { services: args.services.clone() });
    show_asked(&args.ask, first, &request, |answer| {
        answer["tree"].as_array().into_iter().flatten().for_each(|branch| branch_lines(branch, 0));
    })
}

fn branch_lines(branch: &Value, depth: usize) {
    let word = |field: &str| branch[field].as_str().unwrap_or_default();
    let edge = match branch["edge"].as_str() {
        Some(edge) => format!("{edge} "),
        None => String::new(),
    };
    let condition = match branch["condition"].as_str() {
        Some("started") | None => String::new(),
        Some(condition) => format!(":{condition}"),
    };
    let more = if branch["repeated"] == true { ", as above" } else { "" };
    text::print(&format!("{}{edge}{}{condition} ({}{more})", "    ".repeat(depth), word("unit"), word("state")));
    branch["on"].as_array().into_iter().flatten().for_each(|branch| branch_lines(branch, depth + 1));
}

pub fn shutdown(args: &ShutdownArgs) -> u8 {
    let request = Request::Shutdown(ShutdownParams { wait: !args.no_wait });
    let left = |answer: &Value| Vec::<Left>::deserialize(&answer["left"]).unwrap_or_default();
    let lines = |answer: &Value| left(answer).iter().for_each(|left| eprintln!("handoff: {left}"));
    let code = |answer: &Value| if left(answer).is_empty() { 0 } else { ERROR };
    show(ask(&args.place, None, &request, args.timeout), args.json, lines, code)
}

/// Of a command that only asks.
pub fn show_asked(args: &AskArgs, service: Option<&str>, request: &Request, lines: impl FnOnce(&Value)) -> u8 {
    show(ask_by(args, service, request), args.json, lines, |_| 0)
}

fn ask_by(args: &AskArgs, service: Option<&str>, request: &Request) -> Result<Value, Failure> {
    ask(&args.place, service, request, args.timeout)
}

/// Prints the answer: with `json` as it is, or else by `lines`. The exit code is that of `code`.
fn show(answer: Result<Value, Failure>, json: bool, lines: impl FnOnce(&Value), code: impl FnOnce(&Value) -> u8) -> u8 {
    match answer {
        Err(failure) => failure.report(json),
        Ok(answer) => {
            match json {
                true => text::print(&answer.to_string()),
                false => lines(&answer),
            }
            code(&answer)
        }
    }
}
