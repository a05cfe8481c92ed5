//! State and connections that move.

use super::handle::{Class, Handoff, call};
use super::structs::handoff_connection;
use super::text::{blob, required};
use crate::error::{Error, Result};
use crate::participant::{StateBytes, TransferredConnection};
use crate::sys::fd::is_open;
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::sync::{Mutex, PoisonError};

/// What was given to C and is only borrowed.
#[derive(Default)]
pub(super) struct Lent {
    /// The name and the state of the last connection.
    connection: Mutex<(CString, Vec<u8>)>,
    /// Mapped until the handle is freed.
    blobs: Mutex<Vec<StateBytes>>,
}

/// [event] Inside of a drain or a seal: gives the successor a copy of size bytes at data, in sealed memory (memfd_create(2)), which it
/// finds with handoff_get_state. key has 1 to 255 bytes; data may be NULL if size is 0. Waits while the successor has not
/// taken what was given before, at most until the event's deadline. Is undone with the handoff: in the next one everything
/// is given anew.
/// HANDOFF_ESTALE: the event was cancelled or is late, or the successor is gone. HANDOFF_ESTATE: no drain or seal is open.
/// HANDOFF_EREFUSED: the successor takes nothing, see HANDOFF_OPT_TRANSFER; in overlap mode always, since it has begun long ago. HANDOFF_EDUPLICATE: the key was used in this handoff.
/// HANDOFF_EINVAL, HANDOFF_ETOOBIG: the key is NULL or empty, or longer. HANDOFF_ESYSTEM: no memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_put_state(
    h: *mut Handoff,
    key: *const c_char,
    data: *const c_void,
    size: usize,
) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(h, Class::Any, "handoff_put_state", |h| {
            h.participant.put_state(required(key, "key")?, blob(data, size)?).map(|()| 0)
        })
    }
}

/// [event] As handoff_put_state, for a memfd or a file of yours, of any size, without a copy, and NOT sealed: the successor
/// gets a duplicate of fd, with the same offset, from handoff_take_state_fd. fd stays yours: keep the file unchanged until
/// RESUME, after which you may write it again, or REPLACED. HANDOFF_EINVAL, too: fd is closed, neither a memfd nor a file, or
/// the library's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_put_state_fd(h: *mut Handoff, key: *const c_char, fd: c_int) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(h, Class::Any, "handoff_put_state_fd", |h| {
            h.participant.put_state_fd(required(key, "key")?, descriptor(fd)?).map(|()| 0)
        })
    }
}

/// [owner] After wait_for_begin: where the copy is that the incumbent gave with handoff_put_state, and how many bytes; read-only,
/// borrowed, mapped until handoff_free. The same key gives the same place. HANDOFF_ENONAME: it gave none under this key, as
/// always in a cold start. HANDOFF_ESTATE: too early. HANDOFF_EINVAL: it gave a descriptor, take that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_get_state(
    h: *mut Handoff,
    key: *const c_char,
    data: *mut *const c_void,
    size: *mut usize,
) -> c_int {
    let get = |h: &Handoff| {
        if data.is_null() || size.is_null() {
            return Err(Error::Invalid("there is no place for the data, or for its size".into()));
        }
        // SAFETY: a string or NULL, by contract.
        let bytes = h.participant.state(unsafe { required(key, "key") }?)?;
        // SAFETY: not NULL, so there is room, aligned or not.
        unsafe {
            data.write_unaligned(bytes.as_ptr().cast());
            size.write_unaligned(bytes.len());
        }
        h.lent.keep(bytes);
        Ok(0)
    };
    // SAFETY: by contract.
    unsafe { call(h, Class::Owner, "handoff_get_state", get) }
}

/// [owner] After wait_for_begin: the memfd or file that the incumbent gave with handoff_put_state_fd, or the sealed memory of a copy. Yours,
/// close-on-exec; once. Write it only when announce_ready has returned 0: until then the incumbent may have to go on with
/// it. HANDOFF_ENONAME: it gave none under this key, or it was taken. HANDOFF_ESTATE: too early.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_take_state_fd(h: *mut Handoff, key: *const c_char) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(h, Class::Owner, "handoff_take_state_fd", |h| {
            h.participant.take_state_fd(required(key, "key")?).map(IntoRawFd::into_raw_fd)
        })
    }
}

/// [event] Inside of a drain or a seal: gives the successor a duplicate of a connection, which it gets from
/// handoff_next_connection, with a name of 1 to 255 bytes, which need not be its own, and up to 60 KiB of state, such as bytes that
/// were read and not yet understood, or not yet written (state may be NULL if size is 0). Any descriptor may be given but a
/// directory: TCP, Unix, UDP, pipe, pty, file, eventfd. Modes of the description, as O_NONBLOCK, move with it; a registration
/// in epoll does not.
/// fd stays yours. Do not read, write, close or shut it down until RESUME, after which everything is as it was. It is the
/// successor's after REPLACED, and after PARKED and a RESUME with HANDOFF_EVENT_AFTER_COMMIT: close it then, but a shutdown(2)
/// would be felt by both. Waits, and is undone, as handoff_put_state.
/// In a drain with HANDOFF_EVENT_AFTER_COMMIT the successor serves, and has the connection from this call on, for good: take fd out
/// of your epoll and close it, without a shutdown, and do nothing else with it. If the successor dies, what it was given is
/// closed; HANDOFF_EREFUSED then, too: this one was not given, and you may serve it to its end.
/// HANDOFF_EDUPLICATE: this number, or another one of the same socket, was given in this handoff. HANDOFF_ETOOBIG: name or
/// state is longer. HANDOFF_EINVAL: fd is closed, a directory, or the library's own.
/// Others as handoff_put_state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_put_connection(
    h: *mut Handoff,
    fd: c_int,
    name: *const c_char,
    state: *const c_void,
    size: usize,
) -> c_int {
    // SAFETY: by contract.
    unsafe {
        call(h, Class::Any, "handoff_put_connection", |h| {
            let (name, state) = (required(name, "name")?, blob(state, size)?);
            h.participant.put_connection(descriptor(fd)?, name, state).map(|()| 0)
        })
    }
}

/// [any], but one thread at a time. After announce_ready returned 0: 1 = *c is filled with the next connection that the incumbent gave, in its order, as much of it as
/// size has room for, at least the 32 bytes of the first version; 0 = no more, as always in a cold start. What is in its queue
/// is still to be read: with edge-triggered epoll try at once. A connection that is not taken within ten seconds after the
/// first serve or dispatch, after it came (in overlap mode, see HANDOFF_EVENT_CONNECTIONS), or after the one before was taken, is closed, with a warning in the log. HANDOFF_ESTATE: too early:
/// until the commit the connections are the incumbent's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn handoff_next_connection(h: *mut Handoff, c: *mut handoff_connection, size: usize) -> c_int {
    let next = |h: &Handoff| {
        if c.is_null() || size < size_of::<handoff_connection>() {
            return Err(Error::Invalid("there is no room for a connection".into()));
        }
        let Some(next) = h.participant.next_connection()? else { return Ok(0) };
        let filled = h.lent.lend(next);
        // SAFETY: it has room for a connection, aligned or not, by contract.
        unsafe { c.write_unaligned(filled) };
        Ok(1)
    };
    // SAFETY: by contract.
    unsafe { call(h, Class::Any, "handoff_next_connection", next) }
}

/// A descriptor that is open, and stays so during the call, by contract.
///
/// # Safety
/// Nobody closes it meanwhile.
unsafe fn descriptor<'a>(fd: c_int) -> Result<BorrowedFd<'a>> {
    match is_open(fd) {
        // SAFETY: it is open, and the caller's promise.
        true => Ok(unsafe { BorrowedFd::borrow_raw(fd) }),
        false => Err(Error::Invalid(format!("descriptor {fd} is not open"))),
    }
}

impl Lent {
    fn keep(&self, bytes: StateBytes) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        if !blobs.iter().any(|kept| kept.as_ptr() == bytes.as_ptr()) {
            blobs.push(bytes);
        }
    }

    fn lend(&self, next: TransferredConnection) -> handoff_connection {
        let TransferredConnection { fd, name, state } = next;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        let mut lent = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        *lent = (CString::new(&name[..end]).unwrap_or_default(), state);
        handoff_connection {
            size: size_of::<handoff_connection>() as u32,
            fd: fd.into_raw_fd(),
            name: lent.0.as_ptr(),
            state: lent.1.as_ptr().cast(),
            state_size: lent.1.len(),
        }
    }
}
