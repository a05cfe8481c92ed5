//! The names in a directory, read once for many who look for their own.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The names that were in a directory when it was read; none if it could not be.
#[derive(Debug)]
pub(crate) struct Listing {
    dir: PathBuf,
    /// In the order of their bytes.
    names: Vec<OsString>,
}

impl Listing {
    /// Reads a directory, for the names that begin so.
    pub(crate) fn beginning_with(dir: &Path, start: &[u8]) -> Self {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut names: Vec<OsString> = entries.filter(|name| name.as_bytes().starts_with(start)).collect();
        names.sort_unstable();
        Self { dir: dir.to_owned(), names }
    }

    /// Which directory it is of.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The paths of those that begin so: what follows that, and the path.
    pub(crate) fn paths<'a>(&'a self, start: &'a [u8]) -> impl Iterator<Item = (&'a [u8], PathBuf)> {
        let first = self.names.partition_point(|name| name.as_bytes() < start);
        let rest =
            self.names[first..].iter().map_while(move |name| name.as_bytes().strip_prefix(start).zip(Some(name)));
        rest.map(|(rest, name)| (rest, self.dir.join(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn each_finds_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let odd = OsString::from_vec(b"b.\xff".to_vec());
        for name in ["a", "b", "b.1", "b.2", "b2", "c.1"].map(OsString::from).iter().chain([&odd]) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let listing = Listing::beginning_with(dir.path(), b"");
        let found = |start: &[u8]| listing.paths(start).map(|(rest, _)| rest.to_vec()).collect::<Vec<_>>();
        assert_eq!(found(b"b."), [&b"1"[..], b"2", b"\xff"]);
        assert_eq!(listing.paths(b"c.").next().unwrap().1, dir.path().join("c.1"));
        assert!(found(b"d.").is_empty() && found(b"").len() == 7);
        assert_eq!(Listing::beginning_with(dir.path(), b"b").names.len(), 5);
        assert!(Listing::beginning_with(&dir.path().join("none"), b"").names.is_empty());
    }
}
