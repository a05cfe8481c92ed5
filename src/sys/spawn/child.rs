//! What the child does between clone and exec: raw system calls on memory that was prepared before, and nothing else.

use super::attributes::CHANGES;
use super::{CHDIR, EXEC, Failure, KERNEL_SIGNALS, MOVE, Prepared, SIGSET_BYTES, set_signal_mask};
use crate::sys::crash;
use crate::sys::env::LISTEN_FDS_START;
use nix::errno::Errno;
use std::convert::Infallible;
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::ptr;

/// What the child runs. Its return value is its exit status.
pub(super) extern "C" fn child_main(shared: *mut c_void) -> c_int {
    // SAFETY: spawn passed a Prepared that only this process uses now.
    let prepared = unsafe { &mut *shared.cast::<Prepared>() };
    crash::point('N', format_args!("before exec"));
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
        prepared.attributes.apply_first()?;
        place_descriptors(prepared)?;
        if let Some(limit) = &prepared.nofile {
            set_limit("RLIMIT_NOFILE", libc::RLIMIT_NOFILE, limit)?;
        }
        prepared.attributes.apply_rest()?;
        // As the user that it runs as: root may be nobody on a network file system.
        if let Some(dir) = &prepared.dir {
            attempt(CHDIR, libc::chdir(dir.as_ptr()))?;
        }
        for (_, digits) in &prepared.pids {
            write_decimal(libc::getpid() as u32, *digits);
        }
        reset_signals()?;
        prepared.attributes.seal()?;
        let argv = prepared.argv.pointers.as_ptr();
        libc::execve(prepared.program.as_ptr(), argv, prepared.env.pointers.as_ptr());
    }
    Err(Failure { step: EXEC, errno: Errno::last() })
}

pub(super) fn attempt(step: &'static str, result: c_int) -> Result<c_int, Failure> {
    Errno::result(result).map_err(|errno| Failure { step, errno })
}

/// # Safety
///
/// Only for the child.
pub(super) unsafe fn set_limit(
    step: &'static str,
    resource: libc::__rlimit_resource_t,
    limit: &libc::rlimit64,
) -> Result<(), Failure> {
    let old = ptr::null_mut::<libc::rlimit64>();
    // SAFETY: numbers, and memory that lives.
    let set = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, ptr::from_ref(limit), old) };
    attempt(step, set as c_int).map(drop)
}

/// Moves every source to its place and closes all others.
///
/// Filling the places in ascending order overwrites only sources below the place being filled:
/// those move up first. In the usual case there are few, so 1000 listeners cost 1000 calls.
///
/// # Safety
///
/// Only for the child: it overwrites descriptors.
pub(super) unsafe fn place_descriptors(prepared: &mut Prepared) -> Result<(), Failure> {
    let end = LISTEN_FDS_START.saturating_add(prepared.sources.len() as RawFd);
    // SAFETY: system calls on numbers; the descriptor table is the child's own.
    unsafe {
        let move_up = |source: &mut RawFd| {
            *source = attempt(MOVE, libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, end))?;
            Ok(())
        };
        for (source, place) in prepared.sources.iter_mut().zip(LISTEN_FDS_START..) {
            if (LISTEN_FDS_START..place).contains(source) {
                move_up(source)?;
            }
        }
        let extra = prepared.extra.as_mut().map(|(source, _)| source);
        let file = prepared.file.as_mut().filter(|_| CHANGES).map(|(source, _)| source);
        for source in prepared.output.iter_mut().flatten().chain(extra).chain(file) {
            if *source < end {
                move_up(source)?;
            }
        }
        for (source, place) in prepared.sources.iter().zip(LISTEN_FDS_START..) {
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
        if let (Some((file, _)), Some((_, number))) = (&mut prepared.file, prepared.extra)
            && CHANGES
            && *file == number
        {
            *file = attempt(MOVE, libc::fcntl(*file, libc::F_DUPFD_CLOEXEC, number + 1))?;
        }
        let extra = prepared.extra.map(|(source, number)| (source, number, 0));
        let flags = if prepared.is_script { 0 } else { libc::FD_CLOEXEC };
        let file = prepared.file.filter(|_| CHANGES).map(|(source, number)| (source, number, flags));
        for (source, number, flags) in extra.into_iter().chain(file) {
            // In two steps, so that the flags are these, whatever they were and wherever it is.
            attempt(MOVE, libc::dup2(source, number))?;
            attempt(MOVE, libc::fcntl(number, libc::F_SETFD, flags))?;
            if number as u32 > rest {
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

/// Writes a number and a NUL to `place`.
///
/// # Safety
///
/// `place` has room for [`PID_BYTES_MAX`](super::PID_BYTES_MAX) bytes.
pub(super) unsafe fn write_decimal(number: u32, mut place: *mut u8) {
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
