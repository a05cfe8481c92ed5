//! `handoff upgrade`: asks for a new process, shows the way, and says how it ended.

use std::path::absolute;
use std::time::{Duration, Instant};

use handoff::limits::HANDOFF_DEADLINE;
use handoff::service::Upgrade;
use serde_json::Value;

use crate::args::{RollbackArgs, UpgradeArgs};
use crate::control::client::{Client, Message};
use crate::control::{Request, RollbackParams, UpgradeParams};
use crate::display::{Phase, Progress, summarize};
use crate::exit::{Failure, TIMED_OUT, USAGE, of_result};
use crate::text;

/// What an answer may take beyond the handoff's own deadline.
const ANSWER_SLACK: Duration = Duration::from_secs(30);
/// How often the clock on a terminal moves.
const TICK: Duration = Duration::from_millis(100);

pub fn upgrade(args: &UpgradeArgs) -> u8 {
    let mut progress = Progress::new(args.json);
    let answer = ask(args, &mut progress);
    tell(answer, progress, args.json)
}

/// `handoff rollback`: the same, back to the program before.
pub fn rollback(args: &RollbackArgs) -> u8 {
    let mut progress = Progress::new(args.json);
    let end = Instant::now() + args.timeout;
    let answer = Client::connect(&args.place, args.service.as_deref()).and_then(|client| {
        let (service, when_draining) = (args.service.clone(), args.when_draining.into());
        let request = Request::Rollback(RollbackParams { service, when_draining });
        follow(client, &request, end, &mut progress)
    });
    tell(answer, progress, args.json)
}

fn tell(answer: Result<Value, Failure>, mut progress: Progress, json: bool) -> u8 {
    progress.end();
    match answer {
        Err(failure) => failure.report(json),
        Ok(answer) => {
            let outcome = &answer["outcome"];
            // What a rollback wants is success, whatever its name.
            let code = match &outcome["result"] {
                result if *result == answer["wanted"] => 0,
                result => of_result(result.as_str().unwrap_or_default()),
            };
            if json {
                text::print(&outcome.to_string());
            } else {
                summarize(&answer, code);
            }
            code
        }
    }
}

fn ask(args: &UpgradeArgs, progress: &mut Progress) -> Result<Value, Failure> {
    let params = params_of(args)?;
    let end = Instant::now() + patience_of(args);
    let client = Client::connect(&args.place, args.service.as_deref())?;
    follow(client, &Request::Upgrade(params), end, progress)
}

/// What is asked of the supervisor.
pub fn params_of(args: &UpgradeArgs) -> Result<UpgradeParams, Failure> {
    let binary = args.binary.as_ref().map(absolute).transpose();
    let binary = binary.map_err(|error| Failure::new(USAGE, format!("--binary: {error}")))?;
    let (promote, force, when_draining) = (args.promote, args.force, args.when_draining.into());
    let upgrade = Upgrade { binary, promote, force, times: args.times.into(), when_draining };
    Ok(UpgradeParams::new(args.service.clone(), &upgrade))
}

/// For how long the answer is waited for.
pub fn patience_of(args: &UpgradeArgs) -> Duration {
    args.timeout.unwrap_or_else(|| args.times.deadline.unwrap_or(HANDOFF_DEADLINE) + ANSWER_SLACK)
}

/// Asks, and shows the way to the answer.
fn follow(mut client: Client, request: &Request, end: Instant, progress: &mut Progress) -> Result<Value, Failure> {
    client.send(request)?;
    let mut waits = None;
    loop {
        match client.next(TICK, end).map_err(|failure| unbegun(failure, waits.as_deref()))? {
            Message::Result(result) => return Ok(result),
            Message::Notification(method, params) => {
                if method == "phase" {
                    let has_begun = params["waits"].is_null() && params["waits_for"].is_null();
                    waits = (!has_begun).then(|| Phase::of(&params).text());
                }
                progress.notice(&method, &params);
            }
            Message::Quiet => progress.draw(),
        }
    }
}

/// What it says of one that waits to begin, when nobody waits for it any more.
fn unbegun(failure: Failure, waits: Option<&str>) -> Failure {
    match waits.filter(|_| failure.code == TIMED_OUT) {
        Some(waits) => Failure::new(TIMED_OUT, format!("timed out: it has not begun, and is given up: {waits}")),
        None => failure,
    }
}
