//! What a daemon says in logs in more than one place: an event of its own for each would cost most of a kilobyte.

use crate::protocol::{HandoffId, Message, Violation};
use std::fmt::Display;

/// The handoff goes on.
pub(super) fn step(handoff_id: HandoffId, what: &str) {
    tracing::info!(target: "handoff", handoff_id = handoff_id.0, "{what}");
}

/// Something went wrong, and the daemon goes on without it.
pub(super) fn trouble(error: &dyn Display, what: &str) {
    tracing::warn!(target: "handoff", %error, "{what}");
}

/// A transfer can not be what was promised.
pub(super) fn transfer_failed(why: &str, what: &str) {
    tracing::error!(target: "handoff", why, "{what}");
}

/// A message that is not for whoever reads it.
pub(super) fn dropped(message: &Message, what: &str) {
    tracing::warn!(target: "handoff", name = message.name(), "{what}");
}

/// The session is ended for this.
pub(super) fn violation(violation: &Violation) {
    tracing::error!(target: "handoff", %violation, "the supervisor broke the protocol");
}
