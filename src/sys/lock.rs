//! flock(2) on files: the only truth of who may write.
//!
//! The lock belongs to the open file description, not to a process: every duplicate, also one
//! in a forked child or on its way through a socket, keeps it, and an explicit unlock through
//! any of them frees it for all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::statfs;

use super::fd::{context, file_context, set_cloexec};
use super::proc;

/// An open lock file. Dropped, it is closed; that frees the lock only if no duplicate is left.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct LockFile {
    path: PathBuf,
    #[serde(with = "crate::sys::inherit::fd")]
    file: File,
}

/// Where the lock of a daemon and its gate are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockPaths {
    /// The directory of both.
    pub dir: PathBuf,
    /// Held by whoever may write the data.
    pub lock: PathBuf,
    /// Held as long as one of the lineage lives.
    pub gate: PathBuf,
}

impl LockPaths {
    /// Those of a data directory.
    pub fn of_data(dir: &Path) -> Self {
        Self { dir: dir.into(), lock: dir.join(".handoff.lock"), gate: dir.join(".handoff.gate") }
    }

    /// Those of a daemon with this data directory, or else this control path; none if it has neither.
    pub fn locate(data_dir: Option<&Path>, control: Option<&Path>) -> Option<Self> {
        if let Some(dir) = data_dir {
            return Some(Self::of_data(dir));
        }
        let control = control?;
        let dir = control.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(Self { dir: dir.into(), lock: suffixed(control, ".lock"), gate: suffixed(control, ".gate") })
    }
}

/// What a holder writes into its lock file, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockRecord {
    /// Counts the replacements.
    pub generation: u64,
    /// The holder.
    pub pid: i32,
    /// When it started ([`super::pidfd::start_time`]): tells it apart from a later process
    /// with the same pid.
    pub start_time: u64,
}

/// A process that has a locked description open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its pid.
    pub pid: i32,
    /// Its command line.
    pub command: String,
}

impl LockFile {
    /// Opens or makes the file, mode 0600, without locking it. A symbolic link is refused
    /// (`ELOOP`). It is never unlinked: that would make two locks of one.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(|e| match Errno::from_raw(e.raw_os_error().unwrap_or(0)) {
                Errno::ELOOP => context(e, format_args!("lock file {} is a symbolic link; remove it", path.display())),
                _ => file_context(e, format_args!("cannot open lock file {}", path.display())),
            })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Takes over a description that another process locked. Sets `FD_CLOEXEC`.
    ///
    /// `InvalidInput`: it is another file than `path` names. `WouldBlock`: it is not locked, but
    /// another description of the file is.
    pub fn from_locked(fd: OwnedFd, path: &Path) -> io::Result<Self> {
        set_cloexec(&fd)?;
        let lock = Self { path: path.to_owned(), file: fd.into() };
        let named =
            fs::symlink_metadata(path).map_err(|e| context(e, format_args!("cannot look at {}", path.display())))?;
        if lock.identity()? != (named.dev(), named.ino()) {
            let what = format!("the locked description is not of {}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        // To lock a locked description changes nothing.
        if !lock.try_lock()? {
            let what = format!("another process holds {}", path.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, what));
        }
        Ok(lock)
    }

    /// Locks if nobody else has (`LOCK_EX | LOCK_NB`); says whether the lock is ours. Do not
    /// poll: an attempt, even a failing one, can make somebody else's legitimate one fail.
    pub fn try_lock(&self) -> io::Result<bool> {
        match self.flock(libc::LOCK_EX | libc::LOCK_NB) {
            Ok(()) => Ok(true),
            Err(Errno::EWOULDBLOCK) => Ok(false),
            Err(errno) => Err(context(errno, format_args!("cannot lock {}", self.path.display()))),
        }
    }

    /// Unlocks (`LOCK_UN`), whoever has duplicates.
    pub fn unlock(&self) -> io::Result<()> {
        self.flock(libc::LOCK_UN).map_err(|e| context(e, format_args!("cannot unlock {}", self.path.display())))
    }

    fn flock(&self, operation: libc::c_int) -> Result<(), Errno> {
        loop {
            // SAFETY: flock takes two numbers.
            match Errno::result(unsafe { libc::flock(self.file.as_raw_fd(), operation) }) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Replaces the record in the file. Not synced and not atomic: nothing depends on it.
    pub fn write_record(&self, record: &LockRecord) -> io::Result<()> {
        self.write(&record.to_string())
    }

    /// The same with other text.
    pub(crate) fn write(&self, text: &str) -> io::Result<()> {
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }

    /// Device and inode.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let found = self.file.metadata()?;
        Ok((found.dev(), found.ino()))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl std::fmt::Display for LockRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { generation, pid, start_time } = self;
        writeln!(f, "generation={generation} pid={pid} start={start_time}")
    }
}

/// The record in a lock file; None if there is none that can be understood.
pub fn read_record(path: &Path) -> io::Result<Option<LockRecord>> {
    const BYTES_MAX: u64 = 256;
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(std::str::from_utf8(&bytes).ok().and_then(parse_record))
}

fn parse_record(text: &str) -> Option<LockRecord> {
    let line = text.lines().next()?;
    let field = |name| line.split(' ').find_map(|word| word.strip_prefix(name));
    Some(LockRecord {
        generation: field("generation=")?.parse().ok()?,
        pid: field("pid=")?.parse().ok()?,
        start_time: field("start=")?.parse().ok()?,
    })
}

/// Who has a description open that is locked with flock(2), for an error message; by pid, as /proc is. What
/// cannot be read (another user's processes) is skipped, and a description on its way through a
/// socket has no holder: the list may be empty although the file is locked.
///
/// /proc/PID/fdinfo shows a lock with every process that shares the description; /proc/locks
/// would name only the one that locked it, which may be dead.
pub fn holders(path: &Path) -> Vec<Holder> {
    let Ok(file) = fs::metadata(path) else {
        return Vec::new();
    };
    let holders = proc::pids().filter(|pid| holds(*pid, &file));
    holders.map(|pid| Holder { pid, command: proc::command(pid) }).collect()
}

fn holds(pid: i32, file: &fs::Metadata) -> bool {
    let inode = format!(":{} ", file.ino());
    proc::descriptors(pid).any(|fd| {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        let locked = |line: &str| line.starts_with("lock:") && line.contains(" FLOCK ") && line.contains(&inode);
        // The device in that line is not the one that stat(2) gives on btrfs and overlayfs.
        info.lines().any(locked)
            && fs::metadata(format!("/proc/{pid}/fd/{fd}"))
                .is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
    })
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// The name of the network file system that `path` is on, where flock(2) may not mean what we
/// need; None on a local one (statfs(2)).
pub fn is_network_fs(path: &Path) -> io::Result<Option<&'static str>> {
    let found =
        statfs(path).map_err(|e| context(e, format_args!("cannot find the file system of {}", path.display())))?;
    // The kernel's magic numbers have 32 bits; the field is signed on some machines.
    Ok(network_name(found.filesystem_type().0 as u32))
}

fn network_name(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x0000_6969 => "NFS",
        0x0000_517b => "SMB",
        0xff53_4d42 => "CIFS",
        0xfe53_4d42 => "SMB2",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x00c3_6400 => "Ceph",
        0x0102_1997 => "9P",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::testing::Forked;

    #[test]
    fn one_description_has_the_lock_until_it_is_unlocked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let one = LockFile::open(&path).unwrap();
        let other = LockFile::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(one.identity().unwrap(), other.identity().unwrap());
        assert!(one.try_lock().unwrap());
        assert!(one.try_lock().unwrap(), "it is ours already");
        assert!(!other.try_lock().unwrap());
        one.unlock().unwrap();
        assert!(other.try_lock().unwrap());
    }

    #[test]
    fn a_locked_description_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let holder = LockFile::open(&path).unwrap();
        assert!(holder.try_lock().unwrap());
        let fd = |lock: &LockFile| lock.as_fd().try_clone_to_owned().unwrap();
        let heir = LockFile::from_locked(fd(&holder), &path).unwrap();
        drop(holder);
        let stranger = LockFile::open(&path).unwrap();
        assert!(!stranger.try_lock().unwrap());

        let error = LockFile::from_locked(fd(&stranger), &path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let elsewhere = dir.path().join("other");
        LockFile::open(&elsewhere).unwrap();
        let error = LockFile::from_locked(fd(&heir), &elsewhere).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_forked_child_keeps_the_lock_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = LockFile::open(&path).unwrap();
        assert!(lock.try_lock().unwrap());
        let child = Forked::that_waits();
        drop(lock);
        let other = LockFile::open(&path).unwrap();
        assert!(!other.try_lock().unwrap());
        let holders = holders(&path);
        let found = holders.iter().find(|holder| holder.pid == child.pid()).unwrap();
        assert!(!found.command.is_empty());
        let own = std::process::id() as i32;
        assert!(holders.iter().all(|holder| holder.pid != own), "open, but not locked");
        child.release();
        child.exit_code();
    }

    #[test]
    fn records_are_for_people_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = LockFile::open(&path).unwrap();
        assert_eq!(read_record(&path).unwrap(), None);
        let long = LockRecord { generation: u64::MAX, pid: i32::MAX, start_time: u64::MAX };
        lock.write_record(&long).unwrap();
        assert_eq!(read_record(&path).unwrap(), Some(long));
        let record = LockRecord { generation: 3, pid: 123, start_time: 456 };
        lock.write_record(&record).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "generation=3 pid=123 start=456\n");
        assert_eq!(read_record(&path).unwrap(), Some(record));
        for garbage in ["", "x", "generation=-1 pid=1 start=1", "generation=1 pid=1"] {
            assert_eq!(parse_record(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        let error = LockFile::open(&path).unwrap_err();
        assert!(error.to_string().contains("lock"), "{error}");
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn network_file_systems_are_named() {
        assert_eq!(is_network_fs(Path::new("/proc")).unwrap(), None);
        assert!(is_network_fs(Path::new("/no/such/path")).is_err());
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xff53_4d42), Some("CIFS"));
    }
}
