//! The stack of a child that shares our memory.

use std::ffi::c_void;
use std::ptr;

use nix::errno::Errno;

use super::Failure;

/// The child's stack, with a page below it that nobody can touch.
pub(super) struct Stack(*mut c_void);

impl Stack {
    /// Room for the dynamic linker, which may resolve a function in the child and then saves
    /// all vector registers. Pages that are not touched cost nothing.
    pub(super) const BYTES: usize = 128 * 1024;
    /// The largest page size in use.
    const GUARD_BYTES: usize = 64 * 1024;

    pub(super) fn new() -> Result<Self, Failure> {
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

    /// Its lowest address.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(super) fn bottom(&self) -> *mut c_void {
        self.0
    }

    /// Where the stack begins: it grows down.
    pub(super) fn top(&self) -> *mut c_void {
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
