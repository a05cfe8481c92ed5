//! Looks at a service from outside while it is replaced.

use super::{Service, open_descriptors};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Looks again and again who holds the lock of the data directory.
pub struct LockWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, usize)>,
}

impl LockWatch {
    /// Looks every `interval`.
    pub fn start(service: &Service, interval: Duration) -> Self {
        let inode = fs::metadata(service.path("data/.handoff.lock")).unwrap().ino();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut samples, mut most) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                if let Some(holders) = holders(inode) {
                    most = most.max(holders);
                    samples += 1;
                }
                thread::sleep(interval);
            }
            (samples, most)
        });
        Self { stop, thread }
    }

    /// How often it looked, and the largest number of processes ever seen at once.
    pub fn stop(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// None: nobody can say.
fn holders(inode: u64) -> Option<usize> {
    let mut file = fs::File::open("/proc/locks").unwrap();
    let held = |line: &&str| line.contains("FLOCK") && !line.contains("->") && line.contains(&format!(":{inode} "));
    let (mut reads, mut count) = (0, 0);
    let mut page = [0; 4096];
    loop {
        let len = file.read(&mut page).unwrap();
        if len == 0 {
            break;
        }
        reads += 1;
        count += String::from_utf8_lossy(&page[..len]).lines().filter(held).count();
    }
    // The kernel shows the list as it is at one moment for each read(2), and no more than a page of it: a lock that changed
    // hands between two reads may be there twice.
    (reads <= 1 || count <= 1).then_some(count)
}

/// Descriptors of the supervisor and of the daemon, once nobody else is left and the numbers stand still.
pub fn settled_descriptors(service: &Service) -> Option<(usize, usize)> {
    let look = || {
        let [daemon] = service.daemons()[..] else { return None };
        (service.status()?["phase"] == "idle")
            .then(|| (open_descriptors(service.supervisor_pid()), open_descriptors(daemon)))
    };
    let first = look()?;
    let unchanged = (0..5).all(|_| {
        thread::sleep(Duration::from_millis(50));
        look() == Some(first)
    });
    unchanged.then_some(first)
}
