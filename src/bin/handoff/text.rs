//! Numbers and words for people.

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

/// `rolled_back` is a word for programs.
pub fn result(result: &str) -> String {
    result.replace('_', " ")
}

/// An outcome in a line.
pub fn outcome_line(outcome: &Value) -> String {
    let number = |field: &str| outcome[field].as_u64().unwrap_or_default();
    let word = outcome["result"].as_str().unwrap_or("unknown");
    let who = match number("pid") {
        0 => "no process serves".to_owned(),
        pid => format!("process {pid} serves (generation {})", number("generation")),
    };
    let reason = outcome["reason"].as_str().unwrap_or_default();
    let pause = match number("pause_ns") {
        0 => String::new(),
        pause => format!("; nobody accepted for {}", nanoseconds(pause)),
    };
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("{}; {who}{pause}{because}", result(word))
}

/// What an upgrade that has not begun waits for.
pub fn waits_for(waits: &Value) -> String {
    let pids: Vec<String> = waits["pids"].as_array().into_iter().flatten().map(Value::to_string).collect();
    match pids.is_empty() {
        true => "until the process before has exited".to_owned(),
        false => format!("for the end of process {}", pids.join(" or ")),
    }
}

/// A line on standard output. Nobody may read it any more; the exit code tells.
pub fn print(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (ns, text) in [(0, "0 ns"), (1_500, "1.5 µs"), (4_200_000, "4.2 ms"), (1_300_000_000, "1.30 s")] {
            assert_eq!(nanoseconds(ns), text);
        }
    }
}
