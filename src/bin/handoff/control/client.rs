//! A command's end of the control socket. It may wait: it has nothing else to do.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use handoff::service::instance::{left_alone, running};
use handoff::service::paths::{RuntimeDir, check_name};
use serde_json::Value;

use super::{ErrorCode, Request, request_line};
use crate::args::Place;
use crate::exit::{ERROR, Failure, NO_SUCH_SERVICE, NOT_RUNNING, TIMED_OUT, USAGE};

/// What comes back.
pub enum Message {
    /// Something on the way: method and parameters.
    Notification(String, Value),
    /// The answer.
    Result(Value),
    /// Nothing came for a moment.
    Quiet,
}

#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    inbox: Vec<u8>,
}

/// Asks the supervisor, and waits so long for its answer.
pub fn ask(place: &Place, service: Option<&str>, request: &Request, timeout: Duration) -> Result<Value, Failure> {
    let end = Instant::now() + timeout;
    let mut client = Client::connect(place, service)?;
    client.send(request)?;
    client.answer(end)
}

impl Client {
    /// Finds the supervisor: by its socket, its name, the service's name, or because it is the only one.
    pub fn connect(place: &Place, service: Option<&str>) -> Result<Self, Failure> {
        for name in place.name.as_deref().into_iter().chain(service) {
            check_name(name).map_err(|error| Failure::new(USAGE, error.to_string()))?;
        }
        if let Some(path) = &place.socket {
            return Self::open(path)?.ok_or_else(|| not_running(format!("nobody listens at {}", path.display())));
        }
        let dir = RuntimeDir::locate(place.runtime_dir.as_deref())?;
        if let Some(name) = &place.name {
            return Self::open(&dir.socket(name))?.ok_or_else(|| none_named(&dir, name));
        }
        let mut found = Vec::new();
        let names = dir.supervisors()?;
        for name in &names {
            if let Some(client) = Self::open(&dir.socket(name))? {
                found.push((name.as_str(), client));
            }
        }
        let named = found.iter().position(|(name, _)| Some(*name) == service);
        match (named, found.len()) {
            (Some(index), _) => Ok(found.swap_remove(index).1),
            (None, 1) => Ok(found.remove(0).1),
            (None, 0) => {
                match service.or_else(|| names.iter().map(String::as_str).find(|name| left(&dir, name).is_some())) {
                    Some(name) => Err(none_named(&dir, name)),
                    None => Err(not_running(format!("no supervisor runs in {}", dir.path().display()))),
                }
            }
            (None, _) => {
                let names: Vec<_> = found.iter().map(|(name, _)| *name).collect();
                let text = format!("several supervisors run: {}; choose one by --name", names.join(", "));
                Err(Failure::new(USAGE, text))
            }
        }
    }

    /// None if nobody listens.
    fn open(path: &PathBuf) -> Result<Option<Self>, Failure> {
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Some(Self { stream, inbox: Vec::new() })),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                io::ErrorKind::PermissionDenied => {
                    let text =
                        format!("{}: another user's supervisor; only that user and root may command it", show(path));
                    Err(Failure::new(ERROR, text))
                }
                _ => Err(Failure::new(ERROR, format!("cannot connect to {}: {error}", show(path)))),
            },
        }
    }

    pub fn send(&mut self, request: &Request) -> Result<(), Failure> {
        match self.stream.write_all(request_line(1, request).as_bytes()) {
            // Why we were refused may be there to be read.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(lost(&error.to_string())),
            _ => Ok(()),
        }
    }

    /// The next message, or [`Message::Quiet`] after `patience`; None at the end of the connection.
    pub fn follow(&mut self, patience: Duration) -> Result<Option<Message>, Failure> {
        loop {
            if let Some(line) = self.take_line() {
                return understand(&line).map(Some);
            }
            self.stream.set_read_timeout(Some(patience)).map_err(|error| lost(&error.to_string()))?;
            let mut part = [0; 16 * 1024];
            match self.stream.read(&mut part) {
                Ok(0) => return Ok(None),
                Ok(len) => self.inbox.extend_from_slice(&part[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(Message::Quiet)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&error.to_string())),
            }
        }
    }

    /// As [`Self::follow`]; an error after `end`, or if the connection ends.
    pub fn next(&mut self, patience: Duration, end: Instant) -> Result<Message, Failure> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::new(
                TIMED_OUT,
                "timed out: the supervisor has not answered; a handoff that it has begun goes on",
            ));
        }
        let wait = patience.min(left).max(Duration::from_millis(1));
        self.follow(wait)?.ok_or_else(|| lost("it ended"))
    }

    /// The answer alone.
    pub fn answer(&mut self, end: Instant) -> Result<Value, Failure> {
        loop {
            if let Message::Result(result) = self.next(Duration::from_secs(1), end)? {
                return Ok(result);
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.inbox.iter().position(|byte| *byte == b'\n')?;
        Some(self.inbox.drain(..=end).collect())
    }
}

fn understand(line: &[u8]) -> Result<Message, Failure> {
    let mut value: Value =
        serde_json::from_slice(line).map_err(|error| Failure::new(ERROR, format!("the answer is no JSON: {error}")))?;
    if let Some(error) = value.get("error") {
        let code = error["code"].as_i64().unwrap_or_default();
        let message = error["message"].as_str().unwrap_or("unknown error");
        let exit = match code {
            _ if code == ErrorCode::NoSuchService as i64 => NO_SUCH_SERVICE,
            _ if code == ErrorCode::WhichService as i64 => USAGE,
            _ => ERROR,
        };
        return Err(Failure::new(exit, message));
    }
    if let Some(method) = value.get("method").and_then(Value::as_str) {
        let method = method.to_owned();
        return Ok(Message::Notification(method, value["params"].take()));
    }
    Ok(Message::Result(value["result"].take()))
}

fn not_running(text: String) -> Failure {
    Failure::new(NOT_RUNNING, format!("not running: {text}"))
}

/// It may have been killed, and its daemon live on.
fn none_named(dir: &RuntimeDir, name: &str) -> Failure {
    if let Some((pid, command)) = running(dir, name) {
        let text = format!(
            "not reachable: process {pid} ({command}) is the supervisor '{name}', but nobody listens at its socket: it is \
             starting or ends, or the socket was removed"
        );
        return Failure::new(NOT_RUNNING, text);
    }
    not_running(match left(dir, name) {
        Some((pid, command)) => format!(
            "no supervisor named '{name}' runs, but process {pid} ({command}) of it lives; 'handoff run' or 'handoff \
             up', started as before, takes it over; or end it (kill {pid})"
        ),
        None => format!("no supervisor named '{name}' runs in {}", dir.path().display()),
    })
}

/// The name may be that of no file.
fn left(dir: &RuntimeDir, name: &str) -> Option<(i32, String)> {
    check_name(name).ok().and_then(|()| left_alone(dir, name))
}

fn lost(why: &str) -> Failure {
    Failure::new(ERROR, format!("the connection to the supervisor is lost: {why}"))
}

fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}
