//! Many timers on one timerfd.

use super::clock::monotonic_ns;
use nix::sys::time::TimeSpec;
use nix::sys::timer::TimerSetTimeFlags;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Timers, each of which is armed at most once; due times are absolute `CLOCK_MONOTONIC` nanoseconds.
#[derive(Debug)]
pub struct Timers<T> {
    due: Vec<(T, u64)>,
    fd: TimerFd,
    /// What the timerfd is set to; it may be earlier than needed, which costs one wake-up and spares a system call.
    set: u64,
}

/// What is armed.
impl<T: Serialize> Serialize for Timers<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.due.serialize(serializer)
    }
}

/// The same, on a timerfd of its own.
impl<'de, T: Copy + PartialEq + Deserialize<'de>> Deserialize<'de> for Timers<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let due = Vec::<(T, u64)>::deserialize(deserializer)?;
        let mut timers = Self::new().map_err(D::Error::custom)?;
        due.into_iter().for_each(|(timer, due_ns)| timers.arm(timer, due_ns));
        Ok(timers)
    }
}

impl<T: Copy + PartialEq> Timers<T> {
    /// No timer is armed (timerfd_create(2)).
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self { due: Vec::new(), fd: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, set: u64::MAX })
    }

    /// Starts a timer anew.
    pub fn arm(&mut self, timer: T, due_ns: u64) {
        self.disarm(timer);
        self.due.push((timer, due_ns));
        self.set_to(due_ns.min(self.set));
    }

    /// Stops a timer; nothing if it is not armed.
    pub fn disarm(&mut self, timer: T) {
        self.due.retain(|(armed, _)| *armed != timer);
    }

    /// Whether this timer is armed.
    pub fn is_armed(&self, timer: T) -> bool {
        self.due.iter().any(|(armed, _)| *armed == timer)
    }

    /// When the next timer is due, if any is armed.
    pub fn earliest(&self) -> Option<u64> {
        self.due.iter().map(|(_, due)| *due).min()
    }

    /// Whether a timer is due.
    pub fn is_due(&self) -> bool {
        let now = monotonic_ns();
        self.set <= now && self.due.iter().any(|(_, due)| *due <= now)
    }

    /// A timer that is due, which is thereby disarmed.
    pub fn next_due(&mut self) -> Option<T> {
        let now = monotonic_ns();
        if self.set > now {
            return None;
        }
        if let Some(index) = self.due.iter().position(|(_, due)| *due <= now) {
            return Some(self.due.swap_remove(index).0);
        }
        self.set = u64::MAX;
        match self.earliest() {
            Some(next) => self.set_to(next),
            None => drop(self.fd.unset()),
        }
        None
    }

    fn set_to(&mut self, due_ns: u64) {
        if due_ns == self.set {
            return;
        }
        self.set = due_ns;
        let at = TimeSpec::from_duration(Duration::from_nanos(due_ns.max(1)));
        // It fails only for a time that is none.
        let _ = self.fd.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME);
    }
}

impl<T> AsFd for Timers<T> {
    /// Readable when [`Timers::next_due`] has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
