//! The clock of all deadlines.

use std::sync::LazyLock;

/// `CLOCK_MONOTONIC` in nanoseconds (clock_gettime(2)).
///
/// It is the same for every process of one boot and one time namespace, so an absolute
/// deadline may travel between processes. It never goes backwards.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for one timespec; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    // Both fields are never negative for this clock.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// `CLOCK_REALTIME` in nanoseconds since 1970 (clock_gettime(2)): for people, since it can be set.
pub fn realtime_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, nanoseconds)
}

/// A duration as nanoseconds; what does not fit is as good as for ever.
pub fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Which boot this is (random(4)); empty if nobody says.
pub fn boot_id() -> &'static str {
    static ID: LazyLock<String> = LazyLock::new(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    });
    &ID
}

/// The inode of this process's time namespace (time_namespaces(7)); 0 where the kernel has none.
pub fn time_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/time").map_or(0, |found| std::os::unix::fs::MetadataExt::ino(&found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_backwards() {
        let mut last = monotonic_ns();
        for _ in 0..10_000 {
            let now = monotonic_ns();
            assert!(now >= last);
            last = now;
        }
        assert!(last > 0);
    }
}
