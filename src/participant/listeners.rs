//! The listeners that a supervisor, or systemd, gave to this process.

use crate::error::{Error, Result};
use std::os::fd::{AsFd, OwnedFd};

/// Listeners by name. They stay open for the whole life of the process: a resume needs them again.
#[derive(Debug, Default)]
pub struct InheritedListeners(pub(super) Vec<(String, OwnedFd)>);

impl InheritedListeners {
    /// A fresh duplicate of the `index`-th listener of this name, close-on-exec; of any listener if `name` is none.
    /// "x" also finds systemd's "x.socket".
    ///
    /// # Errors
    /// [`Error::NotGiven`] if there is none at all, [`Error::NoName`] if there are others, `EMFILE`.
    pub fn take(&self, name: Option<&str>, index: usize) -> Result<OwnedFd> {
        if self.0.is_empty() {
            return Err(Error::NotGiven);
        }
        let fits = |given: &str| name.is_none_or(|name| given == name || given.strip_suffix(".socket") == Some(name));
        let mut found = self.0.iter().filter(|(given, _)| fits(given)).map(|(_, fd)| fd);
        match found.nth(index) {
            Some(fd) => fd.as_fd().try_clone_to_owned().map_err(Error::system("duplicate a listener")),
            None => Err(self.no_such(name, index)),
        }
    }

    /// The names, as given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    fn no_such(&self, name: Option<&str>, index: usize) -> Error {
        let given: Vec<&str> = self.names().collect();
        let wanted = name.map_or(String::new(), |name| format!(" named \"{name}\""));
        Error::NoName(format!("no listener {index}{wanted} was given; given are: {}", given.join(", ")))
    }
}
