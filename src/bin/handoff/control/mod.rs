//! The control socket: JSON-RPC 2.0, one object a line, with the version of this protocol beside it.
//!
//! Request: `{"jsonrpc":"2.0","handoff":1,"id":1,"method":"upgrade","params":{"service":"kv"}}`. Its answer has the same
//! id; before it, `phase` and `progress` come as notifications, and after that of `events` every `event`. Connections are
//! independent: a slow or silent one delays no other, and an answer to `status` waits for no operation.

pub mod client;
pub mod connection;
pub mod server;

use std::path::PathBuf;
use std::time::Duration;

use handoff::service::{Times, Upgrade, WhenDraining};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The version of the requests and answers.
pub const VERSION: u32 = 1;

/// What a command asks of a supervisor.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Request {
    Status(ServiceParam),
    Events(ServiceParam),
    History(ServiceParam),
    Preview(UpgradeParams),
    Upgrade(UpgradeParams),
    Rollback(RollbackParams),
    Start(UnitsParams),
    Stop(UnitsParams),
    Restart(UnitsParams),
    Reload(ReloadParams),
    Add(AddParams),
    Remove(RemoveParams),
    Kill(KillParams),
    Why(ServiceParam),
    Tree(Names),
    Shutdown(ShutdownParams),
    SelfUpgrade(SelfUpgradeParams),
    Logs(LogsParams),
}

/// The methods, as [`Request`] has them.
const METHODS: &[&str] = &[
    "status",
    "events",
    "history",
    "preview",
    "upgrade",
    "rollback",
    "start",
    "stop",
    "restart",
    "reload",
    "add",
    "remove",
    "kill",
    "why",
    "tree",
    "shutdown",
    "self_upgrade",
    "logs",
];

/// Which service; none: all, or the only one.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceParam {
    pub service: Option<String>,
}

/// Services and targets; none: all.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Names {
    pub services: Vec<String>,
}

/// Services and targets; none: the only one.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnitsParams {
    pub services: Vec<String>,
    /// The answer comes when it is so, or will not come to it.
    pub wait: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReloadParams {
    pub dry_run: bool,
}

/// Units that are in no file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AddParams {
    /// What they are written in, as faults show it.
    pub from: String,
    /// What is written there.
    pub text: String,
    /// The answer comes when they are up, or will not come to it.
    #[serde(default)]
    pub wait: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveParams {
    pub services: Vec<String>,
    /// The answer comes when they are gone.
    #[serde(default)]
    pub wait: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KillParams {
    pub services: Vec<String>,
    pub signal: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownParams {
    /// The answer comes at the end.
    pub wait: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfUpgradeParams {
    /// Absolute; none: what the path of the present one leads to now.
    pub binary: Option<PathBuf>,
    /// How long it may wait until nothing is under way that it would disturb.
    pub timeout_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RollbackParams {
    pub service: Option<String>,
    pub when_draining: WhenDraining,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpgradeParams {
    pub service: Option<String>,
    /// Absolute.
    pub binary: Option<PathBuf>,
    pub promote: bool,
    pub force: bool,
    pub deadline_ms: Option<u64>,
    pub drain_grace_ms: Option<u64>,
    pub ready_timeout_ms: Option<u64>,
    pub hello_timeout_ms: Option<u64>,
    pub probation_ms: Option<u64>,
    pub when_draining: WhenDraining,
}

impl UpgradeParams {
    pub fn new(service: Option<String>, upgrade: &Upgrade) -> Self {
        let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let Upgrade { binary, promote, force, times, when_draining } = upgrade.clone();
        Self {
            service,
            binary,
            promote,
            force,
            when_draining,
            deadline_ms: ms(times.deadline),
            drain_grace_ms: ms(times.drain_grace),
            ready_timeout_ms: ms(times.ready),
            hello_timeout_ms: ms(times.hello),
            probation_ms: ms(times.probation),
        }
    }

    pub fn upgrade(&self) -> Upgrade {
        let time = |ms: Option<u64>| ms.map(Duration::from_millis);
        let times = Times {
            deadline: time(self.deadline_ms),
            drain_grace: time(self.drain_grace_ms),
            ready: time(self.ready_timeout_ms),
            hello: time(self.hello_timeout_ms),
            probation: time(self.probation_ms),
        };
        let (binary, promote, when_draining) = (self.binary.clone(), self.promote, self.when_draining);
        Upgrade { binary, promote, force: self.force, times, when_draining }
    }
}

/// Which lines.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogsParams {
    /// Empty: all, also those that come.
    pub services: Vec<String>,
    /// With those that come, until the client goes.
    pub follow: bool,
    /// Not those that were read before: `CLOCK_REALTIME` nanoseconds.
    pub since_ns: Option<u64>,
    /// Of those that are there, the last ones.
    pub lines: Option<usize>,
}

/// Why there is no result. The numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    Parse = -32_700,
    InvalidRequest = -32_600,
    NoSuchMethod = -32_601,
    InvalidParams = -32_602,
    NoSuchService = -32_001,
    WhichService = -32_002,
    WrongVersion = -32_003,
    NotAllowed = -32_004,
    Ended = -32_005,
    Refused = -32_006,
    TooMany = -32_007,
}

/// An answer that is none.
#[derive(Clone, Debug)]
pub struct RpcError {
    pub code: ErrorCode,
    pub message: String,
}

impl RpcError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A line of the wire that carries a request.
pub fn request_line(id: u64, request: &Request) -> String {
    let mut line = json!(request);
    line["jsonrpc"] = json!("2.0");
    line["handoff"] = json!(VERSION);
    line["id"] = json!(id);
    format!("{line}\n")
}

/// The request in a line, and the id of its answer.
pub fn parse_request(line: &[u8]) -> (Value, Result<Request, RpcError>) {
    let mut value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return (Value::Null, Err(RpcError::new(ErrorCode::Parse, format!("no JSON: {error}")))),
    };
    let id = value.get("id").cloned().unwrap_or_default();
    (id, understand(&mut value))
}

fn understand(value: &mut Value) -> Result<Request, RpcError> {
    let version = value.get("handoff").and_then(Value::as_u64);
    if version != Some(VERSION.into()) {
        let message = format!("this supervisor speaks \"handoff\": {VERSION}; use the program of the same version");
        return Err(RpcError::new(ErrorCode::WrongVersion, message));
    }
    let method = value.get("method").and_then(Value::as_str).map(str::to_owned);
    let Some(method) = method else {
        return Err(RpcError::new(ErrorCode::InvalidRequest, "there is no \"method\""));
    };
    if !METHODS.contains(&method.as_str()) {
        let message = format!("there is no method '{method}'; there are {}", METHODS.join(", "));
        return Err(RpcError::new(ErrorCode::NoSuchMethod, message));
    }
    let params = value.get_mut("params").map(Value::take).filter(|params| !params.is_null());
    let request = json!({ "method": method, "params": params.unwrap_or_else(|| json!({})) });
    serde_json::from_value(request).map_err(|error| RpcError::new(ErrorCode::InvalidParams, error.to_string()))
}

/// A line that answers a request.
pub fn answer_line(id: &Value, answer: Result<Value, RpcError>) -> String {
    let mut line = json!({ "jsonrpc": "2.0", "handoff": VERSION, "id": id });
    match answer {
        Ok(result) => line["result"] = result,
        Err(error) => line["error"] = json!({ "code": error.code as i32, "message": error.message }),
    }
    format!("{line}\n")
}

/// A line that tells of something on the way.
pub fn notification_line(method: &str, params: Value) -> String {
    format!("{}\n", json!({ "jsonrpc": "2.0", "handoff": VERSION, "method": method, "params": params }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire() {
        let params = UpgradeParams { service: Some("kv".into()), deadline_ms: Some(5), ..UpgradeParams::default() };
        let line = request_line(7, &Request::Upgrade(params));
        let (id, request) = parse_request(line.trim_end().as_bytes());
        assert_eq!(id, json!(7));
        let Ok(Request::Upgrade(params)) = request else { panic!("{request:?}") };
        assert_eq!((params.service.as_deref(), params.deadline_ms), (Some("kv"), Some(5)));
    }

    #[test]
    fn what_is_wrong_has_a_code() {
        let code = |line: &str| parse_request(line.as_bytes()).1.expect_err(line).code;
        assert_eq!(code("status"), ErrorCode::Parse);
        assert_eq!(code("[]"), ErrorCode::WrongVersion);
        assert_eq!(code(r#"{"handoff":2,"method":"status"}"#), ErrorCode::WrongVersion);
        assert_eq!(code(r#"{"handoff":1}"#), ErrorCode::InvalidRequest);
        assert_eq!(code(r#"{"handoff":1,"method":"fly"}"#), ErrorCode::NoSuchMethod);
        assert_eq!(code(r#"{"handoff":1,"method":"status","params":{"x":1}}"#), ErrorCode::InvalidParams);
        assert!(parse_request(br#"{"handoff":1,"method":"status"}"#).1.is_ok());
    }
}
