//! `handoff check`: what is wrong with files of units.

use handoff::service::config::{Config, Fault, doubts, load};
use handoff::service::words::counted;
use serde_json::{Value, json};

use crate::args::CheckArgs;
use crate::exit::{ERROR, Failure};
use crate::text;

pub fn check(args: &CheckArgs) -> u8 {
    let config = match load(&args.config) {
        Ok(config) => config,
        Err(error) => return Failure::from(error).report(args.json),
    };
    let warnings: Vec<Fault> = doubts(&config).into_iter().map(warning).collect();
    if args.json {
        text::print(&json(&config, &warnings).to_string());
    } else {
        config.faults.iter().chain(&warnings).for_each(|fault| text::print(&fault.to_string()));
        text::print(&summary(&config, warnings.len()));
    }
    if config.faults.is_empty() { 0 } else { ERROR }
}

/// For people and programs alike, it is not taken for a fault.
fn warning(fault: Fault) -> Fault {
    Fault { text: format!("warning: {}", fault.text), ..fault }
}

fn summary(config: &Config, warnings: usize) -> String {
    let count = |number: usize, what: &str| counted(number as u64, what);
    let (units, targets) = (count(config.units.len(), "unit"), count(config.targets.len(), "target"));
    match config.faults.len() {
        0 if warnings == 0 => format!("{units} and {targets}, all well"),
        0 => format!("{units} and {targets}; {}", count(warnings, "warning")),
        faults => format!("{}; {units} and {targets} could run", count(faults, "fault")),
    }
}

fn json(config: &Config, warnings: &[Fault]) -> Value {
    let names = |names: Vec<&String>| json!(names);
    json!({
        "faults": faults(&config.faults),
        "warnings": faults(warnings),
        "units": names(config.units.keys().collect()),
        "targets": names(config.targets.keys().collect()),
    })
}

/// Faults as JSON.
pub fn faults(faults: &[Fault]) -> Vec<Value> {
    faults.iter().map(fault).collect()
}

/// A fault as JSON.
pub fn fault(fault: &Fault) -> Value {
    let position = fault.place.position;
    json!({
        "file": fault.place.file.to_string_lossy(),
        "line": position.map(|position| position.line),
        "column": position.map(|position| position.column),
        "unit": fault.unit,
        "key": fault.key,
        "text": fault.text,
    })
}
