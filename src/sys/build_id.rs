//! Which build a program is: the note that the linker leaves in it (`--build-id`).

use std::ffi::{c_int, c_void};

const NT_GNU_BUILD_ID: u32 = 3;

/// The build id of the executable of this process, in hex; none if it was linked without (dl_iterate_phdr(3)).
pub fn of_executable() -> Option<String> {
    let mut id = None;
    // SAFETY: the callback gets a pointer to `id`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(first_object), (&raw mut id).cast()) };
    id
}

/// The first object is the executable; the result ends the iteration.
unsafe extern "C" fn first_object(info: *mut libc::dl_phdr_info, _: usize, id: *mut c_void) -> c_int {
    // SAFETY: the loader gives a valid description, and `id` is what `of_executable` passed. Segments of a loaded
    // object are mapped where the description says, and stay.
    unsafe {
        let (info, id) = (&*info, &mut *id.cast::<Option<String>>());
        if info.dlpi_phdr.is_null() {
            return 1;
        }
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
        for header in headers.iter().filter(|header| header.p_type == libc::PT_NOTE) {
            let start = (info.dlpi_addr + header.p_vaddr) as *const u8;
            let notes = std::slice::from_raw_parts(start, header.p_memsz as usize);
            *id = id.take().or_else(|| find(notes));
        }
    }
    1
}

/// Looks through a segment of notes (elf(5)): sizes of name and contents, type, name, contents, both padded to four.
fn find(mut notes: &[u8]) -> Option<String> {
    while notes.len() >= 12 {
        let word = |at: usize| Some(u32::from_ne_bytes(notes.get(at..at + 4)?.try_into().ok()?));
        let (name_size, size, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let contents_at = 12usize.checked_add(name_size.checked_next_multiple_of(4)?)?;
        let name = notes.get(12..12usize.checked_add(name_size)?)?;
        let contents = notes.get(contents_at..contents_at.checked_add(size)?)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return Some(contents.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = notes.get(contents_at.checked_add(size.checked_next_multiple_of(4)?)?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_is_found_behind_others_and_garbage_is_none() {
        let note = |kind: u32, name: &[u8; 4], contents: &[u8]| {
            let mut bytes = Vec::new();
            for word in [4, contents.len() as u32, kind] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(name);
            bytes.extend(contents);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let notes = [note(1, b"GNU\0", b"abcde"), note(3, b"XYZ\0", b"no"), note(3, b"GNU\0", &[0x0a, 0xff])].concat();
        assert_eq!(find(&notes).as_deref(), Some("0aff"));
        for cut in 0..notes.len() - 4 {
            assert_eq!(find(&notes[..cut]), None, "{cut} bytes");
        }
        assert_eq!(find(&[0xff; 64]), None);
    }

    #[test]
    fn of_this_program_it_is_hex_or_none() {
        let id = of_executable().unwrap_or_default();
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
