//! Finding a program, and saying why one cannot be started.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

/// The file that `name` means: itself if it has a slash, otherwise the first executable file in
/// the directories of `PATH`, as execvp(3) does. Directories are skipped. The result is
/// relative if `name` or the entry of `PATH` is.
///
/// `NotFound`, `PermissionDenied`, `IsADirectory`, with a text that names the file.
pub fn find_program(name: &OsStr) -> io::Result<PathBuf> {
    find_in(name, env::var_os("PATH"))
}

fn find_in(name: &OsStr, path: Option<OsString>) -> io::Result<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        let program = PathBuf::from(name);
        return check(&program).map(|()| program);
    }
    let path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut denied = None;
    if !name.is_empty() {
        for dir in env::split_paths(&path) {
            // An empty entry is the current directory; this is a path in any case.
            let empty = dir.as_os_str().is_empty();
            let candidate = if empty { Path::new(".") } else { &dir }.join(name);
            match check(&candidate) {
                Ok(()) => return Ok(candidate),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    denied.get_or_insert(error);
                }
                Err(_) => {}
            }
        }
    }
    Err(denied.unwrap_or_else(|| {
        let what = format!(
            "program {} is in no directory of PATH ({}); name it with its directory",
            name.display(),
            path.display()
        );
        io::Error::new(io::ErrorKind::NotFound, what)
    }))
}

/// Can this process execute the file?
fn check(program: &Path) -> io::Result<()> {
    let error = |kind, what| Err(io::Error::new(kind, format!("{}: {what}", program.display())));
    match fs::metadata(program) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            error(e.kind(), "a directory on the way to it may not be searched".to_owned())
        }
        Err(e) => error(e.kind(), e.to_string()),
        Ok(found) if found.is_dir() => error(io::ErrorKind::IsADirectory, "is a directory, not a program".to_owned()),
        Ok(_) => match faccessat(AT_FDCWD, program, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
            Ok(()) => Ok(()),
            Err(e) => error(io::ErrorKind::PermissionDenied, format!("is not executable ({e}); chmod +x it")),
        },
    }
}

/// Bytes of a file that say what it is for: the head of an ELF file (elf(5)) up to `e_machine`.
const HEAD_BYTES: usize = 20;

/// Whether the kernel would know what to do with this file: a program of this machine's architecture, or a script whose
/// interpreter is there. Only execve(2) itself knows all of it.
///
/// # Errors
/// What is wrong, for people.
pub fn check_format(program: &Path) -> Result<(), String> {
    let head = |path: &Path| {
        let mut head = Vec::new();
        let read = File::open(path).and_then(|file| file.take(HEAD_BYTES as u64).read_to_end(&mut head));
        read.map(|_| head)
    };
    let found = match head(program) {
        Ok(found) => found,
        // It may be executed all the same.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    if found.starts_with(b"#!") {
        return match interpreter(program) {
            Some(path) => check(&path).map_err(|error| format!("its interpreter: {error}")),
            None => Err("its first line names no interpreter".to_owned()),
        };
    }
    if !found.starts_with(b"\x7fELF") || found.len() < HEAD_BYTES {
        return Err(explain_exec(program, Errno::ENOEXEC));
    }
    // Class, byte order and machine are those of this very program.
    let key = |head: &[u8]| Some((head.get(4..6)?.to_vec(), head.get(18..20)?.to_vec()));
    let own = head(Path::new("/proc/self/exe")).unwrap_or_default();
    match key(&own).is_none_or(|own| Some(own) == key(&found)) {
        true => Ok(()),
        false => Err(format!("it is a program for another architecture, not for {}", env::consts::ARCH)),
    }
}

/// What execve(2) means by `errno` for this program, in words that say what to do.
pub(super) fn explain_exec(program: &Path, errno: Errno) -> String {
    match errno {
        Errno::ENOENT if program.exists() => match interpreter(program) {
            Some(path) => format!(
                "the file exists, but its interpreter is missing: {} (first line of the script); \
                 install it or correct that line",
                path.display()
            ),
            None => "the file exists, but its interpreter is missing: the program loader (ELF \
                     interpreter) it was linked for; is it built for another system or C library?"
                .to_owned(),
        },
        Errno::ENOENT => "no such file".to_owned(),
        Errno::ENOEXEC => "not a program this machine can run (wrong architecture, or a script \
                           without #! line)"
            .to_owned(),
        Errno::EACCES => match check(program) {
            Err(error) => error.to_string(),
            Ok(()) => match interpreter(program) {
                Some(path) => format!("its interpreter {} may not be executed", path.display()),
                None => "it may not be executed; is its file system mounted noexec?".to_owned(),
            },
        },
        Errno::ETXTBSY => "the file is being written; replace a program by a rename".to_owned(),
        Errno::E2BIG => "the arguments and the environment are too large".to_owned(),
        other => other.desc().to_owned(),
    }
}

/// What the `#!` line of a script names.
fn interpreter(program: &Path) -> Option<PathBuf> {
    /// The kernel reads no more of the line.
    const LINE_BYTES_MAX: u64 = 256;
    // A FIFO would block.
    if !fs::metadata(program).ok()?.is_file() {
        return None;
    }
    let mut start = Vec::new();
    File::open(program).ok()?.take(LINE_BYTES_MAX).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    Some(OsString::from_vec(words.next()?.to_vec()).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_that_this_machine_can_not_run_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let file = |content: &[u8]| {
            let path = dir.path().join("program");
            fs::write(&path, content).unwrap();
            check_format(&path)
        };
        let own = fs::read("/proc/self/exe").unwrap();
        let mut other = own[..64].to_vec();
        assert_eq!(file(&other), Ok(()));
        other[18] ^= 0x55;
        assert!(file(&other).unwrap_err().contains("another architecture"));
        assert_eq!(file(b"#!/bin/sh\n"), Ok(()));
        assert!(file(b"#!/no/such/shell\n").unwrap_err().contains("/no/such/shell"));
        for content in [&b""[..], b"\x7fELF", b"echo hello\n"] {
            assert!(file(content).unwrap_err().contains("not a program"), "{content:?}");
        }
        assert!(check_format(&dir.path().join("none")).is_err());
    }

    #[test]
    fn path_is_searched_like_execvp_does() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for sub in ["a/tool", "b", "c"] {
            fs::create_dir_all(at(sub)).unwrap();
        }
        fs::write(at("b/tool"), "").unwrap();
        fs::set_permissions(at("b/tool"), PermissionsExt::from_mode(0o644)).unwrap();
        fs::write(at("c/tool"), "").unwrap();
        fs::set_permissions(at("c/tool"), PermissionsExt::from_mode(0o755)).unwrap();
        let path = |subs: &[&str]| env::join_paths(subs.iter().map(|sub| at(sub))).ok();
        let find = |subs: &[&str]| find_in("tool".as_ref(), path(subs));

        // A directory and a file without the x bit are passed over.
        assert_eq!(find(&["a", "b", "missing", "c"]).unwrap(), at("c/tool"));
        assert_eq!(find(&["a", "b"]).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(find(&["a"]).unwrap_err().kind(), io::ErrorKind::NotFound);
        let with_slash = |sub: &str| find_in(at(sub).as_os_str(), None);
        assert_eq!(with_slash("c/tool").unwrap(), at("c/tool"));
        assert_eq!(with_slash("a/tool").unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(with_slash("none").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(find_in("".as_ref(), None).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(find_program("sh".as_ref()).unwrap().is_absolute());
    }
}
