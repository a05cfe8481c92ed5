//! The processes of the service, by what they are.

use super::leaving::Leaving;
use super::process::{Process, Was};
use crate::protocol::supervisor::Peer;

/// Those that may serve, and those that will not again.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Processes {
    pub(super) incumbent: Option<Process>,
    pub(super) successor: Option<Process>,
    /// O in a probation.
    pub(super) parked: Option<Process>,
    /// Retired, but still there.
    pub(super) leaving: Vec<Leaving>,
}

impl Processes {
    pub(super) fn peer(&mut self, peer: Peer) -> &mut Option<Process> {
        match peer {
            Peer::Incumbent => &mut self.incumbent,
            Peer::Successor => &mut self.successor,
            Peer::Parked => &mut self.parked,
        }
    }

    pub(super) fn peer_of(&self, key: u64) -> Option<Peer> {
        let is = |process: &Option<Process>| process.as_ref().is_some_and(|process| process.key == key);
        if is(&self.incumbent) {
            return Some(Peer::Incumbent);
        }
        if is(&self.successor) {
            return Some(Peer::Successor);
        }
        is(&self.parked).then_some(Peer::Parked)
    }

    /// It is gone.
    pub(super) fn take(&mut self, key: u64) -> Option<(Was, Process)> {
        if let Some(peer) = self.peer_of(key) {
            return self.peer(peer).take().map(|process| (Was::Peer(peer), process));
        }
        let index = self.leaving.iter().position(|leaving| leaving.process.key == key)?;
        Some((Was::Leaving, self.leaving.swap_remove(index).process))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Process> {
        let leaving = self.leaving.iter().map(|leaving| &leaving.process);
        self.incumbent.iter().chain(&self.successor).chain(&self.parked).chain(leaving)
    }

    /// The same.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        let leaving = self.leaving.iter_mut().map(|leaving| &mut leaving.process);
        self.incumbent.iter_mut().chain(&mut self.successor).chain(&mut self.parked).chain(leaving)
    }
}
