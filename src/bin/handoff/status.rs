//! `handoff status`: what runs.

use handoff::service::words::counted;
use serde_json::Value;

use crate::args::StatusArgs;
use crate::control::{Request, ServiceParam};
use crate::table::table;
use crate::text;
use crate::units::show_asked;

pub fn status(args: &StatusArgs) -> u8 {
    let request = Request::Status(ServiceParam { service: args.service.clone() });
    show_asked(&args.ask, args.service.as_deref(), &request, |answer| {
        lines(answer).iter().chain(&supervisor(answer, text::now_ms())).for_each(|line| text::print(line));
    })
}

/// All of one service, or a table of many.
pub fn lines(answer: &Value) -> Vec<String> {
    match answer["services"].as_array().map(Vec::as_slice) {
        Some([only]) => show(only),
        Some(many) => table(many),
        None => Vec::new(),
    }
}

/// How long the line of a self-upgrade is shown, in milliseconds. Later nobody asks whether it went well.
const SELF_UPGRADE_NEWS: u64 = 3_600_000;

/// Of the supervisor itself, if it has just replaced its program, or tried to.
fn supervisor(answer: &Value, now_ms: u64) -> Option<String> {
    let supervisor = &answer["supervisor"];
    let last = &supervisor["last_self_upgrade"];
    let (name, pid) = (supervisor["name"].as_str().unwrap_or_default(), &supervisor["pid"]);
    let line = || format!("supervisor {name}: process {pid}; {}", text::self_upgrade_line(last));
    let is_news = last["time_ms"].as_u64().is_none_or(|time_ms| now_ms.saturating_sub(time_ms) < SELF_UPGRADE_NEWS);
    (!last.is_null() && is_news).then(line)
}

fn show(service: &Value) -> Vec<String> {
    let mut lines = vec![headline(service)];
    let parts = [what_it_is(service), where_it_is(service), how_it_is(service), how_it_is_replaced(service)];
    lines.extend(parts.into_iter().flatten().map(|(name, text)| format!("    {name:<10} {text}")));
    lines
}

/// A name, and what is said of it.
type Lines = Vec<(&'static str, String)>;

fn word<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn time(value: &Value, field: &str) -> Option<String> {
    value[field].as_u64().map(text::milliseconds)
}

fn headline(service: &Value) -> String {
    let process = service["pid"].as_i64();
    let process = process.map(|pid| format!(", process {pid} (generation {})", service["generation"]));
    let phase = Some(word(service, "phase")).filter(|phase| *phase != "idle").map(|phase| format!(", {phase}"));
    let next = time(service, "next_start_ms").map(|time| format!(", starts again in {time}"));
    let more: String = [process, phase, next].into_iter().flatten().collect();
    format!("{}: {}{more}", word(service, "name"), word(service, "state"))
}

fn what_it_is(service: &Value) -> Lines {
    let mut lines = Vec::new();
    if let Some(ms) = service["uptime_ms"].as_u64() {
        lines.push(("uptime", text::age(ms)));
    }
    if word(service, "want") != word(service, "state") {
        lines.push(("wanted", word(service, "want").to_owned()));
    }
    lines.push(("because", word(service, "why").to_owned()));
    lines.extend(text::stale(service).map(|stale| ("stale", stale)));
    if service["ephemeral"] == true {
        lines.push(("ephemeral", "it is in no file: handoff add, and remove".to_owned()));
    }
    lines.push(("program", word(service, "program").to_owned()));
    lines
}

fn where_it_is(service: &Value) -> Lines {
    let mut lines = Vec::new();
    for draining in service["draining"].as_array().into_iter().flatten() {
        let which = match draining["generation"].as_u64() {
            Some(0) => "undone".to_owned(),
            _ => format!("generation {}", draining["generation"]),
        };
        let left = time(draining, "left_ms").unwrap_or_default();
        lines.push(("draining", format!("process {} ({which}), for {left} more at most", draining["pid"])));
    }
    let waits = &service["waits"];
    if let Some(what) = waits["what"].as_str() {
        let (whom, left) = (text::waits_for(waits), time(waits, "left_ms").unwrap_or_default());
        let text = format!("{what}, {whom}, for {left} more at most; it is given up when its command ends");
        lines.push(("waits", text));
    }
    for listener in service["listeners"].as_array().into_iter().flatten() {
        let group = match listener["sockets"].as_u64() {
            Some(sockets @ 2..) => format!(",sockets={sockets}"),
            _ => String::new(),
        };
        lines.push(("listener", format!("{} {}{group}", word(listener, "name"), word(listener, "address"))));
    }
    lines
}

fn how_it_is(service: &Value) -> Lines {
    let mut lines = vec![("linked", linked(service).to_owned()), ("mode", word(service, "mode").to_owned())];
    if !service["ready"].is_null() {
        lines.push(("ready", word(service, "ready").to_owned()));
    }
    let says = word(&service["says"], "status");
    if !says.is_empty() {
        lines.push(("says", says.to_owned()));
    }
    let health = &service["health"];
    if let Some(state) = health["state"].as_str() {
        let since = health["since_ms"].as_u64().map(|ms| format!(" for {}", text::age(ms)));
        lines.push(("health", format!("{state}{}{}", since.unwrap_or_default(), failing(health))));
    }
    if let Some(path) = service["lost_lock"].as_str() {
        lines.push(("upgrades", format!("refused until a restart: {path} was removed while it runs")));
    }
    lines.push(("restarts", service["restarts"].to_string()));
    let log = &service["log"];
    if let Some(trouble) = log["trouble"].as_str() {
        let dropped = log["dropped_from_file"].as_u64().unwrap_or_default();
        lines.push(("output", format!("{trouble}; {} dropped there", counted(dropped, "line"))));
    }
    lines
}

/// What is known by now, although it may not be enough to call it unhealthy.
fn failing(health: &Value) -> String {
    let cause = health["cause"].as_str().map(|cause| format!(": {cause}")).unwrap_or_default();
    match (health["failures"].as_u64(), health["failing_ms"].as_u64()) {
        (Some(failures), Some(ms)) => {
            format!("; {} in a row, for {}{cause}", counted(failures, "bad answer"), text::age(ms))
        }
        _ => cause,
    }
}

fn linked(service: &Value) -> &'static str {
    match service["linked"].as_bool().unwrap_or_default() {
        true => "yes",
        false if service["pid"].is_null() => "-",
        false if word(service, "state") == "starting" => "not known yet",
        false if word(service, "mode") == "overlap" && !service["ready"].is_null() => {
            "no: its successor serves beside it for a while"
        }
        false => "no: it can not be replaced without a restart",
    }
}

fn how_it_is_replaced(service: &Value) -> Lines {
    let mut lines = Vec::new();
    if let (Some(pid), Some(left)) = (service["parked_pid"].as_u64(), time(service, "probation_left_ms")) {
        lines.push(("probation", format!("for {left}: process {pid} takes over if this one dies")));
    }
    if !service["last_handoff"].is_null() {
        lines.push(("upgrade", text::outcome_line(&service["last_handoff"])));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_self_upgrade_is_news_for_an_hour() {
        let last = json!({ "result": "committed", "binary": "/b", "version": "2", "pid": 7, "time_ms": 1_000_000 });
        let answer = json!({ "supervisor": { "name": "main", "pid": 7, "last_self_upgrade": last } });
        assert!(supervisor(&answer, 1_000_000 + SELF_UPGRADE_NEWS - 1).unwrap().contains("self-upgrade done"));
        assert_eq!(supervisor(&answer, 1_000_000 + SELF_UPGRADE_NEWS), None);
        assert_eq!(supervisor(&json!({ "supervisor": { "last_self_upgrade": null } }), 0), None);
    }
}
