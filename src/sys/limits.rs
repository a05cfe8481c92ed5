//! The limit on open descriptors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::close;

/// Descriptors for which the table of a process that has just been executed has room.
const TABLE_FIRST: u64 = 64;

/// No limit that anybody can have.
const UNKNOWN: u64 = u64::MAX;
/// The soft limit that this process had when it was to be raised first. Whatever it is lowered to from outside later is not meant for children.
static SOFT_BEFORE: AtomicU64 = AtomicU64::new(UNKNOWN);

/// Raises the soft `RLIMIT_NOFILE` to the hard one (setrlimit(2)); gives the soft limit before
/// and now. Needs no privilege. The limit survives exec, but [`spawn`](super::spawn::spawn) gives a child the one of before.
pub fn raise_nofile() -> io::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let _ = SOFT_BEFORE.compare_exchange(UNKNOWN, soft, Ordering::Relaxed, Ordering::Relaxed);
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok((soft, hard))
}

/// The soft limit that this process was started with, if it was to be raised since.
pub fn soft_nofile_before() -> Option<u64> {
    Some(SOFT_BEFORE.load(Ordering::Relaxed)).filter(|soft| *soft != UNKNOWN)
}

/// The same, of the program that was executed before this one in the same process, and has raised it.
pub fn set_soft_nofile_before(soft: u64) {
    SOFT_BEFORE.store(soft, Ordering::Relaxed);
}

/// Soft and hard limit of a child that is given descriptors up to this number. None: those of this process, since it has not touched
/// its own, or since little room would be left. Programs that use select(2) rely on the low one.
pub(super) fn nofile_of_child(last: u64) -> Option<(u64, u64)> {
    let before = soft_nofile_before().filter(|before| last < before / 2)?;
    let hard = hard_nofile().ok()?;
    Some((before.min(hard), hard))
}

/// The soft `RLIMIT_NOFILE`: one more than the highest number that a descriptor may get.
pub fn soft_nofile() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// The hard `RLIMIT_NOFILE`: what a process may raise its soft one to.
pub fn hard_nofile() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.1)
}

/// Makes room for `count` more descriptors, so that taking them neither fails nor makes the table of this process grow:
/// in one with threads each growth waits for a grace period of the kernel, milliseconds.
pub fn make_room(count: u64) -> io::Result<()> {
    let needed = open_descriptors()? as u64 + count;
    if needed >= soft_nofile()? {
        raise_nofile()?;
    }
    let last = needed.min(soft_nofile()?.saturating_sub(1));
    if last > TABLE_FIRST {
        let probe = fs::File::open("/dev/null")?;
        fcntl(&probe, FcntlArg::F_DUPFD_CLOEXEC(i32::try_from(last).unwrap_or(i32::MAX))).map(close)??;
    }
    Ok(())
}

/// How many descriptors a process has open, if that is cheap to know; otherwise 0. The number may be another's by now.
pub fn open_descriptors_of(pid: i32) -> u32 {
    fs::metadata(format!("/proc/{pid}/fd")).map_or(0, |found| u32::try_from(found.len()).unwrap_or(u32::MAX))
}

/// How many descriptors this process has open (proc_pid_fd(5)).
pub fn open_descriptors() -> io::Result<usize> {
    // Linux 6.2 and newer tell it as the size of the directory; to read it takes ten times as long.
    let told = fs::metadata("/proc/self/fd")?.len();
    if told > 0 {
        return Ok(told as usize);
    }
    // The directory that is being read is one of them, and gone afterwards.
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raises_to_the_hard_limit_and_stays_there() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let (_, now) = raise_nofile().unwrap();
        assert_eq!(now, hard);
        assert_eq!(raise_nofile().unwrap(), (hard, hard));
        assert_eq!(soft_nofile().unwrap(), hard);
    }

    #[test]
    fn room_is_made_and_given_back() {
        let table = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
            line.trim().parse::<u64>().unwrap()
        };
        make_room(3000).unwrap();
        assert!(table() >= 3000);
        assert!(open_descriptors().unwrap() < 3000);
    }

    #[test]
    fn counts_open_descriptors() {
        // Other tests open and close theirs meanwhile: hold so many that they cannot matter.
        let held: Vec<_> = (0..500).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(open_descriptors().unwrap() >= held.len());
    }
}
