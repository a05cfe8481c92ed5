//! The order of a start, checked by the compiler: a successor is greeted, begins, and is ready, and no step can be left out.
//!
//! ```compile_fail
//! # use handoff::{Config, Role, detect_role};
//! let Role::Successor(successor) = detect_role(&Config::new()).unwrap() else { return };
//! successor.wait_for_begin().unwrap(); // not before the handshake
//! ```

use super::config::Config;
use super::drainable::{Drainable, StateSnapshot};
use super::handle::{Participant, Progress};
use super::incumbent::{Incumbent, Stopper, Writers};
use super::listeners::InheritedListeners;
use super::transfer::Transfer;
use crate::error::{Error, Result};
use crate::protocol::message::Readiness;
use std::sync::Arc;
use std::time::Duration;

/// Whom this process follows.
#[derive(Debug)]
pub enum Role {
    /// Nobody: it was started by hand, by a service manager, or as the first one by a supervisor.
    ColdStart(ColdStart),
    /// A daemon that serves now.
    Successor(Successor),
}

/// Reads, and consumes, what a supervisor left in the environment. Call it before other threads use the environment; the
/// second call gives a cold start.
///
/// # Errors
/// A variable or a descriptor is not what it should be, or the data directory can not be used.
pub fn detect_role(config: &Config) -> Result<Role> {
    let participant = Arc::new(Participant::detect(config)?);
    Ok(match participant.is_successor() {
        true => Role::Successor(Successor(participant)),
        false => Role::ColdStart(ColdStart(participant)),
    })
}

/// A process without a predecessor.
#[derive(Debug)]
pub struct ColdStart(Arc<Participant>);

impl ColdStart {
    /// The listeners that systemd, or a supervisor, gave to this process.
    pub fn listeners(&self) -> &InheritedListeners {
        self.0.listeners()
    }

    /// Takes the lock of the data directory: now the data may be opened.
    ///
    /// # Errors
    /// [`Error::Locked`], with the holder, if another process serves this data.
    pub fn begin(self) -> Result<Begun> {
        begin(self.0)
    }
}

/// A process that will replace another one, and has not talked to its supervisor yet.
#[derive(Debug)]
pub struct Successor(Arc<Participant>);

impl Successor {
    /// Waits until the supervisor has accepted this process.
    ///
    /// # Errors
    /// [`Error::Aborted`], with its reason: exit.
    pub fn handshake(self) -> Result<HandshookSuccessor> {
        self.0.wait_for_ack()?;
        Ok(HandshookSuccessor(self.0))
    }
}

/// A process that will replace another one. Load everything now that does not need the data: the incumbent still serves.
#[derive(Debug)]
pub struct HandshookSuccessor(Arc<Participant>);

impl HandshookSuccessor {
    /// The listeners that the incumbent serves on, too. Do not accept yet.
    pub fn listeners(&self) -> &InheritedListeners {
        self.0.listeners()
    }

    /// Says that everything is loaded, and waits until the incumbent has sealed and the lock is ours.
    ///
    /// # Errors
    /// [`Error::Aborted`]: exit. [`Error::Locked`], with the holder.
    pub fn wait_for_begin(self) -> Result<BegunSuccessor> {
        begin(self.0)
    }
}

/// A successor that holds the lock and may open the data.
pub type BegunSuccessor = Begun;

fn begin(participant: Arc<Participant>) -> Result<Begun> {
    match participant.wait_for_begin(None)? {
        Progress::Done => Ok(Begun(participant)),
        Progress::Pending => Err(Error::State("a wait without end has ended".into())),
    }
}

/// A process that holds the lock and may open the data: a successor, or one without a predecessor.
#[derive(Debug)]
pub struct Begun(Arc<Participant>);

impl Begun {
    /// The listeners. Do not accept yet.
    pub fn listeners(&self) -> &InheritedListeners {
        self.0.listeners()
    }

    /// For writers of other threads. Until the commit they may do only what the incumbent could still read.
    pub fn writers(&self) -> Writers {
        Writers(Arc::clone(&self.0))
    }

    /// For connections and state.
    pub fn transfer(&self) -> Transfer {
        Transfer(Arc::clone(&self.0))
    }

    /// Ends [`Incumbent::serve`], and the wait before it, from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.0))
    }

    /// Says that this process could serve with what it opened, and waits for at most `timeout` for the commit.
    ///
    /// # Errors
    /// [`Error::Aborted`]: exit, touching nothing.
    pub fn announce_ready(&self, state: &StateSnapshot, timeout: Option<Duration>) -> Result<Progress> {
        let StateSnapshot { revisions, detail } = state.clone();
        self.0.announce_ready(&Readiness { revisions, detail, ..Readiness::default() }, timeout)
    }

    /// Ready, commit and control path in one: when this returns, the process serves.
    ///
    /// # Errors
    /// [`Error::Aborted`]: exit, touching nothing. The control path can not be bound.
    pub fn announce_and_bind(self, state: &impl Drainable) -> Result<Incumbent> {
        match self.announce_ready(&state.snapshot_state(), None)? {
            Progress::Done => Ok(Incumbent::new(self.0)),
            Progress::Pending => Err(Error::State("a wait without end has ended".into())),
        }
    }
}
