//! What O and N share for one handoff: the decision page, and a socket between the two.

use crate::error::{Error, Result};
use crate::protocol::supervisor::Peer;
use crate::sys::fork::Withheld;
use crate::sys::page::DecisionPage;
use crate::sys::pidfd::Pidfd;
use crate::sys::seqpacket::Seqpacket;
use std::fs;
use std::path::PathBuf;

#[derive(Debug)]
pub(super) struct Rendezvous {
    pub(super) page: DecisionPage,
    /// Its file, if there is a journal that can name it.
    pub(super) path: Option<PathBuf>,
    /// O's own pidfd: N gets it, also if O is dead by then. None if O was dead when another supervisor found this.
    pub(super) incumbent: Option<Pidfd>,
    /// Each end until it is sent: an end that S keeps would hide that the other side closed its own.
    for_incumbent: Option<Withheld<Seqpacket>>,
    for_successor: Option<Withheld<Seqpacket>>,
    /// The journal names this handoff.
    pub(super) in_journal: bool,
}

impl Rendezvous {
    pub(super) fn new(id: u64, path: Option<PathBuf>, incumbent: &Pidfd) -> Result<Self> {
        let incumbent = incumbent.try_clone().map_err(Error::system("cannot duplicate a pidfd"))?;
        let (one, other) = Seqpacket::pair().map_err(Error::system("cannot make the transfer socket"))?;
        // Last: nothing after it can fail and leave the file.
        let page = DecisionPage::create(path.as_deref(), id).map_err(Error::system("no handoff"))?;
        let (for_incumbent, for_successor) = (Some(Withheld::new(one)), Some(Withheld::new(other)));
        Ok(Self { page, path, incumbent: Some(incumbent), for_incumbent, for_successor, in_journal: false })
    }

    /// That of a handoff which another supervisor began: both sides have what they need.
    pub(super) fn found(page: DecisionPage, path: Option<PathBuf>, incumbent: Option<Pidfd>) -> Self {
        Self { page, path, incumbent, for_incumbent: None, for_successor: None, in_journal: true }
    }

    /// This side's end of the transfer socket; once.
    pub(super) fn take_transfer(&mut self, peer: Peer) -> Option<Withheld<Seqpacket>> {
        match peer {
            Peer::Incumbent => self.for_incumbent.take(),
            Peer::Successor => self.for_successor.take(),
            Peer::Parked => None,
        }
    }

    /// The handoff is over: nobody will ask for its file any more.
    pub(super) fn remove(self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}
