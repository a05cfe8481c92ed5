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
        // Not counted before it is sure: somebody who ends without a begin must find nothing to take away.
        let enter = |word: u64| (word & CLOSED == 0).then(|| word + 1);
        let entered = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, enter);
        entered.map(drop).map_err(|_| Error::Sealed)
    }

    pub(crate) fn end(&self) -> Result<()> {
        let leave = |word: u64| (word & !CLOSED != 0).then(|| word - 1);
        match self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, leave) {
            Ok(before) if before == CLOSED | 1 => {
                // The lock orders this wake-up after the sleeper's last look at the word.
                drop(self.empty.0.lock().unwrap_or_else(PoisonError::into_inner));
                self.empty.1.notify_all();
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(_) => Err(Error::State("write_end without write_begin".into())),
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

    #[test]
    fn ends_without_a_begin_take_nothing_away() {
        let fence = Arc::new(WriteFence::closed());
        let worker = |number: usize| {
            let fence = Arc::clone(&fence);
            std::thread::spawn(move || {
                for _ in 0..20_000 {
                    // Half of them begin, all of them end: once too often.
                    let _ = if number.is_multiple_of(2) { fence.begin() } else { Ok(()) };
                    let _ = fence.end();
                }
            })
        };
        for closed in [true, false] {
            let threads: Vec<_> = (0..4).map(worker).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            while fence.end().is_ok() {}
            assert_eq!(fence.begin().is_err(), closed);
            fence.open();
        }
    }
}
