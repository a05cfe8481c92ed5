//! `handoff logs`: what services have written.

use handoff::service::words::counted;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::args::LogsArgs;
use crate::control::client::{Client, Message};
use crate::control::{LogsParams, Request};
use crate::exit::Failure;

/// Of lines that are there, with `-f`: what a screen has room for.
const LINES_BEFORE: usize = 10;
/// How long the names may make each line.
const NAME_CHARS_MAX: usize = 24;
/// What is to be printed waits for more for so long.
const PATIENCE: Duration = Duration::from_millis(10);
/// As good as for ever.
const NO_END: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Of the names, on a terminal (SGR).
const COLOURS: [u8; 5] = [36, 33, 32, 35, 34];

pub fn logs(args: &LogsArgs) -> u8 {
    match show(args) {
        Ok(()) => 0,
        Err(failure) => failure.report(args.json),
    }
}

fn show(args: &LogsArgs) -> Result<(), Failure> {
    let mut client = Client::connect(&args.place, args.services.first().map(String::as_str))?;
    let lines = args.lines.or(args.follow.then_some(LINES_BEFORE));
    let (services, follow, since_ns) = (args.services.clone(), args.follow, args.since);
    client.send(&Request::Logs(LogsParams { services, follow, since_ns, lines }))?;
    let mut printer = Printer::new(args);
    let mut end = Instant::now() + args.timeout;
    loop {
        let patience = if printer.out.buffer().is_empty() { NO_END } else { PATIENCE };
        match client.next(patience, end) {
            Ok(Message::Result(_)) => {
                printer.flush();
                return Ok(());
            }
            Ok(Message::Notification(method, params)) => {
                printer.notice(&method, params);
                // From here on it may be idle for as long as the services are.
                end = Instant::now() + if args.follow { NO_END } else { args.timeout };
            }
            Ok(Message::Quiet) => printer.flush(),
            Err(failure) => {
                printer.flush();
                return Err(failure);
            }
        }
        if printer.is_abandoned {
            return Ok(());
        }
    }
}

struct Printer {
    out: BufWriter<io::Stdout>,
    json: bool,
    colours: bool,
    /// The services that were asked for; none: all.
    asked: Vec<String>,
    /// Each line has the name of its service before it, as there are others, or may be.
    names: bool,
    width: usize,
    /// Nobody reads it any more.
    is_abandoned: bool,
}

impl Printer {
    fn new(args: &LogsArgs) -> Self {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let out = BufWriter::with_capacity(64 * 1024, io::stdout());
        Self { out, json: args.json, colours, asked: args.services.clone(), names: true, width: 0, is_abandoned: false }
    }

    fn notice(&mut self, method: &str, params: Value) {
        let done = match method {
            "services" => {
                let names = params["services"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let names: Vec<&str> = names.collect();
                self.names = names.len() != 1 || names != self.asked;
                self.width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(NAME_CHARS_MAX);
                Ok(())
            }
            "line" | "dropped" if self.json => writeln!(self.out, "{params}"),
            "line" => self.line(&params),
            "dropped" => {
                let name = params["service"].as_str().unwrap_or_default();
                let text = format!("-- {} dropped --", counted(params["dropped"].as_u64().unwrap_or_default(), "line"));
                self.name(name).and_then(|()| writeln!(self.out, "{text}"))
            }
            _ => Ok(()),
        };
        self.is_abandoned |= done.is_err();
    }

    /// As it was written, byte by byte.
    fn line(&mut self, params: &Value) -> io::Result<()> {
        self.name(params["service"].as_str().unwrap_or_default())?;
        match &params["text"] {
            Value::String(text) => self.out.write_all(text.as_bytes())?,
            bytes => {
                let bytes = bytes.as_array().into_iter().flatten().filter_map(Value::as_u64);
                self.out.write_all(&bytes.map(|byte| byte as u8).collect::<Vec<_>>())?;
            }
        }
        self.out.write_all(b"\n")
    }

    fn name(&mut self, name: &str) -> io::Result<()> {
        let width = self.width;
        match (self.names, self.colours) {
            (false, _) => Ok(()),
            (true, false) => write!(self.out, "{name:width$} | "),
            (true, true) => {
                let colour = COLOURS[name.bytes().map(usize::from).sum::<usize>() % COLOURS.len()];
                write!(self.out, "\x1b[{colour}m{name:width$} |\x1b[0m ")
            }
        }
    }

    fn flush(&mut self) {
        self.is_abandoned |= self.out.flush().is_err();
    }
}
