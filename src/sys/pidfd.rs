//! Processes by descriptor: a pid may be reused, a pidfd never reaches a stranger.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{fmt, fs, io};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::fd::{context, poll_now, set_cloexec};
use super::proc::Stat;

/// A descriptor of a process (pidfd_open(2)). It stays with that process for ever, also when
/// the process is dead and its number belongs to another.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Pidfd(#[serde(with = "crate::sys::inherit::fd")] OwnedFd);

impl Pidfd {
    /// The process that has this pid now. Unless it is our own unreaped child, compare its
    /// [`start_time`] *after* this, or it may be a stranger. `ESRCH`: there is none.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two numbers.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: the kernel just made this descriptor (it is close-on-exec), nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// A descriptor from elsewhere, after a check that it is a pidfd: waitid(2) takes no other (a `/proc/<pid>`
    /// directory can be signalled, too, but would always look dead). Sets `FD_CLOEXEC`. `InvalidInput`: it is something
    /// else.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: a null siginfo is allowed; with WNOWAIT nothing is reaped.
        let found = Errno::result(unsafe {
            libc::waitid(libc::P_PIDFD, fd.as_raw_fd().cast_unsigned(), std::ptr::null_mut(), flags)
        });
        match found {
            Ok(_) | Err(Errno::ECHILD) => {} // a child, or somebody else's
            Err(_) => {
                let what = format!("descriptor {} is no pidfd", fd.as_raw_fd());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        }
        set_cloexec(&fd)?;
        Ok(Self(fd))
    }

    /// Takes a descriptor that the kernel just gave as a pidfd.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The pid, read from /proc/self/fdinfo. None if the process is dead and reaped, not in
    /// this pid namespace, or /proc cannot be read.
    pub fn pid(&self) -> Option<i32> {
        fdinfo_pid(self.0.as_fd()).ok().flatten().filter(|pid| *pid > 0)
    }

    /// Is the process dead (a zombie is)? Its locks are free then. An error of poll(2) counts
    /// as no.
    pub fn is_dead(&self) -> bool {
        poll_now(self.0.as_fd(), PollFlags::POLLIN).is_ok_and(|events| !events.is_empty())
    }

    /// Waits until it is dead, so long at most.
    pub fn await_death(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|_| !self.is_dead()) {
            let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], left);
        }
    }

    /// Sends a signal (pidfd_send_signal(2)). A process that is gone is fine; success does not
    /// mean that it lives (a zombie takes signals). `EPERM`: it runs as another user.
    pub fn kill(&self, signal: Signal) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null siginfo is allowed and means "as kill(2)".
        let sent = Errno::result(unsafe {
            let fd = self.0.as_raw_fd();
            libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, no_info, 0)
        });
        match sent {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(context(errno, format_args!("cannot send {signal}"))),
        }
    }

    /// Reaps our child if it is dead; None while it lives (waitid(2), `P_PIDFD`). `ECHILD`: it
    /// is no child of ours, or has been reaped, by us or because SIGCHLD is ignored.
    pub fn wait(&self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(libc::WEXITED | libc::WNOHANG)
    }

    /// The same, but waits for the end.
    pub(super) fn wait_for_end(&self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(libc::WEXITED)
    }

    fn wait_with(&self, options: libc::c_int) -> io::Result<Option<ExitStatus>> {
        // SAFETY: all-zero is a valid siginfo_t; si_pid stays 0 if nothing was reaped.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = self.0.as_raw_fd() as libc::id_t;
        loop {
            // SAFETY: `info` is a valid place for one siginfo_t.
            match Errno::result(unsafe { libc::waitid(libc::P_PIDFD, id, &mut info, options) }) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // SAFETY: waitid fills in the fields of a SIGCHLD siginfo, or leaves the zeros.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        #[cfg(feature = "program")]
        if pid != 0 && options & libc::WNOWAIT == 0 {
            super::descendants::release(pid);
        }
        Ok((pid != 0).then(|| ExitStatus::new(info.si_code, status)))
    }

    /// Whether it is a child of ours that was not reaped.
    #[cfg(feature = "program")]
    pub(crate) fn is_child(&self) -> bool {
        self.wait_with(libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).is_ok()
    }

    /// A child of ours that is dead and not reaped: its number is not given to another (waitid(2), `WNOWAIT`).
    pub fn is_zombie(&self) -> bool {
        self.zombie().is_some()
    }

    /// How it ended, if it is one.
    pub fn zombie(&self) -> Option<ExitStatus> {
        self.wait_with(libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).ok().flatten()
    }

    /// How this process ended, which is dead and not our child: what its zombie says (proc_pid_stat(5)), and what the kernel
    /// remembers of it once its parent has reaped it (`PIDFD_GET_INFO`, Linux 6.15). None if neither can be had.
    pub fn status_of_stranger(&self, pid: i32, start_time: u64) -> Option<ExitStatus> {
        zombie_status(pid, start_time).or_else(|| {
            let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
            // SAFETY: the number carries the size of `info`, which is live; the kernel writes no more than that.
            Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) }).ok()?;
            (info.mask & PIDFD_INFO_EXIT != 0).then(|| ExitStatus::of_wait(info.exit_code))
        })
    }

    /// A duplicate of a descriptor of that process, close-on-exec (pidfd_getfd(2)). `EPERM`: it runs as another user, or
    /// this process may not trace it (ptrace(2)). `EBADF`: it has no such descriptor.
    pub fn descriptor(&self, number: i32) -> io::Result<OwnedFd> {
        // SAFETY: three numbers.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.0.as_raw_fd(), number, 0) })?;
        // SAFETY: the kernel just made this descriptor, nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// A second descriptor of the same process.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsFd for Pidfd {
    /// Readable (`POLLIN`) when the process is dead.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Pidfd> for OwnedFd {
    fn from(pidfd: Pidfd) -> Self {
        pidfd.0
    }
}

/// The `Pid:` line of a descriptor's fdinfo: None if there is none, -1 if the process is reaped.
fn fdinfo_pid(fd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let info = fs::read_to_string(&path).map_err(|e| context(e, format_args!("cannot read {path}")))?;
    let value = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    Ok(value.and_then(|value| value.trim().parse().ok()))
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ExitStatus {
    /// What it gave to exit(3), if it exited.
    pub code: Option<i32>,
    /// The number of the signal that killed it, if one did.
    pub signal: Option<i32>,
    /// It left a core dump.
    pub core: bool,
}

/// `struct pidfd_info` in its first version (linux/pidfd.h).
#[derive(Default)]
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl = 0xC000_FF0B_u32 as libc::Ioctl | (size_of::<PidfdInfo>() as libc::Ioctl) << 16;

impl ExitStatus {
    /// A status as wait(2) gives it.
    fn of_wait(status: i32) -> Self {
        let signalled = libc::WIFSIGNALED(status);
        Self {
            code: (!signalled).then(|| libc::WEXITSTATUS(status)),
            signal: signalled.then(|| libc::WTERMSIG(status)),
            core: signalled && libc::WCOREDUMP(status),
        }
    }

    fn new(si_code: libc::c_int, status: libc::c_int) -> Self {
        let exited = si_code == libc::CLD_EXITED;
        Self { code: exited.then_some(status), signal: (!exited).then_some(status), core: si_code == libc::CLD_DUMPED }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit status {code}")?,
            (None, Some(number)) => {
                write!(f, "killed by signal {number}")?;
                // Real-time signals have no name.
                if let Ok(signal) = Signal::try_from(number) {
                    write!(f, " ({signal})")?;
                }
            }
            (None, None) => f.write_str("unknown exit status")?,
        }
        f.write_str(if self.core { ", core dumped" } else { "" })
    }
}

/// Of [`Stat`].
const START_TIME: usize = 22;

/// When the process started, in clock ticks since boot: together with the pid it names one
/// process of this boot (field 22 of /proc/PID/stat, proc_pid_stat(5)). `NotFound`: no such
/// process.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = Stat::of(pid).map_err(|e| context(e, format_args!("cannot read {path}")))?;
    stat.field(START_TIME).ok_or_else(|| {
        let what = format!("{path} has no start time");
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

fn zombie_status(pid: i32, start_time: u64) -> Option<ExitStatus> {
    let stat = Stat::of(pid).ok()?;
    if stat.state()? != 'Z' || stat.field::<u64>(START_TIME)? != start_time {
        return None;
    }
    stat.field(52).map(ExitStatus::of_wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{Cat, Forked, wait_for};

    #[test]
    fn a_child_lives_and_is_killed() {
        let child = Forked::that_waits();
        let pidfd = child.pidfd();
        assert_eq!(pidfd.pid(), Some(child.pid()));
        assert!(!pidfd.is_dead() && !pidfd.is_zombie());
        assert_eq!(pidfd.wait().unwrap(), None);
        pidfd.kill(Signal::SIGKILL).unwrap();
        wait_for(pidfd.as_fd(), PollFlags::POLLIN);
        assert!(pidfd.is_dead());
        pidfd.kill(Signal::SIGTERM).expect("a zombie takes signals");
        assert!(pidfd.is_zombie());
        let status = pidfd.wait().unwrap().unwrap();
        assert_eq!(status.to_string(), "killed by signal 9 (SIGKILL)");
        assert_eq!(status.code, None);
        // Reaped.
        pidfd.kill(Signal::SIGTERM).expect("a process that is gone is fine");
        assert!(pidfd.is_dead() && !pidfd.is_zombie());
        assert_eq!(pidfd.pid(), None);
        assert_eq!(pidfd.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }

    #[test]
    fn exit_codes_are_told() {
        let child = Forked::that_runs(|| 3);
        let status = child.pidfd().wait_for_end().unwrap().unwrap();
        assert_eq!(status, ExitStatus { code: Some(3), signal: None, core: false });
        assert_eq!(status.to_string(), "exit status 3");
        let realtime = ExitStatus { code: None, signal: Some(40), core: true };
        assert_eq!(realtime.to_string(), "killed by signal 40, core dumped");
    }

    #[test]
    fn only_a_pidfd_is_a_pidfd() {
        let cat = Cat::start();
        let pidfd = Pidfd::open(cat.pid()).unwrap();
        let again = Pidfd::from_fd(pidfd.try_clone().unwrap().into()).unwrap();
        assert_eq!(again.pid(), Some(cat.pid()));
        let error = pidfd.wait().map(|_| ());
        assert!(error.is_ok(), "cat is our child: {error:?}");
        let proc_dir = fs::File::open(format!("/proc/{}", cat.pid())).unwrap();
        let error = Pidfd::from_fd(proc_dir.into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_stranger_cannot_be_reaped() {
        let init = Pidfd::open(1).unwrap();
        assert!(!init.is_dead());
        assert_eq!(init.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
        let none = Pidfd::open(i32::MAX).unwrap_err();
        assert!(matches!(none.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)));
    }

    #[test]
    fn start_time_tells_processes_apart() {
        let own = start_time(std::process::id() as i32).unwrap();
        let cat = Cat::start();
        assert!(start_time(cat.pid()).unwrap() >= own);
        assert_eq!(start_time(i32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
