//! Another program in the place of this one, in the same process: execveat(2), with a way back.

use std::collections::BTreeSet;
use std::ffi::{CString, OsString, c_char, c_int};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr::null;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_name;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::alarm;

/// Arguments and environment, as the kernel takes them.
struct Strings {
    owned: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Strings {
    fn new(strings: impl IntoIterator<Item = OsString>) -> Self {
        // One with a NUL can not come from a kernel.
        let owned: Vec<CString> = strings.into_iter().filter_map(|one| CString::new(one.into_vec()).ok()).collect();
        let pointers = owned.iter().map(|one| one.as_ptr()).chain([null()]).collect();
        Self { owned, pointers }
    }
}

/// What is executed: a file that is open, and so stays the same.
pub struct Program {
    file: RawFd,
    argv: Strings,
    env: Strings,
}

impl Program {
    /// This file with our own arguments, and our own environment, in which these variables are others. It must stay open.
    pub fn new(file: &File, changed: &[(&str, Option<OsString>)]) -> Self {
        let is_other = |name: &OsString| changed.iter().any(|(changed, _)| name.as_os_str() == *changed);
        let line = |name: OsString, value: OsString| {
            let mut line = name;
            line.push("=");
            line.push(value);
            line
        };
        let kept = std::env::vars_os().filter(|(name, _)| !is_other(name)).map(|(name, value)| line(name, value));
        let new = changed.iter().filter_map(|(name, value)| Some(line(OsString::from(*name), value.clone()?)));
        Self { file: file.as_raw_fd(), argv: Strings::new(std::env::args_os()), env: Strings::new(kept.chain(new)) }
    }

    /// Executes it. These descriptors stay open, and no others. It returns only if that was not possible; then nothing has changed.
    pub fn execute(&self, kept: &BTreeSet<RawFd>) -> io::Error {
        kept.iter().for_each(|number| set_flag(*number, 0));
        // Nobody must be ended by it before the new program is ready for it.
        let _ = SigSet::from(Signal::SIGALRM).thread_block();
        let error = execve_at(self.file, self.argv.pointers.as_ptr(), self.env.pointers.as_ptr());
        let _ = SigSet::from(Signal::SIGALRM).thread_unblock();
        kept.iter().for_each(|number| set_flag(*number, libc::FD_CLOEXEC));
        error.into()
    }

    /// For the handler, which may come at any time from now on: for ever.
    fn leak(self) -> &'static Self {
        debug_assert_eq!(self.env.owned.len() + 1, self.env.pointers.len());
        Box::leak(Box::new(self))
    }
}

fn set_flag(number: RawFd, flag: c_int) {
    // SAFETY: F_SETFD takes numbers.
    unsafe { libc::fcntl(number, libc::F_SETFD, flag) };
}

/// Async-signal-safe.
fn execve_at(file: RawFd, argv: *const *const c_char, env: *const *const c_char) -> Errno {
    // SAFETY: an empty path that ends in NUL; two lists of strings that end in NUL, which live, and end in a null pointer themselves.
    unsafe { libc::syscall(libc::SYS_execveat, file, c"".as_ptr(), argv, env, libc::AT_EMPTY_PATH) };
    Errno::last()
}

/// What ends a program that has gone wrong.
const FATAL: [Signal; 6] =
    [Signal::SIGALRM, Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT];

static WAY_BACK: [AtomicPtr<Program>; FATAL.len()] = [const { AtomicPtr::new(std::ptr::null_mut()) }; FATAL.len()];
/// Only the process that made it goes it.
static GUARDED: AtomicI32 = AtomicI32::new(0);

/// The time for the next program begins (alarm(2), which execve(2) does not end); full seconds.
pub fn begin_time(time: Duration) {
    alarm::set(u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1));
}

/// It is over.
pub fn end_time() {
    alarm::cancel();
}

/// The signals of which each leads to another program: because its time is over, or because it has crashed.
pub struct Guard(Vec<(Signal, SigAction)>);

impl Guard {
    /// Executes what `program` says for each signal when it comes: the time of [`begin_time`], or a crash. All descriptors that are not
    /// close-on-exec stay open.
    pub fn new(program: impl Fn(Signal) -> Program) -> io::Result<Self> {
        GUARDED.store(std::process::id().cast_signed(), Ordering::Release);
        // On the stack that std has for it, since that of the thread may be full; and not blocked, or it were so in the next program.
        let flags = SaFlags::SA_ONSTACK | SaFlags::SA_NODEFER;
        let action = SigAction::new(SigHandler::Handler(go_back), flags, SigSet::empty());
        let mut before = Vec::new();
        for (signal, way) in FATAL.into_iter().zip(&WAY_BACK) {
            way.store(std::ptr::from_ref(program(signal).leak()).cast_mut(), Ordering::Release);
            // SAFETY: the handler makes nothing but async-signal-safe calls.
            before.push((signal, unsafe { sigaction(signal, &action) }?));
        }
        SigSet::from(Signal::SIGALRM).thread_unblock()?;
        Ok(Self(before))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        end_time();
        for (signal, action) in &self.0 {
            // SAFETY: what was there before.
            let _ = unsafe { sigaction(*signal, action) };
        }
    }
}

extern "C" fn go_back(signal: c_int) {
    let own = GUARDED.load(Ordering::Acquire) == std::process::id().cast_signed();
    let index = FATAL.iter().position(|fatal| *fatal as c_int == signal);
    if let Some(index) = index.filter(|_| own) {
        let program = WAY_BACK[index].load(Ordering::Acquire);
        // SAFETY: it was stored before the handler was installed, and is never freed.
        if let Some(program) = unsafe { program.as_ref() } {
            execve_at(program.file, program.argv.pointers.as_ptr(), program.env.pointers.as_ptr());
        }
    }
    // SAFETY: _exit takes a number, and is async-signal-safe.
    unsafe { libc::_exit(125) };
}

/// Closes descriptors that nobody owns.
pub fn close_all(numbers: &BTreeSet<RawFd>) {
    for number in numbers {
        // SAFETY: the caller's list is of those that the program before has left, and each has a duplicate where it is needed.
        unsafe { libc::close(*number) };
    }
}

/// What ps(1) shows: a program that was executed by its descriptor has its number as a name.
pub fn name_process(argument: &OsString) {
    let base = std::path::Path::new(argument).file_name().unwrap_or(argument);
    if let Ok(name) = CString::new(base.as_bytes()) {
        let _ = set_name(&name);
    }
}

/// The file that this program was started from, whatever has become of its name.
pub fn own_file() -> io::Result<File> {
    File::open("/proc/self/exe")
}

/// Whether two descriptors are of the same file, with the same content as far as its times tell.
pub fn is_unchanged(file: &File, before: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |found: &std::fs::Metadata| (found.len(), found.mtime(), found.mtime_nsec());
    debug_assert!(file.as_fd().as_raw_fd() >= 0);
    file.metadata().is_ok_and(|now| of(&now) == of(before))
}
