//! What an operator sees: events, history, metrics, the doctor, and what commands show.

mod display;
mod doctor;
mod events;
mod exposition;
mod history;
mod manuals;
mod metrics;
mod preview;
#[path = "../support/mod.rs"]
mod support;
mod units;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use support::{PATIENCE, Service};

/// A command of this service, which ends by itself.
fn output(service: &Service, subcommand: &str, arguments: &[&str]) -> Output {
    service.command(subcommand).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What it printed, as JSON.
#[track_caller]
fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A client of the control socket.
struct Client {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Client {
    fn connect(service: &Service) -> Self {
        Self::to(&service.path("run/kv.sock"))
    }

    fn to(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        Self { stream, lines }
    }

    /// Asks, and gives the answer; notifications before it are passed over.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "handoff": 1, "id": 1, "method": method, "params": params });
        self.stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        loop {
            let message = self.next().unwrap();
            if message.get("id").is_some() {
                return message;
            }
        }
    }

    /// The next message; none at the end.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// It hears of everything from now on.
    fn following(service: &Service) -> Self {
        let mut client = Self::connect(service);
        assert_eq!(client.ask("events", json!({}))["result"]["following"], true);
        client
    }

    /// The next event of this name.
    fn event(&mut self, name: &str) -> Value {
        loop {
            let message = self.next().unwrap_or_else(|| panic!("the end before {name}"));
            if message["params"]["event"] == name {
                return message["params"].clone();
            }
        }
    }
}
