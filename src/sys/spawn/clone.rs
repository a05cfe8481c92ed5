//! A child that begins in a control group (clone3(2), `CLONE_INTO_CGROUP`).
//!
//! The other way, a child that writes itself into `cgroup.procs`, makes its parent wait for a grace period of the kernel, milliseconds.
//! The C library has no function for this one.

use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;

use nix::errno::Errno;

use super::stack::Stack;

/// As linux/sched.h has it; the number is too large for the C library's type of flags.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// `struct clone_args` (clone3(2)), in the version with a control group.
#[repr(C)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What [`clone_into`] runs on the new stack. Its return value is the exit status.
pub(super) type Main = extern "C" fn(*mut c_void) -> c_int;

/// The child's pid and pidfd. It shares our memory, and we stand still until it has exec'ed or exited, as in `spawn`.
///
/// # Safety
///
/// As of clone(2) with these flags: `main` does nothing but what a child that shares our memory may, on `argument`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) unsafe fn clone_into(
    cgroup: RawFd,
    main: Main,
    argument: *mut c_void,
    stack: &Stack,
) -> Result<(c_int, RawFd), Errno> {
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;
    let arguments = CloneArgs {
        flags: flags as u64 | CLONE_INTO_CGROUP,
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.bottom() as u64,
        stack_size: Stack::BYTES as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup as u64,
    };
    // SAFETY: as of this function; the arguments live until the call returns, here and only here.
    let answer = unsafe { clone3(&arguments, main, argument) };
    match answer {
        0.. => Ok((answer as c_int, pidfd)),
        _ => Err(Errno::from_raw(-answer as i32)),
    }
}

/// The system call. The child never comes back from it: it runs `main` on its own stack, and ends.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(arguments: &CloneArgs, main: Main, argument: *mut c_void) -> isize {
    let mut answer = libc::SYS_clone3 as isize;
    // SAFETY: in the parent this is a system call, which changes rax, rcx and r11. The child has a stack of its own, which is
    // aligned as a call wants it, and leaves by exit(2).
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "mov edi, eax",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const libc::SYS_exit,
            inlateout("rax") answer,
            in("rdi") arguments,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") argument,
            in("r13") main,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer
}

/// The same.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(arguments: &CloneArgs, main: Main, argument: *mut c_void) -> isize {
    let answer: isize;
    // SAFETY: in the parent this is a system call, which changes x0. The child has a stack of its own, which is aligned as a
    // call wants it, and leaves by exit(2).
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {argument}",
            "blr {main}",
            "mov x8, {exit}",
            "svc 0",
            "brk 1",
            "2:",
            exit = const libc::SYS_exit,
            argument = in(reg) argument,
            main = in(reg) main,
            inlateout("x0") arguments => answer,
            in("x1") size_of::<CloneArgs>(),
            in("x8") libc::SYS_clone3,
        );
    }
    answer
}

/// Other machines do without control groups.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) unsafe fn clone_into(_: RawFd, _: Main, _: *mut c_void, _: &Stack) -> Result<(c_int, RawFd), Errno> {
    Err(Errno::ENOSYS)
}
