//! `handoff upgrade --dry-run`: whether it would begin.

use serde_json::{Value, json};

use crate::args::UpgradeArgs;
use crate::control::Request;
use crate::control::client::ask;
use crate::exit::of_result;
use crate::text;
use crate::upgrade::{params_of, patience_of};

pub fn preview(args: &UpgradeArgs) -> u8 {
    let asked = params_of(args)
        .and_then(|params| ask(&args.place, args.service.as_deref(), &Request::Preview(params), patience_of(args)));
    match asked {
        Err(failure) => failure.report(args.json),
        Ok(answer) => {
            let possible = answer["preview"]["reasons"].as_array().is_some_and(Vec::is_empty);
            if args.json {
                let mut preview = answer["preview"].clone();
                preview["service"] = answer["service"].clone();
                preview["possible"] = json!(possible);
                text::print(&preview.to_string());
            } else {
                show(&answer, possible);
            }
            if possible { 0 } else { of_result("refused") }
        }
    }
}

fn show(answer: &Value, possible: bool) {
    let (service, preview) = (answer["service"].as_str().unwrap_or_default(), &answer["preview"]);
    let word = |field: &str| preview[field].as_str().unwrap_or("?");
    if !possible {
        text::print(&format!("{service}: it would be refused"));
        for reason in preview["reasons"].as_array().into_iter().flatten() {
            text::print(&format!("    {}", reason.as_str().unwrap_or_default()));
        }
        return;
    }
    let how = match word("mode") {
        "cold" => "as a cold start, since nobody serves now".to_owned(),
        mode => format!("in mode {mode}"),
    };
    text::print(&format!("{service}: it would begin, with {}, {how}", word("program")));
    if let Some(waits) = preview["waits"].as_str() {
        text::print(&format!("    first it would wait for {waits}"));
    }
    if let Some(warning) = preview["warning"].as_str() {
        text::print(&format!("    a rollback would not undo it: {warning}"));
    }
}
