//! `handoff status`: what runs.

use std::time::Instant;

use serde_json::Value;

use crate::args::StatusArgs;
use crate::control::client::Client;
use crate::control::{Request, ServiceParam};
use crate::exit::Failure;
use crate::text;

pub fn status(args: &StatusArgs) -> u8 {
    match ask(args) {
        Err(failure) => failure.report(args.json),
        Ok(answer) if args.json => {
            text::print(&answer.to_string());
            0
        }
        Ok(answer) => {
            answer["services"].as_array().into_iter().flatten().for_each(show);
            0
        }
    }
}

fn ask(args: &StatusArgs) -> Result<Value, Failure> {
    let end = Instant::now() + args.timeout;
    let mut client = Client::connect(&args.place, args.service.as_deref())?;
    client.send(&Request::Status(ServiceParam { service: args.service.clone() }))?;
    client.answer(end)
}

fn show(service: &Value) {
    let word = |field: &str| service[field].as_str().unwrap_or_default();
    let process = match service["pid"].as_i64() {
        Some(pid) => format!(", process {pid} (generation {})", service["generation"]),
        None => String::new(),
    };
    let phase = if word("phase") == "idle" { String::new() } else { format!(", {}", word("phase")) };
    let next = service["next_start_ms"]
        .as_u64()
        .map_or(String::new(), |ms| format!(", starts again in {}", text::nanoseconds(ms.saturating_mul(1_000_000))));
    text::print(&format!("{}: {}{process}{phase}{next}", word("name"), word("state")));
    if word("want") != word("state") {
        text::print(&format!("    wanted     {}", word("want")));
    }
    text::print(&format!("    because    {}", word("why")));
    text::print(&format!("    program    {}", word("program")));
    for draining in service["draining"].as_array().into_iter().flatten() {
        let left = text::nanoseconds(draining["left_ms"].as_u64().unwrap_or(0).saturating_mul(1_000_000));
        let which = match draining["generation"].as_u64() {
            Some(0) => "undone".to_owned(),
            _ => format!("generation {}", draining["generation"]),
        };
        text::print(&format!("    draining   process {} ({which}), for {left} more at most", draining["pid"]));
    }
    if let Some(what) = service["waits"]["what"].as_str() {
        let left = text::nanoseconds(service["waits"]["left_ms"].as_u64().unwrap_or(0).saturating_mul(1_000_000));
        let end = "it is given up when its command ends";
        text::print(&format!(
            "    waits      {what}, {}, for {left} more at most; {end}",
            text::waits_for(&service["waits"])
        ));
    }
    for listener in service["listeners"].as_array().into_iter().flatten() {
        let part = |field: &str| listener[field].as_str().unwrap_or_default();
        let group = match listener["sockets"].as_u64() {
            Some(sockets @ 2..) => format!(",sockets={sockets}"),
            _ => String::new(),
        };
        text::print(&format!("    listener   {} {}{group}", part("name"), part("address")));
    }
    let linked = match service["linked"].as_bool().unwrap_or_default() {
        true => "yes",
        false if service["pid"].is_null() => "-",
        false if word("state") == "starting" => "not known yet",
        false if word("mode") == "overlap" && !service["ready"].is_null() => {
            "no: its successor serves beside it for a while"
        }
        false => "no: it can not be replaced without a restart",
    };
    text::print(&format!("    linked     {linked}"));
    text::print(&format!("    mode       {}", word("mode")));
    if !service["ready"].is_null() {
        text::print(&format!("    ready      {}", word("ready")));
    }
    if let Some(says) = service["says"]["status"].as_str().filter(|says| !says.is_empty()) {
        text::print(&format!("    says       {says}"));
    }
    text::print(&format!("    restarts   {}", service["restarts"]));
    if let (Some(pid), Some(ms)) = (service["parked_pid"].as_u64(), service["probation_left_ms"].as_u64()) {
        let left = text::nanoseconds(ms.saturating_mul(1_000_000));
        text::print(&format!("    probation  for {left}: process {pid} takes over if this one dies"));
    }
    if !service["last_handoff"].is_null() {
        text::print(&format!("    upgrade    {}", text::outcome_line(&service["last_handoff"])));
    }
}
