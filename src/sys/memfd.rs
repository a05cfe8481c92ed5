//! Memory with a descriptor: copies that nobody can change any more, and their mappings.

use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;

/// The seals of a copy: its bytes and its size are for ever.
fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// Copies `data` into memory of its own, and seals it (memfd_create(2), fcntl(2) `F_ADD_SEALS`).
pub fn sealed_copy(data: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(c"handoff-state", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(data)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(file.into())
}

/// Whether nobody can change the bytes or the size any more.
pub fn is_sealed(fd: BorrowedFd<'_>) -> bool {
    fcntl(fd, FcntlArg::F_GET_SEALS).is_ok_and(|found| SealFlag::from_bits_retain(found).contains(seals()))
}

/// A sealed copy in this process's memory, to be read.
#[derive(Debug)]
pub struct Mapping {
    /// None if it has no bytes: those can not be mapped.
    memory: Option<(NonNull<c_void>, NonZeroUsize)>,
}

// SAFETY: the mapping belongs to this value alone in this process, and its bytes never change.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps all of it (mmap(2)). `InvalidInput`: it is not sealed, so its bytes could change.
    pub fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        if !is_sealed(fd) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this memory is not sealed"));
        }
        let size = usize::try_from(fstat(fd)?.st_size).unwrap_or(0);
        let Some(size) = NonZeroUsize::new(size) else { return Ok(Self { memory: None }) };
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let memory = unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, fd.as_fd(), 0) }?;
        Ok(Self { memory: Some((memory, size)) })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self.memory {
            // SAFETY: mapped, of that size, until this value is dropped; sealed, so nobody writes or truncates it.
            Some((memory, size)) => unsafe { std::slice::from_raw_parts(memory.as_ptr().cast(), size.get()) },
            None => &[],
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some((memory, size)) = self.memory {
            // SAFETY: made by `new`, and nobody has a reference any more.
            let _ = unsafe { munmap(memory, size.get()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_read_back_and_can_not_be_changed() {
        for data in [&b""[..], b"x", &[7; 100_000]] {
            let fd = sealed_copy(data).unwrap();
            assert!(is_sealed(fd.as_fd()));
            assert_eq!(Mapping::new(fd.as_fd()).unwrap().bytes(), data);
            let mut file = File::from(fd);
            assert!(file.write_all(b"more").is_err());
            assert!(file.set_len(0).is_err() || data.is_empty());
        }
    }

    #[test]
    fn what_could_change_is_not_mapped() {
        let open = memfd_create(c"open", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        assert!(!is_sealed(open.as_fd()));
        assert_eq!(Mapping::new(open.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let pipe = nix::unistd::pipe().unwrap();
        assert!(!is_sealed(pipe.0.as_fd()));
    }
}
