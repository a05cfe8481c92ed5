//! The file that a process was started from, kept open: its path may lead to another one later.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

    /// What to execute, in a child: the descriptor of this process, by its link in proc(5). Unlike execveat(2) with the descriptor
    /// alone, that also serves the interpreter of a script.
    pub(super) fn link(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }
}
