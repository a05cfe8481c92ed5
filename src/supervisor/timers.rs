//! The timers of the machine on one timerfd.

use crate::protocol::supervisor::{Peer, Timer};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

const ALL: [Timer; 11] = [
    Timer::Hello,
    Timer::Drain,
    Timer::Ready,
    Timer::Serving,
    Timer::Deadline,
    Timer::Liveness(Peer::Incumbent),
    Timer::Liveness(Peer::Successor),
    Timer::Lost(Peer::Incumbent),
    Timer::Lost(Peer::Successor),
    Timer::AbortGrace,
    Timer::Retire,
];

/// When each timer is due, in absolute `CLOCK_MONOTONIC` nanoseconds.
#[derive(Debug)]
pub(super) struct Timers {
    due: [Option<u64>; ALL.len()],
    fd: TimerFd,
    /// What the timerfd is set to.
    set_to: Option<u64>,
}

impl Timers {
    pub(super) fn new() -> io::Result<Self> {
        let fd = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        Ok(Self { due: [None; ALL.len()], fd, set_to: None })
    }

    pub(super) fn arm(&mut self, timer: Timer, at_ns: u64) {
        *self.slot(timer) = Some(at_ns);
    }

    pub(super) fn disarm(&mut self, timer: Timer) {
        *self.slot(timer) = None;
    }

    /// The earliest of all.
    pub(super) fn next(&self) -> Option<u64> {
        self.due.iter().flatten().min().copied()
    }

    /// Takes the earliest timer that is due.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<Timer> {
        let (slot, timer) = self.due.iter_mut().zip(ALL).min_by_key(|(due, _)| due.unwrap_or(u64::MAX))?;
        slot.take_if(|due| *due <= now_ns).map(|_| timer)
    }

    /// The timerfd has fired.
    pub(super) fn fired(&mut self) {
        let _ = self.fd.wait(); // EAGAIN: it was set anew meanwhile
        self.set_to = None;
    }

    /// Makes the timerfd fire at `next` at the latest. In the middle of a handoff it is left alone if it fires sooner:
    /// nearly every message moves a timer back, and none is worth a system call.
    pub(super) fn sync(&mut self, next: Option<u64>, at_rest: bool) -> io::Result<()> {
        let late = next.is_some_and(|next| self.set_to.is_none_or(|set_to| next < set_to));
        if late || at_rest && next != self.set_to {
            match next {
                // Zero would stop it.
                Some(next) => self.fd.set(
                    Expiration::OneShot(TimeSpec::from(Duration::from_nanos(next.max(1)))),
                    TimerSetTimeFlags::TFD_TIMER_ABSTIME,
                )?,
                None => self.fd.unset()?,
            }
            self.set_to = next;
        }
        Ok(())
    }

    fn slot(&mut self, timer: Timer) -> &mut Option<u64> {
        let index = match timer {
            Timer::Hello => 0,
            Timer::Drain => 1,
            Timer::Ready => 2,
            Timer::Serving => 3,
            Timer::Deadline => 4,
            Timer::Liveness(Peer::Incumbent) => 5,
            Timer::Liveness(Peer::Successor) => 6,
            Timer::Lost(Peer::Incumbent) => 7,
            Timer::Lost(Peer::Successor) => 8,
            Timer::AbortGrace => 9,
            Timer::Retire => 10,
        };
        &mut self.due[index]
    }
}

impl AsFd for Timers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_timer_has_its_own_slot_and_the_earliest_comes_first() {
        let mut timers = Timers::new().unwrap();
        for (at, timer) in (100..).zip(ALL.iter().rev()) {
            timers.arm(*timer, at);
        }
        assert_eq!(timers.next(), Some(100));
        timers.disarm(Timer::Retire);
        let popped: Vec<_> = std::iter::from_fn(|| timers.pop(109)).collect();
        let expected: Vec<_> = ALL.iter().rev().skip(1).take(9).copied().collect();
        assert_eq!(popped, expected);
        assert_eq!(timers.next(), Some(110));
    }
}
