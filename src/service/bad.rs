//! Programs that have failed their probation, by the hash of their content, on file: the next upgrade to one is refused.
//!
//! One line for each: SHA-256, length in bytes, seconds since 1970, why.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::limits::BAD_PROGRAMS_MAX;

/// The programs that were found bad.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct BadPrograms {
    path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bad {
    hash: String,
    length: u64,
    at: u64,
    why: String,
}

impl BadPrograms {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Writes down that this file is no good.
    pub(super) fn remember(&self, file: &File, why: &str) -> io::Result<()> {
        let (hash, length) = (hash_of(file)?, file.metadata()?.len());
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut all = self.read();
        all.retain(|bad| bad.hash != hash);
        all.push(Bad { hash, length, at, why: why.replace(['\n', '\r'], " ") });
        let excess = all.len().saturating_sub(BAD_PROGRAMS_MAX);
        all.drain(..excess);
        self.write(&all)
    }

    /// Why this file should not be started, if it is one of those. Only a file of the same length is read.
    pub(super) fn verdict(&self, file: &File) -> io::Result<Option<String>> {
        let length = file.metadata()?.len();
        let all = self.read();
        if !all.iter().any(|bad| bad.length == length) {
            return Ok(None);
        }
        let hash = hash_of(file)?;
        let found = all.iter().find(|bad| bad.hash == hash);
        Ok(found.map(|bad| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
            format!(
                "this program has failed its probation {} s ago ({}); its SHA-256 is {hash}; --force starts it all the same",
                now.saturating_sub(bad.at),
                bad.why
            )
        }))
    }

    /// It may try again.
    pub(super) fn forgive(&self, file: &File) -> io::Result<()> {
        let mut all = self.read();
        let length = file.metadata()?.len();
        if !all.iter().any(|bad| bad.length == length) {
            return Ok(());
        }
        let hash = hash_of(file)?;
        all.retain(|bad| bad.hash != hash);
        self.write(&all)
    }

    /// A file that is not there, or makes no sense, knows of none.
    fn read(&self) -> Vec<Bad> {
        fs::read_to_string(&self.path).unwrap_or_default().lines().filter_map(Bad::parse).collect()
    }

    fn write(&self, all: &[Bad]) -> io::Result<()> {
        let mut text = String::new();
        for Bad { hash, length, at, why } in all {
            let _ = writeln!(text, "{hash} {length} {at} {why}");
        }
        let temporary = self.path.with_extension("bad.new");
        fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &self.path))
    }
}

impl Bad {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let hash = words.next()?.to_owned();
        let (length, at) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { hash, length, at, why: words.next()?.to_owned() })
    }
}

fn hash_of(mut file: &File) -> io::Result<String> {
    let (mut digest, mut part) = (Sha256::new(), vec![0; 256 * 1024]);
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut part)? {
            0 => break,
            length => digest.update(&part[..length]),
        }
    }
    Ok(digest.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_counts_and_not_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            fs::write(dir.path().join(name), content).unwrap();
            File::open(dir.path().join(name)).unwrap()
        };
        let bad = BadPrograms::new(dir.path().join("kv.bad"));
        let (one, same, other) = (file("one", "abc"), file("same", "abc"), file("other", "abd"));
        assert_eq!(bad.verdict(&one).unwrap(), None);
        bad.remember(&one, "it died\nof shame").unwrap();
        let again = BadPrograms::new(dir.path().join("kv.bad"));
        let why = again.verdict(&same).unwrap().unwrap();
        // FIPS 180-4's own example.
        assert!(why.contains("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "{why}");
        assert!(why.contains("it died of shame"), "{why}");
        assert_eq!(again.verdict(&other).unwrap(), None);
        again.forgive(&same).unwrap();
        assert_eq!(bad.verdict(&one).unwrap(), None);
        fs::write(dir.path().join("kv.bad"), "nonsense\n\n1 2\n").unwrap();
        assert_eq!(bad.verdict(&one).unwrap(), None);
        for number in 0..BAD_PROGRAMS_MAX + 2 {
            bad.remember(&file("many", &number.to_string()), "x").unwrap();
        }
        assert_eq!(bad.read().len(), BAD_PROGRAMS_MAX);
    }
}
