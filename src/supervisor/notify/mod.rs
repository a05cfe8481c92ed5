//! `NOTIFY_SOCKET`: what the processes of the service say of themselves, and the descriptors that they leave here.

mod message;

use super::engine::{Due, Engine};
use super::process::{Process, Token};
#[cfg(feature = "program")]
use super::resume::uid_of;
use super::trace::trouble;
use super::unlinked::UNLINKED;
use crate::error::{Error, Result};
use crate::limits::{
    FDSTORE_MAX, NOTIFICATION_BYTES_MAX, NOTIFICATIONS_READ_MAX, REFUSALS_INTERVAL, REFUSALS_LOGGED_MAX,
};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::fd::{is_same_description, poll_now};
use crate::sys::notify::NotifySocket;
use crate::sys::seqpacket::Received;
use crate::sys::session::belongs_to;
use message::Notification;
use nix::poll::PollFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The socket, and what is kept for the next process of the service.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Notify {
    path: Option<PathBuf>,
    socket: Option<NotifySocket>,
    stored: Vec<Stored>,
    refusals: Refusals,
}

/// What was refused lately, so that a daemon that sends without end does not fill the log.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Refusals {
    logged: u32,
    last: String,
    unlogged: u64,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Stored {
    name: String,
    #[serde(with = "crate::sys::inherit::fd")]
    fd: OwnedFd,
    /// Also when nobody is at its other end.
    keep_dead: bool,
}

/// What a process has said of itself last.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Said {
    /// `STATUS=`; empty if it said nothing.
    pub status: String,
    /// `RELOADING=1`, and no `READY=1` since.
    pub reloading: bool,
    /// `STOPPING=1`.
    pub stopping: bool,
}

/// What a process has said of its life.
#[cfg(feature = "program")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Pulse {
    /// When it said `WATCHDOG=1` last, in absolute `CLOCK_MONOTONIC` nanoseconds.
    pub(crate) heard_ns: u64,
    /// `WATCHDOG=trigger`.
    pub(crate) triggered: bool,
    /// `WATCHDOG_USEC=`: how often it wants to say so.
    pub(crate) watchdog: Option<std::time::Duration>,
    /// `EXTEND_TIMEOUT_USEC=`: until when it wants to be waited for, in absolute `CLOCK_MONOTONIC` nanoseconds.
    pub(crate) extended_ns: u64,
}

#[cfg(feature = "program")]
impl Pulse {
    fn note(&mut self, it: &Notification) {
        let now_ns = monotonic_ns();
        if it.alive {
            self.heard_ns = now_ns;
        }
        self.triggered |= it.trigger;
        self.watchdog = it.watchdog.or(self.watchdog);
        let extended_ns = it.extend.map_or(0, |time| now_ns.saturating_add(nanoseconds(time)));
        self.extended_ns = self.extended_ns.max(extended_ns);
    }
}

impl Notify {
    #[cfg(feature = "program")]
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path: Some(path), ..Self::default() }
    }

    /// `NOTIFY_SOCKET`, if there is one.
    pub(super) fn path(&self) -> Option<&Path> {
        self.socket().map(NotifySocket::path)
    }

    /// Somebody has removed its name.
    #[cfg(feature = "program")]
    pub(super) fn is_lost(&self) -> bool {
        self.socket().is_some_and(|socket| !socket.is_there())
    }

    /// Of a supervisor that is gone; nothing may ever be started that needs one again.
    pub(super) fn remove_left(&self) {
        if let Some(path) = self.path.as_ref().filter(|_| UNLINKED && self.socket.is_none()) {
            let _ = NotifySocket::remove_left(path); // or the next bind says so
        }
    }

    fn socket(&self) -> Option<&NotifySocket> {
        self.socket.as_ref().filter(|_| UNLINKED)
    }

    /// Forgets what hung up.
    pub(super) fn forget_dead(&mut self) {
        if UNLINKED {
            self.stored.retain(|stored| stored.keep_dead || !hung_up(stored.fd.as_fd()));
        }
    }

    /// What is kept, in the order in which it came: names and descriptors.
    pub(super) fn stored(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.stored.iter().map(|stored| (stored.name.as_str(), stored.fd.as_fd()))
    }

    fn store(&mut self, name: &str, fds: Vec<OwnedFd>, keep_dead: bool) -> std::result::Result<(), String> {
        for fd in fds {
            if self.stored.iter().any(|stored| is_same_description(&stored.fd, &fd)) {
                continue;
            }
            if self.stored.len() >= FDSTORE_MAX {
                return Err(format!("FDSTORE: {FDSTORE_MAX} descriptors are kept already"));
            }
            self.stored.push(Stored { name: name.to_owned(), fd, keep_dead });
        }
        Ok(())
    }
}

fn hung_up(fd: BorrowedFd<'_>) -> bool {
    poll_now(fd, PollFlags::empty()).is_ok_and(|found| found.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
}

impl Engine {
    /// Binds the socket, or binds it again if somebody has removed its name, for processes of this user.
    pub(super) fn bind_notify(&mut self, uid: Option<u32>) -> Result<()> {
        self.bind_notify_socket()?;
        match (self.unlinked.notify.socket(), uid) {
            (Some(socket), Some(uid)) => socket.give_to(uid).map_err(Error::system("NOTIFY_SOCKET")),
            _ => Ok(()),
        }
    }

    /// The same for the process that runs.
    #[cfg(feature = "program")]
    pub(super) fn bind_notify_again(&mut self) {
        let Some(pid) = self.processes.incumbent.as_ref().map(|process| process.pid) else { return };
        if let Err(error) = self.bind_notify(uid_of(pid)) {
            trouble(&self.service, Some(pid), &error.to_string());
        }
    }

    fn bind_notify_socket(&mut self) -> Result<()> {
        let notify = &mut self.unlinked.notify;
        let is_there = !UNLINKED || notify.socket.as_ref().is_some_and(NotifySocket::is_there);
        let Some(path) = notify.path.as_ref().filter(|_| !is_there) else { return Ok(()) };
        let socket = NotifySocket::bind(path).map_err(Error::system("NOTIFY_SOCKET"))?;
        let watched = self.epoll.add(&socket, Token::Notify.event());
        watched.map_err(|errno| Error::system("cannot watch NOTIFY_SOCKET")(errno.into()))?;
        notify.socket = Some(socket);
        Ok(())
    }

    /// The socket of the program before.
    #[cfg(feature = "program")]
    pub(super) fn watch_notifications(&self) -> nix::Result<()> {
        self.unlinked.notify.socket.as_ref().map_or(Ok(()), |socket| self.epoll.add(socket, Token::Notify.event()))
    }

    /// Reads some of what came; the rest in the next turn.
    pub(super) fn read_notifications(&mut self) {
        let mut buf = [0; NOTIFICATION_BYTES_MAX];
        for _ in 0..NOTIFICATIONS_READ_MAX {
            let Some(socket) = self.unlinked.notify.socket() else { return };
            match socket.receive(&mut buf) {
                Ok(Received::Packet(packet)) => {
                    let Some(sender) = packet.sender else { continue };
                    let notification = Notification::parse(&buf[..packet.len]);
                    self.on_notification(sender.pid, notification, packet.fds);
                }
                Ok(Received::Nothing) => return,
                // An empty one, or one that is too large.
                Ok(Received::End) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::debug!(target: "handoff", service = self.service, "a notification is left out: {error}");
                }
                Err(error) => return trouble(&self.service, None, &format!("NOTIFY_SOCKET: {error}")),
            }
        }
    }

    /// Whose message it is: that of a process of ours, or of one that belongs to it.
    fn process_of_sender(&mut self, pid: i32) -> Option<&mut Process> {
        let is = |process: &&mut Process| process.pid == pid;
        if self.processes.iter().any(|process| process.pid == pid) {
            return self.processes.iter_mut().find(is);
        }
        let is_near = |process: &&mut Process| {
            belongs_to(pid, process.leader) || process.former.iter().any(|former| belongs_to(pid, former.pid))
        };
        self.processes.iter_mut().find(is_near)
    }

    fn on_notification(&mut self, sender: i32, it: Notification, fds: Vec<OwnedFd>) {
        let Some(process) = self.process_of_sender(sender) else {
            tracing::debug!(target: "handoff", pid = sender, "a notification of no process of this service is left out");
            return;
        };
        let (key, pid) = (process.key, process.pid);
        process.said.reloading = (process.said.reloading || it.reloading) && !it.ready;
        process.said.stopping |= it.stopping;
        #[cfg(feature = "program")]
        process.pulse.note(&it);
        if let Some(status) = it.status {
            process.said.status = status;
        }
        if let Some(time) = it.extend {
            self.extend(key, time);
        }
        if let Some(main) = it.main_pid.filter(|main| *main != pid) {
            self.on_main_pid(key, main);
        }
        if it.store || it.remove {
            self.keep(pid, it.store, it.remove, it.name.as_deref(), fds, it.keep_dead);
        }
        if it.ready {
            self.on_ready_word(key);
        }
    }

    /// Whoever links the library has a transfer for that, and takes nothing but sockets at its start.
    fn keep(&mut self, pid: i32, store: bool, remove: bool, name: Option<&str>, fds: Vec<OwnedFd>, keep_dead: bool) {
        let said_hello = self.machine.incumbent_said_hello();
        let notify = &mut self.unlinked.notify;
        let kept = match (store, remove) {
            _ if said_hello => Err("FDSTORE: this daemon links libhandoff, which has another way for that".to_owned()),
            (true, _) => notify.store(name.unwrap_or("stored"), fds, keep_dead),
            (false, true) => {
                notify.stored.retain(|stored| Some(stored.name.as_str()) != name);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(why) = kept {
            self.refuse_notification(pid, why);
        }
    }

    /// Says so; the same again, and what is too much, is only counted for a while.
    pub(super) fn refuse_notification(&mut self, pid: i32, why: String) {
        let refusals = &mut self.unlinked.notify.refusals;
        let is_lately = self.timers.is_armed(Due::Refusals);
        if is_lately && (refusals.last == why || refusals.logged >= REFUSALS_LOGGED_MAX) {
            refusals.unlogged += 1;
            return;
        }
        trouble(&self.service, Some(pid), &why);
        (refusals.logged, refusals.last) = (refusals.logged + 1, why);
        if !is_lately {
            self.timers.arm(Due::Refusals, monotonic_ns().saturating_add(nanoseconds(REFUSALS_INTERVAL)));
        }
    }

    /// While there are more, the next ones are counted, too.
    pub(super) fn count_refusals(&mut self) {
        if !UNLINKED {
            return;
        }
        let Refusals { last, unlogged, .. } = std::mem::take(&mut self.unlinked.notify.refusals);
        if unlogged > 0 {
            let seconds = REFUSALS_INTERVAL.as_secs();
            trouble(&self.service, None, &format!("{unlogged} more messages like this one in {seconds} s: {last}"));
            self.unlinked.notify.refusals.last = last;
            self.timers.arm(Due::Refusals, monotonic_ns().saturating_add(nanoseconds(REFUSALS_INTERVAL)));
        }
    }
}
