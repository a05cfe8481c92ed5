//! Overlap mode, N's side: it serves already, and O, which drains, gives it connections.
//!
//! A connection is N's from the moment in which it was sent. N says that it has a batch before its application sees any of it.

use crate::channel::{Channel, Incoming};
use crate::error::{Error, Result};
use crate::limits::FRAMES_READ_MAX;
use crate::participant::core::{Core, Source, add, remove};
use crate::participant::trace;
use crate::protocol::message::{Message, Mode};
use crate::protocol::{HandoffId, transfer::Connections};
use crate::sys::{crash, fork};
use std::os::fd::{AsFd, OwnedFd};

/// The O of this process's own handoff, while it may give.
#[derive(Debug)]
pub(in crate::participant) struct Donor {
    id: HandoffId,
    transfer: Channel,
}

impl Core {
    /// The handoff is over for this process, but O may give what it has.
    pub(in crate::participant) fn keep_donor(&mut self) {
        let id = self.handoff_id();
        let transfer = self.link.as_mut().filter(|_| self.mode == Mode::Overlap).and_then(|link| link.transfer.take());
        let Some(transfer) = transfer else { return };
        remove(&self.sources, transfer.as_fd());
        let added = add(&self.sources, transfer.as_fd(), Source::Donor);
        self.donor = Some(Donor { id, transfer });
        if let Err(error) = added {
            trace::trouble(&error, "connections of the process before can not be taken");
            self.close_donor();
        }
    }

    /// O gives, or is gone.
    pub(in crate::participant) fn read_donor(&mut self) {
        for _ in 0..FRAMES_READ_MAX {
            let Some(donor) = &mut self.donor else { return };
            match donor.transfer.receive() {
                Ok(Incoming::Message(Message::Connections(m), fds, _)) if m.id == donor.id => self.take_gift(m, fds),
                Ok(Incoming::Message(message, ..)) => {
                    trace::dropped(&message, None, "dropped: not for a daemon that serves");
                }
                Ok(Incoming::Nothing) => return,
                Ok(Incoming::End) | Err(_) => return self.close_donor(),
            }
        }
    }

    fn take_gift(&mut self, message: Connections, fds: Vec<OwnedFd>) {
        crash::point('N', format_args!("receive Connections from the other daemon"));
        match self.try_receive(Message::Connections(message), fds) {
            Ok(answer) => {
                if let Some(donor) = &mut self.donor {
                    let step = format_args!("send {} to the other daemon", answer.name());
                    // O may be dead: they are this process's all the same.
                    let _ = crash::around('N', step, || donor.transfer.send(&answer, &[]));
                }
                self.received.tell();
                self.watch_untaken();
            }
            Err(why) => {
                trace::failed(None, &why, "no more connections are taken from the process before");
                self.close_donor();
            }
        }
    }

    /// Whether the application must hear that connections wait.
    pub(in crate::participant) fn has_gifts_to_tell(&self) -> bool {
        self.mode == Mode::Overlap && self.received.has_news()
    }

    /// This process ends, and with it what it has: what is on the way to it still comes, and nothing after that.
    pub(in crate::participant) fn refuse_gifts(&mut self) -> Result<()> {
        if let Some(donor) = &self.donor {
            donor.transfer.stop_receiving();
        }
        self.read_donor();
        match self.received.waiting() {
            0 => Ok(()),
            waiting => Err(Error::State(format!(
                "connections that came from the process before wait ({waiting}): take them, and give them on"
            ))),
        }
    }

    pub(in crate::participant) fn close_donor(&mut self) {
        if let Some(Donor { transfer, .. }) = self.donor.take() {
            fork::release(transfer.as_fd());
            remove(&self.sources, transfer.as_fd());
        }
    }
}
