//! Numbers and words for people.

use handoff::service::words::counted;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// `850 ns`, `4.2 ms`, `1.30 s`.
pub fn nanoseconds(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        _ if ns < 1e3 => format!("{ns} ns"),
        _ if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        _ if ns < 1e9 => format!("{:.1} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

/// As [`nanoseconds`].
pub fn milliseconds(ms: u64) -> String {
    nanoseconds(ms.saturating_mul(1_000_000))
}

/// `12s`, `3m 5s`, `2h 7m`, `4d 1h`: of something that goes on.
pub fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    }
}

/// `12 bytes`, `4.0 KiB`, `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    let number = bytes as f64;
    match bytes {
        _ if bytes < 1 << 10 => counted(bytes, "byte"),
        _ if bytes < 1 << 20 => format!("{:.1} KiB", number / 1024.0),
        _ if bytes < 1 << 30 => format!("{:.1} MiB", number / 1_048_576.0),
        _ => format!("{:.1} GiB", number / 1_073_741_824.0),
    }
}

/// Milliseconds since 1970, UTC.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// `2026-03-01T12:00:00.250Z` (RFC 3339), of milliseconds since 1970.
pub fn utc(ms: u64) -> String {
    let (days, seconds) = (ms / 86_400_000, ms / 1000 % 86_400);
    // From March on, so that the day that years may lack comes last: eras of 400 years have 146 097 days.
    let (era, day) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        era * 400 + year,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        ms % 1000
    )
}

/// `rolled_back` is a word for programs.
pub fn result(result: &str) -> String {
    result.replace('_', " ")
}

/// An outcome in a line.
pub fn outcome_line(outcome: &Value) -> String {
    let number = |field: &str| outcome[field].as_u64().unwrap_or_default();
    let word = outcome["result"].as_str().unwrap_or("unknown");
    let reason = outcome["reason"].as_str().unwrap_or_default();
    let who = match (word, number("pid")) {
        // Who serves is the other one's outcome.
        ("refused", _) if reason.starts_with("busy: ") => "nothing was changed".to_owned(),
        ("undecided", 0) => "who serves is not known yet".to_owned(),
        ("undecided", pid) => {
            format!("whether process {pid} serves (generation {}) is not known yet", number("generation"))
        }
        (_, 0) => "no process serves".to_owned(),
        (_, pid) => format!("process {pid} serves (generation {})", number("generation")),
    };
    let pause = match number("pause_ns") {
        0 => String::new(),
        pause => format!("; nobody accepted for {}", nanoseconds(pause)),
    };
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("{}; {who}{pause}{because}", result(word))
}

/// The same for whoever has waited for it, and what to do if that was not enough.
pub fn told_outcome(outcome: &Value) -> String {
    let todo = if outcome["result"] == "undecided" { "; handoff status tells what comes of it" } else { "" };
    outcome_line(outcome) + todo
}

/// What an upgrade that has not begun waits for.
pub fn waits_for(waits: &Value) -> String {
    let pids: Vec<String> = waits["pids"].as_array().into_iter().flatten().map(Value::to_string).collect();
    match pids.is_empty() {
        true => "until the process before has exited".to_owned(),
        false => format!("for the end of process {}", pids.join(" or ")),
    }
}

/// What a reload has done, or would do; or all faults.
pub fn reloaded(answer: &Value) -> Vec<String> {
    let array = |field: &str| answer[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines = faults(answer);
    lines.extend(array("changes").iter().map(change_line));
    match (array("faults"), array("changes"), answer["applied"] == true) {
        ([], [], _) => lines.push("nothing has changed".to_owned()),
        ([], _, true) => lines.push("reloaded".to_owned()),
        ([], _, false) => lines.push("nothing was done".to_owned()),
        _ => lines.push("nothing was changed: the units of before stay".to_owned()),
    }
    lines
}

/// All faults, if nothing was done because of them.
pub fn faults(answer: &Value) -> Vec<String> {
    answer["faults"].as_array().into_iter().flatten().map(fault_line).collect()
}

fn change_line(change: &Value) -> String {
    let word = |field: &str| change[field].as_str().unwrap_or_default();
    let keys: Vec<&str> = change["keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let keys = if keys.is_empty() { String::new() } else { format!(" ({})", keys.join(", ")) };
    let effect = match word("effect") {
        "stale" => "runs as before until it is restarted or upgraded",
        "beside" => "runs on beside one that conflicts, until one of the two ends",
        other => other,
    };
    format!("{}: {}{keys}: {effect}", word("unit"), word("what"))
}

/// The keys in which a process differs from its configuration, if there are any.
pub fn stale(unit: &Value) -> Option<String> {
    let keys: Vec<&str> = unit["stale"].as_array()?.iter().filter_map(Value::as_str).collect();
    (!keys.is_empty()).then(|| format!("{}: it runs as before until it is restarted or upgraded", keys.join(", ")))
}

/// As `handoff check` shows it.
fn fault_line(fault: &Value) -> String {
    let word = |field: &str| fault[field].as_str().unwrap_or_default();
    let mut line = word("file").to_owned();
    for field in ["line", "column"] {
        if let Some(number) = fault[field].as_u64() {
            line.push_str(&format!(":{number}"));
        }
    }
    let whose: Vec<&str> = ["unit", "key"].into_iter().map(word).filter(|word| !word.is_empty()).collect();
    if !whose.is_empty() {
        line.push_str(&format!(": {}", whose.join(", ")));
    }
    format!("{line}: {}", word("text"))
}

/// A line on standard output. Nobody may read it any more; the exit code tells.
pub fn print(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// How a self-upgrade ended.
pub fn self_upgrade_line(outcome: &Value) -> String {
    let word = |field: &str| outcome[field].as_str().unwrap_or_default();
    let time = |field: &str| nanoseconds(outcome[field].as_u64().unwrap_or_default());
    match word("result") {
        "committed" => format!(
            "self-upgrade done: {} (version {}) runs in process {}, after {}; the pause was {}",
            word("binary"),
            word("version"),
            outcome["pid"],
            time("total_ns"),
            time("pause_ns")
        ),
        "rolled_back" => format!(
            "self-upgrade rolled back: {} did not go on, and version {} runs again: {}; the pause was {}",
            word("binary"),
            word("version"),
            word("reason"),
            time("pause_ns")
        ),
        result => format!("self-upgrade {}: {}; nothing was changed", result.replace('_', " "), word("reason")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whoever reads the line does not know what a result means: nothing in it may contradict the rest.
    #[test]
    fn outcomes() {
        let line = |result: &str, pid: i32, reason: &str| {
            outcome_line(&json!({ "result": result, "pid": pid, "generation": 2, "pause_ns": 0, "reason": reason }))
        };
        for (told, expected) in [
            (line("committed", 7, ""), "committed; process 7 serves (generation 2)"),
            (line("rolled_back", 7, "late"), "rolled back; process 7 serves (generation 2): late"),
            (line("reverted", 7, "by hand"), "reverted; process 7 serves (generation 2): by hand"),
            (line("started_cold", 7, "it died"), "started cold; process 7 serves (generation 2): it died"),
            (line("failed", 0, "no such file"), "failed; no process serves: no such file"),
            (line("refused", 7, "no such file"), "refused; process 7 serves (generation 2): no such file"),
            (line("refused", 0, "it has ended"), "refused; no process serves: it has ended"),
            (
                line("refused", 7, "busy: it starts; try again"),
                "refused; nothing was changed: busy: it starts; try again",
            ),
            (line("refused", 0, "busy: it stops"), "refused; nothing was changed: busy: it stops"),
            (
                line("undecided", 7, "it has not said that it serves"),
                "undecided; whether process 7 serves (generation 2) is not known yet: it has not said that it serves",
            ),
            (line("undecided", 0, "it is late"), "undecided; who serves is not known yet: it is late"),
        ] {
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn sizes_and_ages() {
        assert_eq!([5, 4096, 3 << 19, 5 << 30].map(bytes), ["5 bytes", "4.0 KiB", "1.5 MiB", "5.0 GiB"]);
        let ages = [999, 59_000, 185_000, 7_620_000, 349_200_000].map(age);
        assert_eq!(ages, ["0s", "59s", "3m 5s", "2h 7m", "4d 1h"]);
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(seconds * 1000), text);
        }
        assert_eq!(utc(7), "1970-01-01T00:00:00.007Z");
    }

    #[test]
    fn times() {
        for (ns, text) in [(0, "0 ns"), (1_500, "1.5 µs"), (4_200_000, "4.2 ms"), (1_300_000_000, "1.30 s")] {
            assert_eq!(nanoseconds(ns), text);
        }
    }
}
