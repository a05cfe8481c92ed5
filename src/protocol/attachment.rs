//! Which descriptors travel with which message.

use super::message::{HelloAck, Message};

/// A descriptor that travels with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attachment {
    /// A pidfd of the other daemon.
    PeerPidfd,
    /// This side's end of the socket between O and N.
    Transfer,
    /// The decision page.
    Page,
    /// The gate's locked description.
    Gate,
    /// A listener.
    Listener,
    /// A connection.
    Connection,
    /// A blob of state.
    State,
}

impl Message {
    /// The descriptors that must travel with this message, in their order.
    pub fn attachments(&self) -> Vec<Attachment> {
        use Attachment::{Connection, Gate, Listener, Page, PeerPidfd, State, Transfer};
        match self {
            Self::HelloAck(HelloAck { terms: Some(_), .. }) | Self::PrepareHandoff(_) => {
                vec![Page, PeerPidfd, Transfer]
            }
            Self::Gate(_) => vec![Gate],
            Self::AdoptListeners(m) => vec![Listener; m.names.len()],
            Self::Connections(m) => vec![Connection; m.connections.len()],
            Self::State(_) => vec![State],
            _ => Vec::new(),
        }
    }
}
