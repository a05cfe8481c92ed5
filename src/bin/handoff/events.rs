//! `handoff events`: what happens, as it happens.

use handoff::service::words::counted;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use crate::args::EventsArgs;
use crate::control::client::{Client, Message};
use crate::control::{Request, ServiceParam};
use crate::exit::Failure;

/// How long a read may take: nothing depends on it.
const PATIENCE: Duration = Duration::from_secs(3600);

pub fn events(args: &EventsArgs) -> u8 {
    match follow(args) {
        Ok(()) => 0,
        Err(failure) => failure.report(args.json),
    }
}

fn follow(args: &EventsArgs) -> Result<(), Failure> {
    let mut client = Client::connect(&args.place, args.service.as_deref())?;
    client.send(&Request::Events(ServiceParam { service: args.service.clone() }))?;
    while let Some(message) = client.follow(PATIENCE)? {
        let Message::Notification(_, event) = message else { continue };
        let line = if args.json { event.to_string() } else { line_of(&event) };
        if writeln!(io::stdout(), "{line}").is_err() {
            break; // nobody reads it any more
        }
    }
    Ok(())
}

/// An event, for people.
pub fn line_of(event: &Value) -> String {
    let word = |field: &str| event[field].as_str().unwrap_or_default();
    if word("event") == "dropped" {
        let events = counted(event["events"].as_u64().unwrap_or_default(), "event");
        return format!("{} {events} dropped: not read in time", word("time"));
    }
    format!("{} {}: {}", word("time"), word("service"), word("text"))
}
