//! What a daemon says in logs: one event for each level and kind, since each costs most of a kilobyte.

use crate::protocol::{HandoffId, Message};
use std::fmt::Display;

/// The handoff goes on.
pub(super) fn step(handoff_id: HandoffId, what: &str) {
    tracing::info!(target: "handoff", handoff_id = handoff_id.0, "{what}");
}

/// Something went wrong, and the daemon goes on without it.
pub(super) fn trouble(error: &dyn Display, what: &str) {
    warn(None, error, what);
}

/// This handoff will not be, and the daemon goes on.
pub(super) fn undone(handoff_id: HandoffId, why: &dyn Display, what: &str) {
    warn(Some(handoff_id), why, what);
}

fn warn(handoff_id: Option<HandoffId>, error: &dyn Display, what: &str) {
    tracing::warn!(target: "handoff", handoff_id = handoff_id.map(|id| id.0), %error, "{what}");
}

/// What should not be, in this handoff or outside of one.
pub(super) fn failed(handoff_id: Option<HandoffId>, error: &dyn Display, what: &str) {
    tracing::error!(target: "handoff", handoff_id = handoff_id.map(|id| id.0), %error, "{what}");
}

/// It did not work, and does no harm.
pub(super) fn trifle(message: Option<&Message>, error: &dyn Display, what: &str) {
    tracing::debug!(target: "handoff", name = message.map(Message::name), %error, "{what}");
}

/// It was sent, or has come.
pub(super) fn message(message: &Message, what: &str) {
    tracing::trace!(target: "handoff", name = message.name(), handoff_id = message.id().0, "{what}");
}

/// A message that is not for whoever reads it, from this process if that is not known from the session.
pub(super) fn dropped(message: &Message, pid: Option<i32>, what: &str) {
    tracing::warn!(target: "handoff", name = message.name(), pid, "{what}");
}

/// So many connections, and so much state, go no further.
pub(super) fn lost(connections: u64, blobs: Option<u64>, why: Option<&str>, what: &str) {
    tracing::warn!(target: "handoff", connections, blobs, why, "{what}");
}
