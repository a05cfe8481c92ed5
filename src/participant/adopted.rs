//! A supervisor that has no session asks for one: it was restarted, or the session was cut.

use super::core::{Core, Machine, Source, Timer, add, remove};
use super::trace;
use crate::channel::{Channel, ChannelError};
use crate::limits::{CONTROL_WATCH, LISTENERS_IN_MESSAGE_MAX};
use crate::protocol::message::{AdoptAck, AdoptListeners, Message, Side};
use crate::protocol::{HandoffId, incumbent, successor};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

impl Core {
    /// Somebody connects to the control path.
    pub(super) fn greet(&mut self) {
        let hello = self.hello(Side::Incumbent);
        let (asking, accepted) = self.control.greet(&hello);
        for asking in asking {
            let _ = add(&self.sources, asking, Source::Asking); // not watched, it is not adopted; it asks again
        }
        if let Err(error) = accepted {
            self.rest_control(&error);
        }
    }

    /// While there is no supervisor, the next one must find this daemon, also if its runtime directory was wiped.
    pub(super) fn tend_control(&mut self) {
        if self.successor().is_some() && !self.has_won() {
            return; // the path is the incumbent's until the commit
        }
        self.publish_control();
        if self.session.is_some() || self.end.is_some() || self.control.listener().is_none() {
            return;
        }
        let serving = self.incumbent_phase() == Some(incumbent::Phase::Serving);
        if serving && self.control.is_dead() {
            self.rebind_control();
        }
        self.timers.arm(Timer::Control, monotonic_ns() + nanoseconds(CONTROL_WATCH));
    }

    /// Somebody who connected has said what for.
    pub(super) fn admit(&mut self) {
        while let Some((channel, version)) = self.control.adopted() {
            self.adopt(channel, version);
        }
    }

    /// The session before, if there is one, ends with everything unread in it: what a supervisor has said that is gone must
    /// not mix with what this one says.
    fn adopt(&mut self, channel: Channel, version: u16) {
        tracing::info!(target: "handoff", "adopted by a supervisor");
        self.close_session();
        remove(&self.sources, channel.as_fd());
        if let Err(error) = self.install(channel) {
            return trace::trouble(&error, "not adopted");
        }
        let listeners = Arc::clone(&self.listeners);
        let ack = AdoptAck {
            version,
            pid: std::process::id(),
            generation: 0,
            phase: 0,
            id: HandoffId::COLD,
            listeners: u16::try_from(listeners.0.len()).unwrap_or(u16::MAX),
        };
        match &self.machine {
            Machine::Successor(_) => self.feed_successor(successor::Input::Adopted(ack)),
            Machine::Incumbent(_) => self.feed_incumbent(incumbent::Input::Adopted(ack)),
        }
        let Some(session) = &mut self.session else { return };
        if let Err(error) = send_listeners(session, &listeners.0) {
            trace::trouble(&error, "the listeners can not be handed over");
            self.lose_session("the supervisor can not take the listeners");
        }
    }
}

fn send_listeners(session: &mut Channel, listeners: &[(String, OwnedFd)]) -> Result<(), ChannelError> {
    for part in listeners.chunks(LISTENERS_IN_MESSAGE_MAX) {
        let names = part.iter().map(|(name, _)| name.clone()).collect();
        let fds: Vec<BorrowedFd<'_>> = part.iter().map(|(_, fd)| fd.as_fd()).collect();
        session.send(&Message::AdoptListeners(AdoptListeners { names }), &fds)?;
    }
    Ok(())
}
