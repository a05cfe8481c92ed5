//! Starting a program at a cost that does not grow with the memory of this process.
//!
//! The child shares our memory until it execs (clone(2): `CLONE_VM | CLONE_VFORK`), and runs on
//! a stack of its own, so that no function returns twice. Between clone and exec it does raw
//! system calls on memory that was prepared before, and nothing else: no allocation, no lock,
//! no panic. Without `CLONE_FILES`, `CLONE_FS` and `CLONE_SIGHAND` its descriptors, directory
//! and signal dispositions are copies, and what it does to them stays private.

use std::ffi::{CString, OsStr, OsString, c_char, c_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use nix::errno::Errno;

mod attributes;
mod child;
mod clone;
mod stack;

use super::env::LISTEN_FDS_START;
use super::limits::nofile_of_child;
use super::pidfd::Pidfd;
use super::program::explain_exec;
pub use super::program::find_program;
#[cfg(feature = "program")]
pub(crate) use attributes::ONLY_ROOT;
pub use attributes::{Account, Attributes, Limit, Resource};
use attributes::{CHANGES, Dumpable, Ready};
use child::child_main;
use stack::Stack;

/// What to start, and how.
#[derive(Debug, Clone, Copy)]
pub struct Spawn<'a> {
    /// The file to execute; [`find_program`] searches `PATH`. If relative, it
    /// is so to `dir`.
    pub program: &'a Path,
    /// All arguments, the program's name as the first.
    pub argv: &'a [OsString],
    /// The complete environment: names and values. `WATCHDOG_PID` (sd_watchdog_enabled(3)), if it is empty, gets the child's pid, which only
    /// the child knows.
    pub env: &'a [(OsString, OsString)],
    /// The working directory; None leaves ours.
    pub dir: Option<&'a Path>,
    /// What the child gets as descriptors 3, 4, …; of all others it gets none but 0, 1 and 2.
    pub fds: &'a [BorrowedFd<'a>],
    /// One more, with the number that it gets, which is above those of `fds`.
    pub extra: Option<(BorrowedFd<'a>, RawFd)>,
    /// Makes descriptor 0 /dev/null; otherwise it is ours.
    pub stdin_null: bool,
    /// Descriptor 1; None leaves ours.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Descriptor 2; None leaves ours.
    pub stderr: Option<BorrowedFd<'a>>,
    /// Adds `LISTEN_PID=<the child's pid>`, which only the child knows, to the environment.
    pub listen_pid: bool,
    /// Makes the child the leader of a new session (setsid(2)).
    pub new_session: bool,
    /// User, limits and the like.
    pub attributes: &'a Attributes,
    /// The directory of the control group (cgroups(7)) in which the child begins. If it can not, it is in ours.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The file to execute instead of `program`, which then is only its name. A user to whom /proc/PID/fd of this
    /// process is closed can execute it, too.
    pub file: Option<BorrowedFd<'a>>,
}

impl<'a> Spawn<'a> {
    /// A program with these arguments, no environment and /dev/null as its stdin; all else is ours.
    pub fn new(program: &'a Path, argv: &'a [OsString]) -> Self {
        Self {
            program,
            argv,
            env: &[],
            dir: None,
            fds: &[],
            extra: None,
            stdin_null: true,
            stdout: None,
            stderr: None,
            listen_pid: false,
            new_session: false,
            attributes: Attributes::UNCHANGED,
            cgroup: None,
            file: None,
        }
    }
}

/// A process that was started; not waited for when dropped.
#[derive(Debug)]
pub struct Child {
    /// Its pid, valid until it is reaped.
    pub pid: i32,
    /// Its pidfd. [`Pidfd::wait`] reaps it.
    pub pidfd: Pidfd,
}

/// A program could not be started. No process is left.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {}: {step}: {explanation}", program.display())]
pub struct SpawnError {
    /// What failed, a system call or a check before.
    pub step: &'static str,
    /// The program.
    pub program: PathBuf,
    /// The errno(3) of the step.
    pub errno: i32,
    explanation: String,
}

/// Starts a program and waits until it has exec'ed or failed to; then our memory is our own
/// again, and the child has no descriptors but those it was given.
///
/// The kernel says "exec'ed" when there is no way back: /proc/PID/cmdline and comm change a
/// moment later, and a file that turns out broken after that ends by a signal, which the pidfd
/// tells.
///
/// In the child all signal dispositions are the default, and none is blocked; nice, process group and what
/// [`Attributes`] leave unchanged are ours, but for a soft limit on descriptors that this process has raised. Handlers of pthread_atfork(3) do not run.
/// If SIGCHLD is ignored in this process, the child cannot be waited for.
pub fn spawn(request: &Spawn<'_>) -> Result<Child, SpawnError> {
    let failed = |failure: Failure| failure.explained(request);
    let mut prepared = Prepared::new(request).map_err(failed)?;
    let stack = Stack::new().map_err(failed)?;
    let _dumpable = Dumpable::remember(&request.attributes.account);
    let shared: *mut Prepared = &mut prepared;
    let cloned = {
        // A handler of ours must not run in the child, on our memory.
        let _blocked = AllSignalsBlocked::new();
        // SAFETY: this thread stands still until the child has exec'ed or exited, so what
        // `shared` points to and the stack outlive it and nobody else uses them.
        let clone_into = |cgroup| unsafe { clone::clone_into(cgroup, child_main, shared.cast(), &stack) };
        let in_cgroup = request.cgroup.filter(|_| CHANGES).map(|cgroup| clone_into(cgroup.as_raw_fd()));
        match in_cgroup {
            Some(Ok(cloned)) => Ok(cloned),
            // SAFETY: the same.
            Some(Err(_)) | None => unsafe { clone_here(shared, &stack) },
        }
    };
    let (pid, pidfd) = cloned.map_err(|errno| failed(Failure { step: "clone", errno }))?;
    // SAFETY: clone succeeded, so this is a new descriptor that nobody else has.
    let pidfd = Pidfd::new(unsafe { OwnedFd::from_raw_fd(pidfd) });
    #[cfg(feature = "program")]
    super::descendants::claim(pid);
    // SAFETY: the child does not use it any more.
    if let Some(failure) = unsafe { (*shared).failure } {
        // It exits; ECHILD if SIGCHLD is ignored, then it reaps itself.
        let _ = pidfd.wait_for_end();
        return Err(failed(failure));
    }
    Ok(Child { pid, pidfd })
}

/// The child's pid and pidfd.
///
/// # Safety
///
/// `shared` is used by nobody until this returns.
unsafe fn clone_here(shared: *mut Prepared, stack: &Stack) -> Result<(c_int, RawFd), Errno> {
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: as of this function. With CLONE_PIDFD the fifth argument is where the pidfd goes.
    let pid = Errno::result(unsafe { libc::clone(child_main, stack.top(), flags, shared.cast(), &raw mut pidfd) })?;
    Ok((pid, pidfd))
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    step: &'static str,
    errno: Errno,
}

impl Failure {
    fn explained(self, request: &Spawn<'_>) -> SpawnError {
        let Self { step, errno } = self;
        let explanation = match (step, request.dir) {
            (EXEC, dir) => {
                let program = dir.unwrap_or("".as_ref()).join(request.program);
                let uid = request.attributes.account.uid;
                attributes::explain_exec_as(uid, errno).unwrap_or_else(|| explain_exec(&program, errno))
            }
            (CHDIR, Some(dir)) => format!("{}: {}", dir.display(), errno.desc()),
            ("clone", _) if errno == Errno::EAGAIN => {
                "no more processes are allowed; raise RLIMIT_NPROC (ulimit -u), or pids.max of the control group".into()
            }
            (MOVE, _) if matches!(errno, Errno::EINVAL | Errno::EMFILE | Errno::EBADF) => format!(
                "{} descriptors do not fit into RLIMIT_NOFILE; raise the limit ({})",
                request.fds.len(),
                errno.desc()
            ),
            _ => {
                let account = &request.attributes.account;
                attributes::explain(step, errno, account).unwrap_or_else(|| errno.desc().to_owned())
            }
        };
        SpawnError { step, program: request.program.to_owned(), errno: errno as i32, explanation }
    }
}

const EXEC: &str = "execve";
const CHDIR: &str = "chdir";
const MOVE: &str = "move descriptors into place";

/// Everything that the child needs, in the form that the system calls want.
struct Prepared {
    program: CString,
    argv: Pointers,
    env: Pointers,
    /// Where the child writes the digits of its pid, inside of strings that `env` points to.
    pids: Vec<(Vec<u8>, *mut u8)>,
    dir: Option<CString>,
    stdin_null: bool,
    new_session: bool,
    /// Descriptor i becomes 3 + i. The child overwrites entries that must move out of the way.
    sources: Vec<RawFd>,
    /// What becomes a number above them.
    extra: Option<(RawFd, RawFd)>,
    /// What is executed, and the number that it gets, which is above all others.
    file: Option<(RawFd, RawFd)>,
    /// The file is a script, whose interpreter opens it anew: it stays open.
    is_script: bool,
    /// What becomes 1 and 2.
    output: [Option<RawFd>; 2],
    attributes: Ready,
    /// `RLIMIT_NOFILE`, if it is not ours.
    nofile: Option<libc::rlimit64>,
    /// Written by the child when a step fails.
    failure: Option<Failure>,
}

/// A null-terminated array of C strings that owns them.
struct Pointers {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Pointers {
    fn new(strings: impl Iterator<Item = Vec<u8>>) -> Result<Self, Failure> {
        let strings: Vec<_> = strings.map(c_string).collect::<Result<_, _>>()?;
        let ends = [ptr::null()];
        let pointers = strings.iter().map(|string| string.as_ptr()).chain(ends).collect();
        Ok(Self { _strings: strings, pointers })
    }

    /// One more variable, whose value the child writes: the string, and where in it.
    fn add_pid(&mut self, name: &str) -> (Vec<u8>, *mut u8) {
        let mut text = format!("{name}=").into_bytes();
        let value = text.len();
        text.resize(value + PID_BYTES_MAX, 0);
        let start = text.as_mut_ptr();
        self.pointers.insert(0, start.cast());
        // SAFETY: the digits follow the name, inside the string, which stays where it is when its owner moves.
        (text, unsafe { start.add(value) })
    }
}

fn c_string(bytes: impl Into<Vec<u8>>) -> Result<CString, Failure> {
    CString::new(bytes)
        .map_err(|_| Failure { step: "an argument, variable or path holds a NUL byte", errno: Errno::EINVAL })
}

const LISTEN_PID: &str = "LISTEN_PID";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
/// The digits of an i32, and the NUL.
const PID_BYTES_MAX: usize = 11;

impl Prepared {
    fn new(request: &Spawn<'_>) -> Result<Self, Failure> {
        let name_is_bad = |name: &OsStr| name.is_empty() || name.as_bytes().contains(&b'=');
        if request.env.iter().any(|(name, _)| name_is_bad(name)) {
            let step = "the name of a variable is empty or holds '='";
            return Err(Failure { step, errno: Errno::EINVAL });
        }
        let is_own = |(name, value): &&(OsString, OsString)| match request.listen_pid {
            true if name == LISTEN_PID => true,
            _ => name == WATCHDOG_PID && value.is_empty(),
        };
        let variables = request.env.iter().filter(|variable| !is_own(variable));
        let mut env = Pointers::new(variables.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()))?;
        let has_watchdog = request.env.iter().any(|variable| is_own(&variable) && variable.0 == WATCHDOG_PID);
        let names = [(request.listen_pid, LISTEN_PID), (has_watchdog, WATCHDOG_PID)];
        let pids = names.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| env.add_pid(name)).collect();
        let last = request.extra.map_or(LISTEN_FDS_START + request.fds.len() as RawFd - 1, |(_, number)| number);
        let file = request.file.filter(|_| CHANGES).map(|fd| (fd.as_raw_fd(), last + 1));
        let program = match file {
            Some((_, number)) => c_string(format!("/proc/self/fd/{number}"))?,
            None => c_string(request.program.as_os_str().as_bytes())?,
        };
        Ok(Self {
            program,
            argv: Pointers::new(request.argv.iter().map(|arg| arg.as_bytes().to_vec()))?,
            env,
            pids,
            dir: request.dir.map(|dir| c_string(dir.as_os_str().as_bytes())).transpose()?,
            stdin_null: request.stdin_null,
            new_session: request.new_session,
            sources: request.fds.iter().map(|fd| fd.as_raw_fd()).collect(),
            extra: request.extra.map(|(fd, number)| (fd.as_raw_fd(), number)),
            file,
            is_script: CHANGES && request.file.is_some_and(is_script),
            output: [request.stdout, request.stderr].map(|fd| fd.map(|fd| fd.as_raw_fd())),
            attributes: Ready::new(request.attributes),
            nofile: nofile_of_child(last.unsigned_abs().into())
                .map(|(soft, hard)| libc::rlimit64 { rlim_cur: soft, rlim_max: hard }),
            failure: None,
        })
    }
}

/// The kernel gives the name of a script to its interpreter, which opens it.
fn is_script(file: BorrowedFd<'_>) -> bool {
    let mut start = [0; 2];
    nix::sys::uio::pread(file, &mut start, 0) == Ok(start.len()) && start == *b"#!"
}

const KERNEL_SIGNALS: usize = 64;
const SIGSET_BYTES: usize = KERNEL_SIGNALS / 8;

/// Sets this thread's signal mask and gives the old one (rt_sigprocmask(2), raw: also the
/// signals that the C library keeps for itself).
fn set_signal_mask(mask: u64) -> Result<u64, Errno> {
    let mut old = 0u64;
    // SAFETY: both sets have SIGSET_BYTES.
    Errno::result(unsafe {
        let (how, new) = (libc::SIG_SETMASK, &raw const mask);
        libc::syscall(libc::SYS_rt_sigprocmask, how, new, &raw mut old, SIGSET_BYTES)
    })?;
    Ok(old)
}

/// No signal reaches this thread while it lives.
struct AllSignalsBlocked(Option<u64>);

impl AllSignalsBlocked {
    fn new() -> Self {
        Self(set_signal_mask(u64::MAX).ok())
    }
}

impl Drop for AllSignalsBlocked {
    fn drop(&mut self) {
        if let Some(mask) = self.0 {
            let _ = set_signal_mask(mask);
        }
    }
}

#[cfg(test)]
mod tests;
