//! The file that a process was started from, kept open: its path may lead to another one later.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(feature = "program")]
use super::{SpawnSpec, Supervisor};

/// A program that can be started although its path leads elsewhere by now, or nowhere. What is written into the file itself
/// changes it: replace a program by a rename.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Executable {
    path: PathBuf,
    #[serde(with = "crate::sys::inherit::shared_file")]
    file: Arc<File>,
}

impl Executable {
    /// None if the file can not be read.
    pub(super) fn open(path: &Path) -> Option<Self> {
        File::open(path).ok().map(|file| Self { path: path.to_owned(), file: Arc::new(file) })
    }

    /// Where the file was.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether both are one.
    #[cfg(feature = "program")]
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        self.file.metadata().is_ok_and(|own| is(other.file.metadata(), &own))
    }

    /// What to execute. A script that is still at its path has that: it may look for others beside itself.
    pub(super) fn place(&self) -> PathBuf {
        let is_script = || {
            let mut head = [0; 2];
            self.file.read_exact_at(&mut head, 0).is_ok() && head == *b"#!"
        };
        match self.is_at_its_path() && is_script() {
            true => self.path.clone(),
            false => self.link(),
        }
    }

    fn is_at_its_path(&self) -> bool {
        self.file.metadata().is_ok_and(|own| is(fs::metadata(&self.path), &own))
    }

    /// What to execute, in a child: the descriptor of this process, by its link in proc(5). Unlike execveat(2) with the descriptor
    /// alone, that also serves the interpreter of a script.
    pub(super) fn link(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }
}

fn is(found: io::Result<Metadata>, one: &Metadata) -> bool {
    found.is_ok_and(|found| (found.dev(), found.ino()) == (one.dev(), one.ino()))
}

#[cfg(feature = "program")]
impl Supervisor {
    /// What an interpreter runs, if this starts the file that serves already, with the same arguments: the first of them that is a file. Nobody keeps
    /// that one.
    pub(crate) fn script_of_same(&self, spec: &SpawnSpec) -> Option<PathBuf> {
        let serving = self.server().as_ref()?;
        let next = spec.executable.clone().or_else(|| Executable::open(&spec.check().ok()?))?;
        let is_same = serving.executable.as_ref()?.is_same_file(&next) && serving.spec.argv == spec.argv;
        let dir = spec.dir.as_deref().unwrap_or(Path::new(""));
        let mut arguments = spec.argv.iter().skip(1).filter(|_| is_same).map(|argument| dir.join(argument));
        arguments.find(|argument| argument.is_file())
    }
}
