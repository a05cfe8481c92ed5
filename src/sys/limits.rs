//! The limit on open descriptors.

use std::{fs, io};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft `RLIMIT_NOFILE` to the hard one (setrlimit(2)); gives the soft limit before
/// and now. Needs no privilege. The limit survives exec.
pub fn raise_nofile() -> io::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok((soft, hard))
}

/// The soft `RLIMIT_NOFILE`: one more than the highest number that a descriptor may get.
pub fn soft_nofile() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
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
    fn counts_open_descriptors() {
        // Other tests open and close theirs meanwhile: hold so many that they cannot matter.
        let held: Vec<_> = (0..500).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(open_descriptors().unwrap() >= held.len());
    }
}
