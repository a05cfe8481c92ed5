//! What C has a pointer to begins with a word that says what it is: a configuration that is passed as a handle is then an
//! error code. A handle that was freed most often does not begin so any more, either, but that is not promised.

/// `KIND`, which no address and no small number is.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Mark<const KIND: u64>(u64);

impl<const KIND: u64> Default for Mark<KIND> {
    fn default() -> Self {
        Self(KIND)
    }
}

/// # Safety
/// A struct in C's order whose first member is a `Mark<KIND>`.
pub(super) unsafe trait Marked {
    const KIND: u64;
}

/// What `p` points to; none if it is NULL, or something else.
///
/// # Safety
/// `p` is NULL, or eight bytes there can be read; and if they say that it is a `T`, it lives as long as the result is used.
pub(super) unsafe fn known<'a, T: Marked>(p: *const T) -> Option<&'a T> {
    if p.is_null() || !p.is_aligned() {
        return None;
    }
    // SAFETY: by contract; a `T` begins with its mark.
    let kind = unsafe { p.cast::<u64>().read() };
    // SAFETY: by contract.
    (kind == T::KIND).then(|| unsafe { &*p })
}
