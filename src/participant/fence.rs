//! The fence that writers pass, so that a seal knows when the last one is out.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

const CLOSED: u64 = 1 << 63;

/// Counts writers. Check-then-write is a race; begin, write, end is not.
#[derive(Debug)]
pub(crate) struct WriteFence {
    /// The number of writers inside, and whether the fence is closed.
    word: AtomicU64,
    empty: (Mutex<()>, Condvar),
}

impl WriteFence {
    /// Closed: nobody may write before the lock is held.
    pub(crate) fn closed() -> Self {
        Self { word: AtomicU64::new(CLOSED), empty: Default::default() }
    }

    pub(crate) fn begin(&self) -> Result<()> {
        if self.word.fetch_add(1, Ordering::AcqRel) & CLOSED == 0 {
            return Ok(());
        }
        self.leave();
        Err(Error::Sealed)
    }

    pub(crate) fn end(&self) -> Result<()> {
        if self.word.load(Ordering::Relaxed) & !CLOSED == 0 {
            return Err(Error::State("write_end without write_begin".into()));
        }
        self.leave();
        Ok(())
    }

    fn leave(&self) {
        if self.word.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            // The lock orders this wake-up after the sleeper's last look at the word.
            drop(self.empty.0.lock().unwrap_or_else(PoisonError::into_inner));
            self.empty.1.notify_all();
        }
    }

    pub(crate) fn open(&self) {
        self.word.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    pub(crate) fn close(&self) {
        self.word.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Waits for the last writer for at most `patience`; how many are still inside.
    pub(crate) fn wait_empty(&self, patience: Duration) -> u64 {
        let inside = || self.word.load(Ordering::Acquire) & !CLOSED;
        let until = Instant::now() + patience;
        let mut guard = self.empty.0.lock().unwrap_or_else(PoisonError::into_inner);
        while inside() > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            guard = self.empty.1.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        inside()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_closed_fence_lets_nobody_in_and_the_sealer_waits_for_the_last() {
        let fence = Arc::new(WriteFence::closed());
        assert!(matches!(fence.begin(), Err(Error::Sealed)));
        fence.open();
        fence.begin().unwrap();
        fence.close();
        assert!(matches!(fence.begin(), Err(Error::Sealed)));
        assert_eq!(fence.wait_empty(Duration::ZERO), 1);
        let writer = Arc::clone(&fence);
        let thread = std::thread::spawn(move || writer.end());
        assert_eq!(fence.wait_empty(Duration::from_secs(60)), 0);
        thread.join().unwrap().unwrap();
        assert!(matches!(fence.end(), Err(Error::State(_))));
    }
}
