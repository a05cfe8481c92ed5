//! Starting a program at a cost that does not grow with the memory of this process.
//!
//! The child shares our memory until it execs (clone(2): `CLONE_VM | CLONE_VFORK`), and runs on
//! a stack of its own, so that no function returns twice. Between clone and exec it does raw
//! system calls on memory that was prepared before, and nothing else: no allocation, no lock,
//! no panic. Without `CLONE_FILES`, `CLONE_FS` and `CLONE_SIGHAND` its descriptors, directory
//! and signal dispositions are copies, and what it does to them stays private.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use nix::errno::Errno;

use super::pidfd::Pidfd;
use super::program::explain_exec;
pub use super::program::find_program;

/// The first descriptor after stdin, stdout and stderr.
const FIRST_FD: RawFd = 3;

/// What to start, and how.
#[derive(Debug, Clone, Copy)]
pub struct Spawn<'a> {
    /// The file to execute; [`find_program`] searches `PATH`. If relative, it
    /// is so to `dir`.
    pub program: &'a Path,
    /// All arguments, the program's name as the first.
    pub argv: &'a [OsString],
    /// The complete environment: names and values.
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
/// In the child all signal dispositions are the default, and none is blocked; umask, nice,
/// limits, process group and control group are ours. Handlers of pthread_atfork(3) do not run.
/// If SIGCHLD is ignored in this process, the child cannot be waited for.
pub fn spawn(request: &Spawn<'_>) -> Result<Child, SpawnError> {
    let failed = |failure: Failure| failure.explained(request);
    let mut prepared = Prepared::new(request).map_err(failed)?;
    let stack = Stack::new().map_err(failed)?;
    let mut pidfd: c_int = -1;
    let shared: *mut Prepared = &mut prepared;
    let cloned = {
        // A handler of ours must not run in the child, on our memory.
        let _blocked = AllSignalsBlocked::new();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: this thread stands still until the child has exec'ed or exited, so what
        // `shared` points to and the stack outlive it and nobody else uses them. With
        // CLONE_PIDFD the fifth argument is where the pidfd goes.
        Errno::result(unsafe { libc::clone(child_main, stack.top(), flags, shared.cast(), &raw mut pidfd) })
    };
    let pid = cloned.map_err(|errno| failed(Failure { step: "clone", errno }))?;
    // SAFETY: clone succeeded, so this is a new descriptor that nobody else has.
    let pidfd = Pidfd::new(unsafe { OwnedFd::from_raw_fd(pidfd) });
    // SAFETY: the child does not use it any more.
    if let Some(failure) = unsafe { (*shared).failure } {
        // It exits; ECHILD if SIGCHLD is ignored, then it reaps itself.
        let _ = pidfd.wait_for_end();
        return Err(failed(failure));
    }
    Ok(Child { pid, pidfd })
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
            (EXEC, dir) => explain_exec(&dir.unwrap_or("".as_ref()).join(request.program), errno),
            (CHDIR, Some(dir)) => format!("{}: {}", dir.display(), errno.desc()),
            (MOVE, _) if matches!(errno, Errno::EINVAL | Errno::EMFILE | Errno::EBADF) => format!(
                "{} descriptors do not fit into RLIMIT_NOFILE; raise the limit ({})",
                request.fds.len(),
                errno.desc()
            ),
            _ => errno.desc().to_owned(),
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
    /// Where the child writes the digits of its pid, inside a string that `env` points to.
    listen_pid: Option<(Vec<u8>, *mut u8)>,
    dir: Option<CString>,
    stdin_null: bool,
    new_session: bool,
    /// Descriptor i becomes 3 + i. The child overwrites entries that must move out of the way.
    sources: Vec<RawFd>,
    /// What becomes a number above them.
    extra: Option<(RawFd, RawFd)>,
    /// What becomes 1 and 2.
    output: [Option<RawFd>; 2],
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
}

fn c_string(bytes: impl Into<Vec<u8>>) -> Result<CString, Failure> {
    CString::new(bytes)
        .map_err(|_| Failure { step: "an argument, variable or path holds a NUL byte", errno: Errno::EINVAL })
}

const LISTEN_PID: &[u8] = b"LISTEN_PID=";
/// The digits of an i32, and the NUL.
const PID_BYTES_MAX: usize = 11;

impl Prepared {
    fn new(request: &Spawn<'_>) -> Result<Self, Failure> {
        let name_is_bad = |name: &OsStr| name.is_empty() || name.as_bytes().contains(&b'=');
        if request.env.iter().any(|(name, _)| name_is_bad(name)) {
            let step = "the name of a variable is empty or holds '='";
            return Err(Failure { step, errno: Errno::EINVAL });
        }
        let variables = request.env.iter().filter(|(name, _)| !request.listen_pid || name != "LISTEN_PID");
        let mut env = Pointers::new(variables.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()))?;
        let listen_pid = request.listen_pid.then(|| {
            let mut text = LISTEN_PID.to_vec();
            text.resize(LISTEN_PID.len() + PID_BYTES_MAX, 0);
            let start = text.as_mut_ptr();
            env.pointers.insert(0, start.cast());
            // SAFETY: the digits follow the name, inside the string.
            (text, unsafe { start.add(LISTEN_PID.len()) })
        });
        Ok(Self {
            program: c_string(request.program.as_os_str().as_bytes())?,
            argv: Pointers::new(request.argv.iter().map(|arg| arg.as_bytes().to_vec()))?,
            env,
            listen_pid,
            dir: request.dir.map(|dir| c_string(dir.as_os_str().as_bytes())).transpose()?,
            stdin_null: request.stdin_null,
            new_session: request.new_session,
            sources: request.fds.iter().map(|fd| fd.as_raw_fd()).collect(),
            extra: request.extra.map(|(fd, number)| (fd.as_raw_fd(), number)),
            output: [request.stdout, request.stderr].map(|fd| fd.map(|fd| fd.as_raw_fd())),
            failure: None,
        })
    }
}

/// What the child runs. Its return value is its exit status.
extern "C" fn child_main(shared: *mut c_void) -> c_int {
    // SAFETY: spawn passed a Prepared that only this process uses now.
    let prepared = unsafe { &mut *shared.cast::<Prepared>() };
    super::crash::point('N', format_args!("before exec"));
    // SAFETY: this is the child of clone.
    let Err(failure) = unsafe { become_program(prepared) };
    prepared.failure = Some(failure);
    127
}

/// # Safety
///
/// Only for the child: it replaces this process.
unsafe fn become_program(prepared: &mut Prepared) -> Result<Infallible, Failure> {
    // SAFETY: async-signal-safe calls; every pointer is into `prepared` or static.
    unsafe {
        if prepared.new_session {
            attempt("setsid", libc::setsid())?;
        }
        if let Some(dir) = &prepared.dir {
            attempt(CHDIR, libc::chdir(dir.as_ptr()))?;
        }
        place_descriptors(prepared)?;
        if let Some((_, digits)) = prepared.listen_pid {
            write_decimal(libc::getpid() as u32, digits);
        }
        reset_signals()?;
        let argv = prepared.argv.pointers.as_ptr();
        libc::execve(prepared.program.as_ptr(), argv, prepared.env.pointers.as_ptr());
    }
    Err(Failure { step: EXEC, errno: Errno::last() })
}

fn attempt(step: &'static str, result: c_int) -> Result<c_int, Failure> {
    Errno::result(result).map_err(|errno| Failure { step, errno })
}

/// Moves every source to its place and closes all others.
///
/// Filling the places in ascending order overwrites only sources below the place being filled:
/// those move up first. In the usual case there are few, so 1000 listeners cost 1000 calls.
///
/// # Safety
///
/// Only for the child: it overwrites descriptors.
unsafe fn place_descriptors(prepared: &mut Prepared) -> Result<(), Failure> {
    let end = FIRST_FD.saturating_add(prepared.sources.len() as RawFd);
    // SAFETY: system calls on numbers; the descriptor table is the child's own.
    unsafe {
        let move_up = |source: &mut RawFd| {
            *source = attempt(MOVE, libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, end))?;
            Ok(())
        };
        for (source, place) in prepared.sources.iter_mut().zip(FIRST_FD..) {
            if (FIRST_FD..place).contains(source) {
                move_up(source)?;
            }
        }
        let extra = prepared.extra.as_mut().map(|(source, _)| source);
        for source in prepared.output.iter_mut().flatten().chain(extra) {
            if *source < end {
                move_up(source)?;
            }
        }
        for (source, place) in prepared.sources.iter().zip(FIRST_FD..) {
            if *source == place {
                attempt(MOVE, libc::fcntl(place, libc::F_SETFD, 0))?;
            } else {
                attempt(MOVE, libc::dup2(*source, place))?;
            }
        }
        for (source, place) in prepared.output.iter().zip(1..) {
            if let Some(source) = source {
                attempt("dup2 stdout, stderr", libc::dup2(*source, place))?;
            }
        }
        if prepared.stdin_null {
            let null = attempt("open /dev/null", libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY))?;
            attempt("dup2 stdin", libc::dup2(null, 0))?;
        }
        // Last: its number may be that of a source.
        let mut rest = end as u32;
        if let Some((source, number)) = prepared.extra {
            // In two steps, so that it is not close-on-exec, whatever it was and wherever it is.
            attempt(MOVE, libc::dup2(source, number))?;
            attempt(MOVE, libc::fcntl(number, libc::F_SETFD, 0))?;
            if number > end {
                close_range(rest, number as u32 - 1)?;
            }
            rest = number as u32 + 1;
        }
        close_range(rest, u32::MAX)?;
    }
    Ok(())
}

/// # Safety
///
/// Only for the child: it closes descriptors.
unsafe fn close_range(first: u32, last: u32) -> Result<(), Failure> {
    // SAFETY: three numbers.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) };
    attempt("close_range (needs Linux 5.9)", closed as c_int).map(drop)
}

/// Default dispositions first, then nothing blocked: the other way round a handler of the
/// parent could run here.
///
/// # Safety
///
/// Only for the child.
unsafe fn reset_signals() -> Result<(), Failure> {
    // Raw calls, because the C library hides two signals of its own. All-zero is SIG_DFL
    // without flags in every layout of the kernel's struct.
    let default = [0u64; 8];
    for signal in 1..=KERNEL_SIGNALS as c_int {
        // It fails for SIGKILL and SIGSTOP only, which nobody can change.
        // SAFETY: the kernel reads less than `default` has.
        unsafe {
            let old = ptr::null_mut::<c_void>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, SIGSET_BYTES)
        };
    }
    set_signal_mask(0).map(drop).map_err(|errno| Failure { step: "sigprocmask", errno })
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

/// Writes a number and a NUL to `place`.
///
/// # Safety
///
/// `place` has room for [`PID_BYTES_MAX`] bytes.
unsafe fn write_decimal(number: u32, mut place: *mut u8) {
    let mut divisor = 1;
    while number / divisor >= 10 {
        divisor *= 10;
    }
    while divisor > 0 {
        // SAFETY: a u32 has at most ten digits.
        unsafe {
            place.write(b'0' + (number / divisor % 10) as u8);
            place = place.add(1);
        }
        divisor /= 10;
    }
    // SAFETY: one more byte.
    unsafe { place.write(0) };
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

/// The child's stack, with a page below it that nobody can touch.
struct Stack(*mut c_void);

impl Stack {
    /// Room for the dynamic linker, which may resolve a function in the child and then saves
    /// all vector registers. Pages that are not touched cost nothing.
    const BYTES: usize = 128 * 1024;
    /// The largest page size in use.
    const GUARD_BYTES: usize = 64 * 1024;

    fn new() -> Result<Self, Failure> {
        let failed = |errno| Failure { step: "mmap a stack", errno };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), Self::BYTES, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(failed(Errno::last()));
        }
        let stack = Self(start);
        // SAFETY: the start of the mapping just made.
        Errno::result(unsafe { libc::mprotect(start, Self::GUARD_BYTES, libc::PROT_NONE) }).map_err(failed)?;
        Ok(stack)
    }

    /// Where the stack begins: it grows down.
    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping; a multiple of the page size, so aligned.
        unsafe { self.0.byte_add(Self::BYTES) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, and the child that used it has exec'ed or exited.
        unsafe { libc::munmap(self.0, Self::BYTES) };
    }
}

#[cfg(test)]
mod tests;
