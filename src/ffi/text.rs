//! Bytes in and out.

use crate::error::{Error, Result};
use std::ffi::{CStr, CString, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;

/// A string that may be NULL.
///
/// # Safety
/// NULL, or NUL-terminated and unchanged while the result is used.
pub(super) unsafe fn optional<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A string that may not be NULL.
///
/// # Safety
/// As [`optional`].
pub(super) unsafe fn required<'a>(text: *const c_char, name: &str) -> Result<&'a [u8]> {
    // SAFETY: the caller's promise.
    unsafe { optional(text) }.ok_or_else(|| Error::Invalid(format!("{name} is NULL")))
}

/// `count` numbers at `numbers`.
///
/// # Safety
/// If `count` is at most `max`, there are that many, unchanged while the result is used.
pub(super) unsafe fn numbers<'a>(numbers: *const u64, count: usize, max: usize) -> Result<&'a [u64]> {
    match (count, numbers.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => Err(Error::Invalid(format!("{count} revisions, but no pointer to them"))),
        _ if count > max => Err(Error::TooBig(format!("at most {max} revisions"))),
        _ if !numbers.is_aligned() => Err(Error::Invalid("the revisions are not aligned".into())),
        // SAFETY: not NULL, aligned, and of a length that the caller promised.
        _ => Ok(unsafe { std::slice::from_raw_parts(numbers, count) }),
    }
}

/// `size` bytes at `data`.
///
/// # Safety
/// There are that many, unchanged while the result is used.
pub(super) unsafe fn blob<'a>(data: *const c_void, size: usize) -> Result<&'a [u8]> {
    match (size, data.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => Err(Error::Invalid(format!("{size} bytes, but no pointer to them"))),
        _ if isize::try_from(size).is_err() => Err(Error::TooBig(format!("{size} bytes are more than there can be"))),
        // SAFETY: not NULL, bytes need no alignment, and of a length that the caller promised.
        _ => Ok(unsafe { std::slice::from_raw_parts(data.cast(), size) }),
    }
}

pub(super) fn os(text: &[u8]) -> &OsStr {
    OsStr::from_bytes(text)
}

/// For C: a NUL inside would end it early.
pub(super) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// Copies what fits, whole characters only, and ends it with a NUL. Nothing if there is no room at all.
///
/// # Safety
/// `buf` is NULL or has `size` bytes.
pub(super) unsafe fn copy_out(text: &str, buf: *mut c_char, size: usize) {
    if buf.is_null() || size == 0 {
        return;
    }
    let fits = text.floor_char_boundary(size - 1);
    // SAFETY: `fits` + 1 is at most `size`; a buffer of the caller does not overlap a string of the library.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buf, fits);
        *buf.add(fits) = 0;
    }
}
