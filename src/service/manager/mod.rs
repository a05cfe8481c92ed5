//! Our own manager: systemd, or whatever else has started this process with `NOTIFY_SOCKET` (sd_notify(3)). It hears when everything is up,
//! what happens, that this loop turns (`WATCHDOG=1`), and that something takes its time (`EXTEND_TIMEOUT_USEC=`); and it keeps the listeners
//! (`FDSTORE=1`), so that they outlive this process and all of its services.
//!
//! `MAINPID=` is never said: this process replaces itself by execve(2), in the same pid. Nothing here waits, and a manager that is gone or
//! does not read is no reason for anything.

mod front;
mod summary;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

pub use front::Condition;

use crate::limits::{MANAGER_MESSAGES_MAX, MANAGER_RETRY};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::env::{FromManager, take_from_manager};
use crate::sys::fd::identify;
use crate::sys::notify::send_to;
use crate::sys::seqpacket::DESCRIPTORS_MAX;
use front::Front;

use super::given;

/// What it has been told.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Manager {
    /// None: there is none.
    address: Option<OsString>,
    front: Front,
    /// What it had no room for, in order.
    unsent: Vec<Message>,
    /// When to try again, in absolute `CLOCK_MONOTONIC` nanoseconds.
    retry_ns: u64,
    /// The listeners that it keeps: their names, device and inode.
    kept: BTreeMap<String, Vec<(u64, u64)>>,
    troubles: Vec<String>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Message {
    text: String,
    #[serde(with = "crate::sys::inherit::fds")]
    fds: Vec<OwnedFd>,
}

impl Manager {
    /// Who started this process, as the environment says, and what it gave us. What is for this process alone is removed from the environment:
    /// no service inherits it.
    ///
    /// Call it at the start of main, before threads are made and descriptors are opened.
    pub fn take() -> Self {
        let FromManager { notify_socket, watchdog_usec, sockets } = take_from_manager();
        let watchdog = watchdog_usec.map(Duration::from_micros).filter(|_| notify_socket.is_some());
        let mut manager = Self {
            address: notify_socket,
            front: Front::new(watchdog.map(nanoseconds)),
            unsent: Vec::new(),
            retry_ns: 0,
            kept: BTreeMap::new(),
            troubles: Vec::new(),
        };
        match sockets {
            Ok(sockets) => given::keep(sockets),
            Err(error) => manager.troubles.push(error.to_string()),
        }
        manager
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.address.is_some()
    }

    /// Tells it what is new, and that this loop turns.
    pub fn turn(&mut self, condition: &Condition) {
        if self.is_there() {
            let text = self.front.turn(condition, monotonic_ns());
            self.say(text);
            self.flush();
        }
    }

    /// In what time [`Self::turn`] must be called at the latest.
    pub fn due_in(&self) -> Option<Duration> {
        let retry_ns = (!self.unsent.is_empty()).then_some(self.retry_ns);
        let due_ns = self.is_there().then(|| self.front.due_ns()).flatten().into_iter().chain(retry_ns).min()?;
        Some(Duration::from_nanos(due_ns.saturating_sub(monotonic_ns())))
    }

    /// The configuration is being read anew (`RELOADING=1`); after [`Self::reloaded`] it is `READY=1` again.
    pub fn reloading(&mut self) {
        let text = self.front.reloading(monotonic_ns());
        self.say(text);
    }

    /// The other half.
    pub fn reloaded(&mut self) {
        let text = self.front.reloaded();
        self.say(text);
    }

    /// It is to keep these listeners, all of a name together, and no others: what is new is sent to it (`FDSTORE=1`), what is not among
    /// them is removed (`FDSTOREREMOVE=1`).
    pub fn keep<'a>(&mut self, listeners: impl IntoIterator<Item = (String, Vec<BorrowedFd<'a>>)>) {
        if !self.is_there() {
            return;
        }
        let mut gone = std::mem::take(&mut self.kept);
        for (name, fds) in listeners {
            let inodes: Vec<_> = fds.iter().filter_map(|fd| identify(*fd).ok()).map(|(_, inode, _)| inode).collect();
            match gone.remove(&name) {
                Some(before) if before == inodes => {}
                Some(_) => {
                    self.forget(&name);
                    self.store(&name, &fds);
                }
                None => self.store(&name, &fds),
            }
            self.kept.insert(name, inodes);
        }
        gone.keys().for_each(|name| self.forget(name));
        self.flush();
    }

    /// It need not keep what has this name any more.
    pub fn forget(&mut self, name: &str) {
        self.push(format!("FDSTOREREMOVE=1\nFDNAME={name}"), Vec::new());
        self.flush();
    }

    /// What went wrong since it was asked last, for people.
    pub fn troubles(&mut self) -> Vec<String> {
        std::mem::take(&mut self.troubles)
    }

    /// A listener that a daemon has shut down is repaired, and must not be dropped meanwhile: hence `FDPOLL=0`.
    fn store(&mut self, name: &str, fds: &[BorrowedFd<'_>]) {
        for part in fds.chunks(DESCRIPTORS_MAX) {
            let part: std::io::Result<Vec<OwnedFd>> = part.iter().map(BorrowedFd::try_clone_to_owned).collect();
            match part {
                Ok(fds) => self.push(format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), fds),
                Err(error) => self.troubles.push(format!("listener '{name}' is not left with the manager: {error}")),
            }
        }
    }

    fn say(&mut self, text: Option<String>) {
        text.into_iter().for_each(|text| self.push(text, Vec::new()));
    }

    fn push(&mut self, text: String, fds: Vec<OwnedFd>) {
        if self.is_there() && self.unsent.len() < MANAGER_MESSAGES_MAX {
            self.unsent.push(Message { text, fds });
        }
    }

    /// In order; what it has no room for waits.
    fn flush(&mut self) {
        let Some(address) = self.address.clone() else { return };
        while let Some(Message { text, fds }) = self.unsent.first() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match send_to(&address, text.as_bytes(), &fds) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.retry_ns = monotonic_ns().saturating_add(nanoseconds(MANAGER_RETRY));
                    return;
                }
                // It is gone, or this is no address: the message has no reader. A new one would be told by its own `NOTIFY_SOCKET`.
                Err(error) => tracing::debug!(target: "handoff", "NOTIFY_SOCKET {}: {error}", address.display()),
            }
            self.unsent.remove(0);
        }
    }
}
