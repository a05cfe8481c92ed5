//! Exit codes: the same for ever.

use handoff::service::Ended;
use nix::errno::Errno;
use serde_json::{Value, json};

pub const ERROR: u8 = 1;
pub const USAGE: u8 = 2;
pub const NOT_RUNNING: u8 = 3;
pub const NO_SUCH_SERVICE: u8 = 4;
pub const TIMED_OUT: u8 = 5;
pub const ITSELF_FAILED: u8 = 125;
pub const CANNOT_EXECUTE: u8 = 126;
pub const NOT_FOUND: u8 = 127;

/// Of a command that did not come to an outcome.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub text: String,
}

impl Failure {
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Says it, on standard error; with `json` on standard output, too, for programs.
    pub fn report(&self, json: bool) -> u8 {
        if json {
            crate::text::print(&self.json().to_string());
        }
        eprintln!("handoff: {}", self.text);
        self.code
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let kind = match self.code {
            USAGE => "usage",
            NOT_RUNNING => "not_running",
            NO_SUCH_SERVICE => "no_such_service",
            TIMED_OUT => "timed_out",
            _ => "error",
        };
        json!({ "error": { "kind": kind, "message": self.text, "exit": self.code } })
    }
}

impl From<handoff::Error> for Failure {
    fn from(error: handoff::Error) -> Self {
        Self::new(ERROR, error.to_string())
    }
}

/// Of `upgrade`, for the result in an outcome.
pub fn of_result(result: &str) -> u8 {
    match result {
        "committed" => 0,
        "rolled_back" => 10,
        "reverted" => 11,
        "started_cold" => 12,
        "refused" => 13,
        "undecided" => 14,
        _ => ERROR,
    }
}

/// Of `run`, when the daemon ended for good.
pub fn of_daemon(ended: &Ended) -> u8 {
    match (ended.errno, ended.status) {
        (Some(errno), _) => of_exec(errno),
        (None, Some(status)) => match (status.code, status.signal) {
            (Some(code), _) => code as u8,
            (None, Some(signal)) => (128 + signal) as u8,
            (None, None) => ITSELF_FAILED,
        },
        (None, None) => ITSELF_FAILED,
    }
}

/// Of a program that can not be executed, as shells and env(1) do it.
pub fn of_exec(errno: i32) -> u8 {
    if errno == Errno::ENOENT as i32 { NOT_FOUND } else { CANNOT_EXECUTE }
}
