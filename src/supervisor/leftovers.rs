//! Files that a supervisor before this one has left.

use super::engine::Engine;
use crate::sys::control::{remove_dead_listed, remove_dead_temporaries};
use crate::sys::listing::Listing;
use std::fs;
use std::path::Path;
use std::sync::Arc;

impl Engine {
    /// What is in a directory of the names that begin with that of this service.
    pub(super) fn listing(&self, dir: &Path) -> Arc<Listing> {
        let own = || Arc::new(Listing::beginning_with(dir, self.file_start().as_bytes()));
        self.whole_listing(dir).unwrap_or_else(own)
    }

    /// All of it, if the caller has looked.
    fn whole_listing(&self, dir: &Path) -> Option<Arc<Listing>> {
        self.listing.clone().filter(|listing| listing.dir() == dir)
    }

    /// With what the names of its files begin.
    pub(super) fn file_start(&self) -> String {
        format!("{}.", self.service)
    }

    /// Removes what the one before has left, and nobody needs.
    pub(super) fn sweep(&mut self) {
        if let Some(path) = self.attempt.as_ref().and_then(|attempt| attempt.spec.control_path.as_deref()) {
            match path.parent().and_then(|dir| self.whole_listing(dir)) {
                Some(listing) => remove_dead_listed(path, &listing),
                None => remove_dead_temporaries(path),
            }
        }
        let page = self.rendezvous.as_ref().and_then(|rendezvous| rendezvous.path.clone());
        if let Some(journal) = &self.journal {
            let (listing, start) = (self.listing(journal.dir()), self.file_start());
            let is_page = |rest: &[u8]| rest.strip_suffix(b".page").is_some_and(is_id);
            let pages =
                listing.paths(start.as_bytes()).filter(|(rest, path)| is_page(rest) && Some(path) != page.as_ref());
            pages.for_each(|(_, path)| drop(fs::remove_file(path)));
        }
        let capture = self.attempt.as_ref().and_then(|attempt| attempt.spec.capture());
        if let Some(dir) = capture.map(|capture| capture.dir.clone()) {
            self.sweep_output(&dir);
        }
        self.listing = None;
    }
}

/// Whether it is the id of a handoff or a start, in the name of a file.
pub(super) fn is_id(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}
