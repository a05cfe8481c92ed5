//! `handoff self-upgrade`: asks, waits, and says how it ended.

use std::path::absolute;
use std::time::Duration;

use handoff::limits::{PREFLIGHT_TIMEOUT, RESTORE_TIMEOUT};
use serde_json::Value;

use crate::args::SelfUpgradeArgs;
use crate::control::client;
use crate::control::{Request, SelfUpgradeParams};
use crate::exit::{Failure, TIMED_OUT, USAGE, of_result};
use crate::text;

/// What an answer may take beyond what the supervisor waits for.
const ANSWER_SLACK: Duration = Duration::from_secs(10);

pub fn self_upgrade(args: &SelfUpgradeArgs) -> u8 {
    match ask(args) {
        Err(failure) => failure.report(args.json),
        Ok(outcome) => {
            let code = match outcome["result"].as_str().unwrap_or_default() {
                "timed_out" => TIMED_OUT,
                result => of_result(result),
            };
            let line = text::self_upgrade_line(&outcome);
            match (args.json, code) {
                (true, _) => text::print(&outcome.to_string()),
                (false, 0) => text::print(&line),
                (false, _) => eprintln!("handoff: {line}"),
            }
            code
        }
    }
}

fn ask(args: &SelfUpgradeArgs) -> Result<Value, Failure> {
    let binary = args.binary.as_ref().map(absolute).transpose();
    let binary = binary.map_err(|error| Failure::new(USAGE, format!("the program: {error}")))?;
    let timeout_ms = Some(u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX));
    let request = Request::SelfUpgrade(SelfUpgradeParams { binary, timeout_ms });
    client::ask(&args.place, None, &request, args.timeout + PREFLIGHT_TIMEOUT + RESTORE_TIMEOUT + ANSWER_SLACK)
}
