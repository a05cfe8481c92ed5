//! The transfer socket while the handoff is under way.

use crate::channel::Incoming;
use crate::error::Error;
use crate::limits::FRAMES_READ_MAX;
use crate::participant::core::{Core, Machine, remove};
use crate::participant::trace;
use crate::protocol::{HandoffId, Message, incumbent};
use crate::sys::{crash, fork};
use std::os::fd::AsFd;

impl Core {
    /// Reads what O and N say to each other directly.
    pub(in crate::participant) fn read_transfer(&mut self) {
        for _ in 0..FRAMES_READ_MAX {
            let role = self.role();
            let Some(transfer) = self.link.as_mut().and_then(|link| link.transfer.as_mut()) else { return };
            let incoming = transfer.receive();
            if let Ok(Incoming::Message(message, ..)) = &incoming {
                crash::point(role, format_args!("receive {} from the other daemon", message.name()));
            }
            match (incoming, &self.machine) {
                (Ok(Incoming::Message(Message::Gate(gate), mut fds, _)), Machine::Successor(_))
                    if self.is_current(gate.id) =>
                {
                    self.note_sent(gate.sent);
                    self.gate = Some(fds.pop().ok_or_else(|| Error::no_room("the incumbent's gate", "this process")));
                }
                (Ok(Incoming::Message(Message::Serving(serving), ..)), Machine::Incumbent(_))
                    if self.is_current(serving.id) =>
                {
                    self.feed_incumbent(incumbent::Input::SuccessorServing);
                }
                (
                    Ok(Incoming::Message(m @ (Message::Connections(_) | Message::State(_)), fds, _)),
                    Machine::Successor(_),
                ) if self.is_current(m.id()) => {
                    self.receive(m, fds);
                }
                (Ok(Incoming::Message(Message::Taken(taken), ..)), Machine::Incumbent(_))
                    if self.is_current(taken.id) =>
                {
                    self.on_taken(taken.batch);
                }
                (Ok(Incoming::Message(message, ..)), _) => {
                    trace::dropped(&message, None, "dropped: not for the transfer socket");
                }
                (Ok(Incoming::Nothing), _) => return,
                (Ok(Incoming::End) | Err(_), _) => return self.close_transfer(), // the pidfd tells who died
            }
        }
    }

    fn is_current(&self, id: HandoffId) -> bool {
        self.link.as_ref().is_some_and(|link| link.id == id)
    }

    pub(in crate::participant) fn close_transfer(&mut self) {
        if let Some(transfer) = self.link.as_mut().and_then(|link| link.transfer.take()) {
            fork::release(transfer.as_fd());
            remove(&self.sources, transfer.as_fd());
        }
    }
}
