//! `handoff history`: what happened.

use serde_json::Value;

use crate::args::HistoryArgs;
use crate::control::{Request, ServiceParam};
use crate::text;
use crate::units::show_asked;

pub fn history(args: &HistoryArgs) -> u8 {
    let request = Request::History(ServiceParam { service: args.service.clone() });
    show_asked(&args.ask, args.service.as_deref(), &request, |answer| {
        lines(answer).iter().for_each(|line| text::print(line));
    })
}

/// Those of all services in the order of their time.
fn lines(answer: &Value) -> Vec<String> {
    let mut entries: Vec<(u64, String)> = Vec::new();
    for service in answer["services"].as_array().into_iter().flatten() {
        let name = service["name"].as_str().unwrap_or_default();
        for entry in service["entries"].as_array().into_iter().flatten() {
            let time_ms = entry["time_ms"].as_u64().unwrap_or_default();
            let mut lines = vec![format!("{} {name}: {}", text::utc(time_ms), describe(entry))];
            lines.extend(phases(entry));
            entries.push((time_ms, lines.join("\n")));
        }
    }
    entries.sort_by_key(|(time_ms, _)| *time_ms);
    entries.into_iter().map(|(_, line)| line).collect()
}

fn describe(entry: &Value) -> String {
    let word = |field: &str| entry[field].as_str().unwrap_or_default();
    match word("kind") {
        "start" => {
            let how = if entry["adopted"] == true { "was adopted" } else { "started" };
            format!("process {} {how} (generation {})", entry["pid"], entry["generation"])
        }
        "end" => {
            let who = entry["pid"].as_i64().map_or(String::new(), |pid| format!("process {pid} ended: "));
            let next = match entry["next_start_ms"].as_u64() {
                Some(ms) => format!("; starts again in {}", text::milliseconds(ms)),
                None => "; for good".to_owned(),
            };
            let stopped = entry["stopped"].as_str().map_or(String::new(), |why| format!(" ({why})"));
            format!("{who}{}{stopped}{next}", word("text"))
        }
        "handoff" => {
            let from = match (entry["from_pid"].as_i64(), entry["from_generation"].as_u64()) {
                (Some(pid), Some(generation)) => format!(" from process {pid} (generation {generation})"),
                _ => String::new(),
            };
            let corrected = if entry["corrected"] == true { ", after all" } else { "" };
            format!("{}{from}: {}{corrected}", word("what"), text::outcome_line(&entry["outcome"]))
        }
        other => other.to_owned(),
    }
}

/// A second line: how long what took.
fn phases(entry: &Value) -> Option<String> {
    let phases = entry["phases"].as_array()?.iter().map(|phase| {
        let ns = phase["ns"].as_u64().unwrap_or_default();
        format!("{} {}", phase["phase"].as_str().unwrap_or_default(), text::nanoseconds(ns))
    });
    let phases: Vec<String> = phases.collect();
    (!phases.is_empty()).then(|| format!("    {}", phases.join(", ")))
}
