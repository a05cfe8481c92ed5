//! One client that asks every few milliseconds, on a connection of its own, and so sees when nobody serves.

use crate::support::ask;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(4);

struct Seen {
    last: Instant,
    /// The longest time between two answers since it was last asked for.
    longest: Duration,
    answers: u64,
}

pub struct Probe {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen { last: Instant::now(), longest: Duration::ZERO, answers: 0 }));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if ask(address, "SET probe 1").is_some_and(|reply| reply.starts_with("OK ")) {
                    let mut seen = shared.lock().unwrap();
                    seen.longest = seen.longest.max(seen.last.elapsed());
                    seen.last = Instant::now();
                    seen.answers += 1;
                }
                thread::sleep(INTERVAL);
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    pub fn answers(&self) -> u64 {
        self.seen.lock().unwrap().answers
    }

    /// For how long nobody has answered by now.
    pub fn silence(&self) -> Duration {
        self.seen.lock().unwrap().last.elapsed()
    }

    /// The longest time between two answers since the last call.
    pub fn take_longest(&self) -> Duration {
        std::mem::take(&mut self.seen.lock().unwrap().longest)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
