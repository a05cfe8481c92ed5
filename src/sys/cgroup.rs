//! Control groups, version 2 (cgroups(7)): whoever descends from a process is in its group, and can be ended with it. No
//! controller is used, so a group may have both processes and groups below it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::sys::signal::Signal;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::look::{Look, is_blind};

/// The names of all groups that are made here begin so.
const PREFIX: &str = "handoff.";
/// So do those of commands of a supervisor, which are of no use without it. No service has such a name.
pub(crate) const TASK: &str = "@task.";
/// Rounds of a kernel without `cgroup.kill` (Linux 5.14), against processes that fork as fast as we look.
const ROUNDS_MAX: usize = 16;

/// A group that was made here, or by one before us.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// Makes one below that of this process. None where that is not possible, or not ours to do.
    pub(crate) fn create(name: &str) -> Option<Self> {
        let above = group_of("self")?;
        if !is_ours(&above) {
            return None;
        }
        let dir = above.join(format!("{PREFIX}{name}.{}", std::process::id()));
        fs::create_dir(&dir).ok()?;
        Some(Self { dir })
    }

    /// Removes the empty ones of those who did not live to do so: their names end in the pid of who made them. Commands that those
    /// have left are ended.
    pub(crate) fn remove_stale() {
        let Some(above) = group_of("self").filter(|above| is_ours(above)) else { return };
        for dir in groups_in(&above) {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            let maker = name.strip_prefix(PREFIX).and_then(|name| name.rsplit_once('.')?.1.parse::<i32>().ok());
            let is_gone = maker.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists());
            let is_task = name.strip_prefix(PREFIX).is_some_and(|name| name.starts_with(TASK));
            let group = Self { dir: dir.clone() };
            if is_gone && is_task {
                let _ = group.kill(); // it is no process of a service
            }
            if is_gone && group.is_populated().is_ok_and(|populated| !populated) {
                group.remove();
            }
        }
    }

    /// Those beside ours whose names have this word before the pid of who made them, and in which somebody is.
    pub(crate) fn left_by(word: &str, look: &mut Look) -> Vec<Self> {
        let Some(above) = look.see(find_group_of("self")).flatten().filter(|above| is_ours(above)) else {
            return Vec::new();
        };
        let is_one = |dir: &PathBuf| {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(PREFIX) && name.rsplit('.').nth(1) == Some(word)
        };
        let dirs = look.see(try_groups_in(&above)).unwrap_or_default();
        let groups = dirs.into_iter().filter(is_one).map(|dir| Self { dir });
        groups.filter(|group| look.see(group.is_populated()).unwrap_or_default()).collect()
    }

    /// The group of a process, if it is one of those.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let dir = group_of(&pid.to_string())?;
        let is_made_here = dir.file_name()?.to_str()?.starts_with(PREFIX);
        is_made_here.then_some(Self { dir })
    }

    /// Its directory, for [`super::spawn::Spawn::cgroup`].
    pub(crate) fn open(&self) -> io::Result<File> {
        File::open(&self.dir)
    }

    /// SIGKILL to all that are in it, and in groups below it.
    ///
    /// # Errors
    /// That is not known.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match fs::write(self.dir.join("cgroup.kill"), "1") {
            Ok(()) => return Ok(()),
            Err(error) if is_blind(&error) => return Err(error),
            Err(_) => {}
        }
        let mut look = Look::default();
        for _ in 0..ROUNDS_MAX {
            let members: Vec<i32> =
                groups_below(&self.dir).iter().flat_map(|dir| look.see(members(dir)).unwrap_or_default()).collect();
            let mut ended = |pid: &&i32| {
                // The number may have been another's before the descriptor: it is looked at again.
                let process = look.open(**pid);
                process.is_some_and(|process| self.has(**pid, &mut look) && process.kill(Signal::SIGKILL).is_ok())
            };
            if members.iter().filter(|pid| ended(pid)).count() == 0 {
                break;
            }
        }
        look.end()
    }

    fn has(&self, pid: i32, look: &mut Look) -> bool {
        look.see(find_group_of(&pid.to_string())).flatten().is_some_and(|dir| dir.starts_with(&self.dir))
    }

    /// Whether a process is left in it, or below it; zombies do not count.
    ///
    /// # Errors
    /// That is not known.
    pub(crate) fn is_populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.dir.join("cgroup.events")) {
            Ok(events) => Ok(events.lines().any(|line| line == "populated 1")),
            Err(error) if is_blind(&error) => Err(error),
            Err(_) => Ok(false), // it is removed
        }
    }

    /// Removes it, with the empty groups below it that its processes have made. One that is not empty stays.
    pub(crate) fn remove(&self) {
        for dir in groups_below(&self.dir).iter().rev() {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// This one and those below it, from above.
fn groups_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut index = 0;
    while let Some(dir) = found.get(index) {
        let below = groups_in(dir);
        found.extend(below);
        index += 1;
    }
    found
}

fn groups_in(dir: &Path) -> Vec<PathBuf> {
    try_groups_in(dir).unwrap_or_default()
}

fn try_groups_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(dirs.map(|entry| entry.path()).collect())
}

fn members(dir: &Path) -> io::Result<Vec<i32>> {
    let list = fs::read_to_string(dir.join("cgroup.procs"))?;
    Ok(list.lines().filter_map(|line| line.parse().ok()).collect())
}

/// The directory of the group in which a process is, of version 2.
fn group_of(pid: &str) -> Option<PathBuf> {
    find_group_of(pid).ok().flatten()
}

/// The same; with an error if it can not be read.
fn find_group_of(pid: &str) -> io::Result<Option<PathBuf>> {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).map(|groups| mounted(&groups))
}

fn mounted(groups: &str) -> Option<PathBuf> {
    let path = Path::new(groups.lines().find_map(|line| line.strip_prefix("0::"))?);
    // A group outside of our namespace.
    if path.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let below = path.strip_prefix("/").ok()?;
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let is_mounted = |mount: &&Path| statfs(*mount).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let dir = mounts.into_iter().find(is_mounted)?.join(below);
    dir.is_dir().then_some(dir)
}

/// Whether groups below this one are ours to make: systemd says so by an attribute (`Delegate=`, systemd.resource-control(5)), and
/// where it is not the manager of this machine or container, nobody else makes any.
fn is_ours(dir: &Path) -> bool {
    let is_writable = fs::metadata(dir).is_ok_and(|found| found.uid() == nix::unistd::geteuid().as_raw());
    is_writable && (is_delegated(dir) || !Path::new("/run/systemd/system").exists())
}

fn is_delegated(dir: &Path) -> bool {
    let says_yes = |name: &std::ffi::CStr| {
        let Ok(path) = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes()) else { return false };
        let mut value = [0u8; 1];
        // SAFETY: two strings with an end, and a buffer of this length.
        let len = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        len == 1 && value == *b"1"
    };
    says_yes(c"trusted.delegate") || says_yes(c"user.delegate")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use nix::poll::PollFlags;

    use super::*;
    use crate::sys::spawn::{Child, Spawn, spawn};
    use crate::sys::testing::wait_for;

    fn start_in(group: &Cgroup, line: &str) -> Child {
        let dir = group.open().unwrap();
        let argv = ["sh", "-c", line].map(Into::into);
        let request = Spawn { new_session: true, cgroup: Some(dir.as_fd()), ..Spawn::new("/bin/sh".as_ref(), &argv) };
        spawn(&request).unwrap()
    }

    fn wait_until_empty(group: &Cgroup) {
        let until = Instant::now() + Duration::from_secs(60);
        while group.is_populated().unwrap() {
            assert!(Instant::now() < until, "it is never empty");
        }
    }

    /// None, and said so, where no group can be made.
    fn made(name: &str) -> Option<Cgroup> {
        let group = Cgroup::create(name);
        if group.is_none() {
            eprintln!("SKIPPED: no control group can be made here");
        }
        group
    }

    #[test]
    fn ends_all_that_descend_from_a_process() {
        let Some(group) = made("test") else { return };
        // It leaves its session and its parent, and nothing in its environment tells of it.
        let child = start_in(&group, "env -i setsid sh -c 'sleep 1000 & sleep 1000' & exit 3");
        wait_for(child.pidfd.as_fd(), PollFlags::POLLIN);
        assert_eq!(child.pidfd.wait().unwrap().unwrap().code, Some(3));
        assert!(group.is_populated().unwrap(), "what it left is in its group");
        let pid = members(&group.dir).unwrap()[0];
        assert_eq!(Cgroup::of(pid).unwrap().dir, group.dir);
        group.remove();
        assert!(group.dir.exists(), "it is not empty");
        group.kill().unwrap();
        wait_until_empty(&group);
        group.remove();
        assert!(!group.dir.exists());
        assert!(Cgroup::of(std::process::id().cast_signed()).is_none());
    }

    #[test]
    fn those_of_supervisors_that_are_gone_are_removed() {
        let Some(own) = made("test-of-stale") else { return };
        let named = |name: &str, pid: &str| {
            let dir = own.dir.with_file_name(format!("{PREFIX}{name}{}.{pid}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            Cgroup { dir }
        };
        let (gone, lives) = ("999999999", "1");
        let (empty, fresh) = (named("empty.", gone), named("fresh.", lives));
        let (daemon, task, other) = (named("daemon.", gone), named(TASK, gone), named(TASK, lives));
        let children = [&daemon, &task, &other].map(|group| start_in(group, "exec sleep 1000"));
        Cgroup::remove_stale();
        wait_until_empty(&task);
        assert_eq!(children[1].pidfd.wait().unwrap().unwrap().signal, Some(9));
        assert!(
            daemon.is_populated().unwrap() && other.is_populated().unwrap(),
            "a daemon is adopted, and another supervisor's are its own"
        );
        assert!(!empty.dir.exists() && fresh.dir.exists());
        for group in [&daemon, &other, &task, &fresh, &own] {
            group.kill().unwrap();
            wait_until_empty(group);
            group.remove();
            assert!(!group.dir.exists());
        }
        children.iter().for_each(|child| drop(child.pidfd.wait()));
    }
}
