//! File systems that are full, or can not be written. root ignores mode bits, so nothing less will do.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Gives this thread, and what it starts from here on, mounts of its own: nobody else sees them, and they end with the
/// last process of the test. False, and said aloud, where that is not possible; an error where everything must be
/// tested (`CI=true`).
pub fn own_mounts() -> bool {
    let private = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
    };
    let why = match private() {
        Ok(()) => return true,
        Err(error) => format!("no mounts of its own as user {}: {error}", geteuid()),
    };
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}, and CI=true");
    eprintln!("SKIPPED: {why}");
    false
}

/// A mount, until it is dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// A small tmpfs at this directory.
    pub fn tmpfs(at: &Path, options: &str) -> Self {
        let flags = MsFlags::empty();
        mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options)).unwrap();
        Self(at.to_owned())
    }

    /// The directory itself again, read-only for whoever looks it up from here on.
    pub fn read_only(at: &Path) -> Self {
        let none = None::<&str>;
        mount(Some(at), at, none, MsFlags::MS_BIND, none).unwrap();
        let mounted = Self(at.to_owned());
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, at, none, flags, none).unwrap();
        assert_eq!(fs::write(at.join("x"), "").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: who has files open there keeps them.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Takes all room in a directory's file system but this; the file to be removed.
pub fn fill(dir: &Path, leave: usize) -> PathBuf {
    let path = dir.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    let mut size = 0;
    let full = loop {
        match file.write(&[0; 1024]) {
            Ok(written) => size += written,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
    file.set_len(size.checked_sub(leave).unwrap() as u64).unwrap();
    path
}

/// Leaves no inode, so that no file can be made.
pub fn take_inodes(dir: &Path) -> Vec<PathBuf> {
    let paths = (0..).map(|number| dir.join(format!("inode-{number}")));
    paths.take_while(|path| fs::write(path, "").is_ok()).collect()
}
