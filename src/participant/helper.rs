//! The thread that listens to the supervisor while the application is busy.
//!
//! It lives only during a handoff, and sleeps while the owner's thread is inside the library or has just left it: most
//! hooks return sooner than it takes to wake a thread. It reads, sends heartbeats, revokes and kills N; it never takes a
//! lock, commits, or calls the application.

use super::shared::Shared;
use crate::error::{Error, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;
use nix::sys::timer::TimerSetTimeFlags;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// How owner and helper agree on who attends to the sockets.
#[derive(Debug)]
pub(super) struct Attention {
    /// Fires when the owner has been away for a while.
    away: TimerFd,
    quit: EventFd,
    owner_is_here: AtomicBool,
}

impl Attention {
    pub(super) fn new() -> Result<Self> {
        let system = |error: nix::Error| Error::system("timerfd or eventfd")(error.into());
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self {
            away: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(system)?,
            quit: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(system)?,
            owner_is_here: AtomicBool::new(true),
        })
    }

    /// The owner's thread is inside the library.
    pub(super) fn owner_enters(&self) {
        self.owner_is_here.store(true, Ordering::Release);
        let _ = self.away.unset(); // it may fire once in vain
    }

    /// The owner's thread runs the application's code.
    pub(super) fn owner_leaves(&self) {
        self.owner_is_here.store(false, Ordering::Release);
        let after = TimeSpec::from_duration(crate::limits::ATTEND_AFTER);
        let _ = self.away.set(Expiration::OneShot(after), TimerSetTimeFlags::empty());
    }
}

/// The running thread. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Helper {
    attention: Arc<Attention>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    /// Starts the thread, with every signal blocked: they belong to the application's threads.
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self> {
        let attention = Arc::new(Attention::new()?);
        let system = |error: nix::Error| Error::system("pthread_sigmask")(error.into());
        let before = SigSet::thread_get_mask().map_err(system)?;
        SigSet::all().thread_block().map_err(system)?;
        let (shared, attend) = (Arc::clone(shared), Arc::clone(&attention));
        let log = tracing::dispatcher::get_default(Clone::clone);
        let thread = Builder::new()
            .name("handoff".into())
            .stack_size(256 * 1024)
            .spawn(move || tracing::dispatcher::with_default(&log, || run(&shared, &attend)))
            .map_err(Error::system("start the helper thread"));
        before.thread_set_mask().map_err(system)?;
        Ok(Self { attention, thread: Some(thread?) })
    }

    pub(super) fn attention(&self) -> Arc<Attention> {
        Arc::clone(&self.attention)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.attention.quit.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic of the helper has poisoned the mutex, which the owner hears of
        }
    }
}

/// The helper thread, and who attends.
#[derive(Debug, Default)]
pub(super) struct Help {
    helper: Option<Helper>,
    attention: Option<Arc<Attention>>,
    disabled: bool,
}

impl Help {
    pub(super) fn new(disabled: bool) -> Self {
        Self { disabled, ..Self::default() }
    }

    pub(super) fn owner_enters(&self) {
        if let Some(attention) = &self.attention {
            attention.owner_enters();
        }
    }

    pub(super) fn owner_leaves(&self) {
        if let Some(attention) = &self.attention {
            attention.owner_leaves();
        }
    }

    /// A helper lives exactly as long as a handoff. An error: it can not be started now.
    pub(super) fn adjust(&mut self, shared: &Arc<Shared>, in_handoff: bool) -> Result<()> {
        if in_handoff && self.helper.is_none() && !self.disabled {
            let helper = Helper::start(shared)?;
            self.attention = Some(helper.attention());
            self.helper = Some(helper);
        } else if !in_handoff && self.helper.is_some() {
            self.attention = None;
            self.helper = None;
        }
        Ok(())
    }
}

fn run(shared: &Shared, attention: &Attention) {
    loop {
        // Until the owner has been away for a while.
        if !wait(&[attention.quit.as_fd(), attention.away.as_fd()]) {
            return;
        }
        let _ = attention.away.unset();
        while !attention.owner_is_here.load(Ordering::Acquire) {
            let sources = shared.sources();
            if !wait(&[attention.quit.as_fd(), sources]) {
                return;
            }
            if !attention.owner_is_here.load(Ordering::Acquire) {
                shared.attend();
            }
        }
    }
}

/// Sleeps until one of them is readable; false when the first is.
fn wait(fds: &[std::os::fd::BorrowedFd<'_>; 2]) -> bool {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    // EINTR can not be: every signal is blocked.
    let _ = poll(&mut polled, PollTimeout::NONE);
    polled[0].any() != Some(true)
}
