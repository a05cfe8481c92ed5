//! The events of a handoff in logs. Their names and fields are stable.

use crate::protocol::Message;

/// A message was sent, or has come: `pid` is the process at the other end.
pub(super) fn message(message: &Message, service: &str, pid: i32) {
    let handoff_id = message.id().0;
    match message {
        Message::PrepareHandoff(m) => {
            tracing::info!(name: "prepare", target: "handoff", handoff_id, service, pid, deadline_ns = m.deadline_ns, "prepare");
        }
        Message::Drained(m) => {
            let connections_open = m.connections_open;
            tracing::info!(name: "drained", target: "handoff", handoff_id, service, pid, connections_open, "drained");
        }
        Message::SealRequest(_) => tracing::info!(name: "seal", target: "handoff", handoff_id, service, pid, "seal"),
        Message::SealComplete(_) => {
            tracing::info!(name: "seal_complete", target: "handoff", handoff_id, service, pid, "seal complete");
        }
        Message::Ready(m) => {
            let unhealthy = m.readiness.unhealthy;
            let detail = &m.readiness.detail;
            tracing::info!(name: "ready", target: "handoff", handoff_id, service, pid, unhealthy, detail, "ready");
        }
        Message::Commit(_) => tracing::info!(name: "commit", target: "handoff", handoff_id, service, pid, "commit"),
        Message::ResumeAfterAbort(_) => {
            tracing::info!(name: "resume", target: "handoff", handoff_id, service, pid, "resume");
        }
        Message::Reject(m) => {
            tracing::warn!(name: "reject", target: "handoff", handoff_id, service, pid, why = m.text, "rejected");
        }
        _ => {}
    }
}

/// The word was revoked: `pid` is the successor that is not wanted any more, if one was started.
pub(super) fn abort(handoff_id: u64, service: &str, pid: Option<i32>) {
    tracing::warn!(name: "abort", target: "handoff", handoff_id, service, pid, "abort");
}

/// How it ended.
pub(super) fn outcome(handoff_id: u64, service: &str, pid: i32, result: &str, reason: &str) {
    tracing::info!(name: "outcome", target: "handoff", handoff_id, service, pid, result, reason, "outcome");
}

/// Something is wrong that no outcome tells of; `pid` if it is about a process.
pub(super) fn trouble(service: &str, pid: Option<i32>, what: &str) {
    tracing::warn!(name: "trouble", target: "handoff", service, pid, "{what}");
}
