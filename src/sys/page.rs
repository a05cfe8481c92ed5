//! The decision page: one page of memory, shared by all processes of a handoff, with the one
//! word that says how it ends.
//!
//! Layout, native byte order: 0 magic u64, 8 layout version u32, 16 id u64, 24 decision u32,
//! 28 serving u32, 32 retired u32; the rest is zero. 4096 bytes. It outlives one version of
//! this library.

use std::ffi::c_void;
use std::fs::OpenOptions;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::{fs, io};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl, posix_fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::ftruncate;

use super::fd::{context, file_context, set_cloexec};

/// Size of the page in bytes, whatever the machine's page size is.
pub const PAGE_BYTES: usize = 4096;
/// The first eight bytes: `HANDOFFP` read as a big-endian number.
pub const MAGIC: u64 = u64::from_be_bytes(*b"HANDOFFP");
/// The layout described above.
pub const LAYOUT_VERSION: u32 = 1;
/// Of `retired`, when the incumbent drains on.
const DRAINS: u32 = 2;

/// The decision. It leaves `Open` once, and then never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Word {
    /// Nobody has decided.
    Open = 0,
    /// The successor has committed; the format on disk is unchanged.
    Committed = 1,
    /// The successor has committed and changes the format on disk.
    CommittedIncompatible = 2,
    /// The successor must not commit any more.
    Revoked = 3,
}

impl Word {
    /// Has the successor committed?
    pub fn is_committed(self) -> bool {
        matches!(self, Self::Committed | Self::CommittedIncompatible)
    }

    /// A value that no version with this layout writes counts as `Revoked`: then nobody commits
    /// any more, and who goes on first kills the other side and needs the lock, so that one
    /// process serves. As a commit it could leave nobody.
    fn from_raw(value: u32) -> Self {
        match value {
            0 => Self::Open,
            1 => Self::Committed,
            2 => Self::CommittedIncompatible,
            _ => Self::Revoked,
        }
    }
}

/// A decision page in this process's memory. All its calls are lock-free and touch no disk.
///
/// A page in a file must never be truncated: every process that has it mapped would get SIGBUS.
#[derive(Debug)]
pub struct DecisionPage {
    memory: NonNull<c_void>,
    fd: OwnedFd,
    id: u64,
}

// SAFETY: the mapping belongs to this value alone in this process, and is only accessed through
// atomics.
unsafe impl Send for DecisionPage {}
// SAFETY: as above.
unsafe impl Sync for DecisionPage {}

impl DecisionPage {
    /// A new page for the handoff `id`, with the word `Open`.
    ///
    /// With a path: a file of mode 0600 that must not exist (`O_EXCL`) and whose space is
    /// allocated at once (posix_fallocate(3)), because a full file system would later mean
    /// SIGBUS; the caller unlinks it. Without: anonymous memory that nobody can resize
    /// (memfd_create(2), sealed).
    pub fn create(path: Option<&Path>, id: u64) -> io::Result<Self> {
        let fd = match path {
            Some(path) => create_file(path),
            None => create_memfd(),
        }?;
        let page = Self::map_unchecked(fd, id)?;
        page.long(16).store(id, Ordering::Relaxed);
        page.word_at(8).store(LAYOUT_VERSION, Ordering::Relaxed);
        page.long(0).store(MAGIC, Ordering::Release);
        Ok(page)
    }

    /// A page that another process made, after a check that it is one (mmap(2)). Sets
    /// `FD_CLOEXEC`. `InvalidData`: wrong kind of file, size, magic or layout version.
    pub fn map(fd: OwnedFd) -> io::Result<Self> {
        let invalid = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let stat = fstat(&fd)?;
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            return invalid(format!("descriptor {} is no decision page: not a file", fd.as_raw_fd()));
        }
        if stat.st_size != PAGE_BYTES as libc::off_t {
            let size = stat.st_size;
            return invalid(format!("a decision page has {PAGE_BYTES} bytes, this file has {size}"));
        }
        set_cloexec(&fd)?;
        let mut page = Self::map_unchecked(fd, 0)?;
        let magic = page.long(0).load(Ordering::Acquire);
        if magic != MAGIC {
            return invalid(format!("no decision page: its magic is {magic:#x}, not {MAGIC:#x}"));
        }
        let version = page.word_at(8).load(Ordering::Relaxed);
        if version != LAYOUT_VERSION {
            return invalid(format!("this decision page has layout {version}, this program knows {LAYOUT_VERSION}"));
        }
        page.id = page.long(16).load(Ordering::Relaxed);
        Ok(page)
    }

    fn map_unchecked(fd: OwnedFd, id: u64) -> io::Result<Self> {
        const LENGTH: NonZeroUsize = NonZeroUsize::new(PAGE_BYTES).expect("it is not zero");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // Populated: the first access must not fault in the pause.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let memory = unsafe { mmap(None, LENGTH, protection, flags, &fd, 0) }
            .map_err(|e| context(e, "cannot map the decision page"))?;
        Ok(Self { memory, fd, id })
    }

    /// The handoff that this page belongs to.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Compare-and-swap from `Open` to `to`; gives the word that holds now, for ever: `to` if
    /// this call won (or another wanted the same), or what was decided before.
    pub fn decide(&self, to: Word) -> Word {
        let open = Word::Open as u32;
        let order = (Ordering::AcqRel, Ordering::Acquire);
        match self.word_at(24).compare_exchange(open, to as u32, order.0, order.1) {
            Ok(_) => to,
            Err(found) => Word::from_raw(found),
        }
    }

    /// The word as it is now.
    pub fn word(&self) -> Word {
        Word::from_raw(self.word_at(24).load(Ordering::Acquire))
    }

    /// Says that the successor serves.
    pub fn set_serving(&self) {
        self.word_at(28).store(1, Ordering::Release);
    }

    /// Does the successor serve?
    pub fn is_serving(&self) -> bool {
        self.word_at(28).load(Ordering::Acquire) != 0
    }

    /// Says that the incumbent will never serve again; and whether it serves its last clients before it exits, and holds no
    /// gate.
    pub fn set_retired(&self, drains: bool) {
        self.word_at(32).store(if drains { DRAINS } else { 1 }, Ordering::Release);
    }

    /// Has it retired so?
    pub fn is_draining(&self) -> bool {
        self.word_at(32).load(Ordering::Acquire) == DRAINS
    }

    /// Has the incumbent retired?
    pub fn is_retired(&self) -> bool {
        self.word_at(32).load(Ordering::Acquire) != 0
    }

    fn word_at(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset.is_multiple_of(4) && offset + 4 <= PAGE_BYTES);
        // SAFETY: aligned, inside the mapping, which lives as long as self; every process
        // accesses it as an atomic.
        unsafe { self.memory.cast::<u8>().add(offset).cast::<AtomicU32>().as_ref() }
    }

    fn long(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8) && offset + 8 <= PAGE_BYTES);
        // SAFETY: as above.
        unsafe { self.memory.cast::<u8>().add(offset).cast::<AtomicU64>().as_ref() }
    }
}

impl AsFd for DecisionPage {
    /// The file, to send it to another process.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for DecisionPage {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping, and no reference into it outlives self.
        let _ = unsafe { munmap(self.memory, PAGE_BYTES) };
    }
}

fn create_file(path: &Path) -> io::Result<OwnedFd> {
    let what = |e| file_context(e, format_args!("cannot create decision page {}", path.display()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).map_err(what)?;
    loop {
        match posix_fallocate(&file, 0, PAGE_BYTES as libc::off_t) {
            Ok(()) => return Ok(file.into()),
            Err(Errno::EINTR) => {} // some kernels' tmpfs gives up for any signal
            Err(errno) => {
                let _ = fs::remove_file(path);
                return Err(what(errno.into()));
            }
        }
    }
}

fn create_memfd() -> io::Result<OwnedFd> {
    let fd = memfd_create("handoff-decision", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    ftruncate(&fd, PAGE_BYTES as libc::off_t)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::testing::Forked;

    fn second_map(page: &DecisionPage) -> io::Result<DecisionPage> {
        DecisionPage::map(page.as_fd().try_clone_to_owned().unwrap())
    }

    #[test]
    fn one_decision_is_seen_by_all() {
        let page = DecisionPage::create(None, 4711).unwrap();
        let other = second_map(&page).unwrap();
        assert_eq!((other.id(), other.word()), (4711, Word::Open));
        assert_eq!(page.decide(Word::Committed), Word::Committed);
        assert_eq!(other.decide(Word::Revoked), Word::Committed);
        assert_eq!(other.word(), Word::Committed);
        assert!(other.word().is_committed());
        assert!(!page.is_serving() && !page.is_retired());
        other.set_serving();
        assert!(page.is_serving() && !page.is_retired());
        other.set_retired(false);
        assert!(page.is_retired() && !page.is_draining());
        other.set_retired(true);
        assert!(page.is_retired() && page.is_draining());
    }

    #[test]
    fn two_processes_race_and_one_wins() {
        for _ in 0..50 {
            let page = DecisionPage::create(None, 1).unwrap();
            let child = Forked::that_runs(|| page.decide(Word::Committed) as u8);
            let ours = page.decide(Word::Revoked);
            assert_eq!(child.exit_code(), ours as i32);
            assert_eq!(page.word(), ours);
        }
    }

    #[test]
    fn a_file_is_private_new_and_survives_its_maker() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page");
        let page = DecisionPage::create(Some(&path), 9).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        assert_eq!(found.len(), PAGE_BYTES as u64);
        let error = DecisionPage::create(Some(&path), 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        page.decide(Word::CommittedIncompatible);
        drop(page);
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let page = DecisionPage::map(file.into()).unwrap();
        assert_eq!((page.id(), page.word()), (9, Word::CommittedIncompatible));
    }

    #[test]
    fn the_published_layout() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page");
        let page = DecisionPage::create(Some(&path), 0x0102_0304_0506_0708).unwrap();
        page.decide(Word::Revoked);
        page.set_serving();
        page.set_retired(true);
        let bytes = fs::read(&path).unwrap();
        let mut expected = vec![0u8; PAGE_BYTES];
        expected[0..8].copy_from_slice(&MAGIC.to_ne_bytes());
        expected[8..12].copy_from_slice(&1u32.to_ne_bytes());
        expected[16..24].copy_from_slice(&0x0102_0304_0506_0708u64.to_ne_bytes());
        expected[24..28].copy_from_slice(&3u32.to_ne_bytes());
        expected[28..32].copy_from_slice(&1u32.to_ne_bytes());
        expected[32..36].copy_from_slice(&2u32.to_ne_bytes());
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_is_no_page_is_refused() {
        let refused = |fd: OwnedFd| DecisionPage::map(fd).unwrap_err().kind();
        let file = tempfile::tempfile().unwrap();
        assert_eq!(refused(file.try_clone().unwrap().into()), io::ErrorKind::InvalidData);
        file.set_len(PAGE_BYTES as u64).unwrap();
        assert_eq!(refused(file.into()), io::ErrorKind::InvalidData);
        let (read, _write) = nix::unistd::pipe().unwrap();
        assert_eq!(refused(read), io::ErrorKind::InvalidData);
        let page = DecisionPage::create(None, 1).unwrap();
        page.word_at(8).store(LAYOUT_VERSION + 1, Ordering::Relaxed);
        assert!(second_map(&page).unwrap_err().to_string().contains("layout 2"));
    }

    #[test]
    fn a_memory_page_cannot_be_resized_and_a_strange_word_revokes() {
        let page = DecisionPage::create(None, 1).unwrap();
        assert!(ftruncate(&page.fd, 0).is_err());
        assert!(ftruncate(&page.fd, 8192).is_err());
        page.word_at(24).store(77, Ordering::Relaxed);
        assert_eq!(page.word(), Word::Revoked);
        assert_eq!(page.decide(Word::Committed), Word::Revoked);
    }
}
