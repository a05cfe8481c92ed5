//! Many services, a line for each.

use console::{Style, measure_text_width, style, truncate_str};
use serde_json::Value;

use crate::text;

const HEADS: [&str; 7] = ["NAME", "STATE", "PID", "GEN", "UPTIME", "LISTENERS", "WHY"];

/// As wide as the terminal, if there is one. No wider than it must be.
pub fn table(services: &[Value]) -> Vec<String> {
    let rows: Vec<[String; 7]> = services.iter().map(row).collect();
    let widths: Vec<usize> = (0..HEADS.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].as_str()).chain([HEADS[column]]);
            cells.map(measure_text_width).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: [&str; 7], look: &dyn Fn(usize, &str) -> String| {
        let cells = cells.iter().enumerate().map(|(column, cell)| {
            let room = widths[column].saturating_sub(measure_text_width(cell));
            look(column, cell) + &" ".repeat(room)
        });
        fit(cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let head = line(HEADS, &|_, cell| style(cell).bold().to_string());
    let body = rows.iter().map(|row| {
        let state = state_style(&row[1]);
        let look = |column, cell: &str| if column == 1 { state.apply_to(cell).to_string() } else { cell.to_owned() };
        line(row.each_ref().map(String::as_str), &look)
    });
    std::iter::once(head).chain(body).collect()
}

fn fit(line: &str) -> String {
    match console::Term::stdout().size_checked() {
        Some((_, columns)) if console::user_attended() => truncate_str(line, usize::from(columns), "…").into_owned(),
        _ => line.to_owned(),
    }
}

/// By what an operator has to do about it.
fn state_style(state: &str) -> Style {
    match state.split(' ').next().unwrap_or_default() {
        "running" | "done" => Style::new().green(),
        "starting" | "upgrading" | "stopping" | "waiting" => Style::new().yellow(),
        "failed" | "faulty" => Style::new().red(),
        _ => Style::new(),
    }
}

fn row(service: &Value) -> [String; 7] {
    let word = |field: &str| service[field].as_str().unwrap_or_default();
    let number = |field: &str| service[field].as_u64();
    let addresses = service["listeners"].as_array().into_iter().flatten();
    let addresses: Vec<&str> = addresses.filter_map(|listener| listener["address"].as_str()).collect();
    let phase = match word("phase") {
        "idle" if service["health"]["state"] == "unhealthy" => Some("unhealthy"),
        "" | "idle" => None,
        phase => Some(phase).filter(|phase| *phase != word("state")),
    };
    let ephemeral = Some("ephemeral").filter(|_| service["ephemeral"] == true);
    let stale = Some("stale").filter(|_| service["stale"].as_array().is_some_and(|keys| !keys.is_empty()));
    let more: Vec<&str> = phase.into_iter().chain(ephemeral).chain(stale).collect();
    let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join(", ")) };
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    [
        word("name").to_owned(),
        format!("{}{more}", word("state")),
        or_dash(number("pid").map_or(String::new(), |pid| pid.to_string())),
        or_dash(number("generation").filter(|number| *number > 0).map_or(String::new(), |number| number.to_string())),
        or_dash(number("uptime_ms").map_or(String::new(), text::age)),
        or_dash(addresses.join(" ")),
        word("why").lines().next().unwrap_or_default().to_owned(),
    ]
}
