//! What moves from O to N beside the data: connections, and blobs of state.
//!
//! O's side is a [`Giver`], N's a [`Taker`]. O sends batches, each one message with its descriptors, and N says of each that
//! it has it; O never has more than [`BATCHES_UNTAKEN_MAX`] on the way. A giver lives for one handoff: after a rollback
//! nothing of it is left, and the application gives everything anew.

use super::HandoffId;
use super::codec::{Decode, Encode};
use super::message::Message;
use crate::limits::{
    BATCHES_UNTAKEN_MAX, CONNECTION_STATE_BYTES_MAX, CONNECTIONS_IN_BATCH_MAX, FRAME_BYTES_MAX, NAME_BYTES_MAX,
};
use std::collections::{BTreeSet, VecDeque};

/// What is said of a connection; its descriptor travels beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Connection {
    /// Device and inode of its descriptor when it was given: N refuses another one, since O's application may have closed it and
    /// its number may have a new owner before the batch went out.
    pub file: (u64, u64),
    /// The application's name for it, or for its kind.
    pub name: Vec<u8>,
    /// What the application needs to go on with it.
    pub state: Vec<u8>,
}

/// A batch of connections, from O to N, on the transfer socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Connections {
    /// The handoff.
    pub id: HandoffId,
    /// 1, 2, 3 ...: which batch of the handoff.
    pub batch: u32,
    /// At least one; a descriptor for each travels with the message.
    pub connections: Vec<Connection>,
}

/// A batch that is one blob of state, from O to N, on the transfer socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct State {
    /// The handoff.
    pub id: HandoffId,
    /// Which batch of the handoff.
    pub batch: u32,
    /// The application's name for it.
    pub key: Vec<u8>,
    /// Its size in bytes when it was given.
    pub size: u64,
    /// It is a copy in sealed memory; otherwise it is a file of the application's own.
    pub sealed: bool,
}

/// N has a batch, from N to O, on the transfer socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Taken {
    /// The handoff.
    pub id: HandoffId,
    /// The batch.
    pub batch: u32,
}

/// How much has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// Connections.
    pub connections: u64,
    /// Blobs of state.
    pub blobs: u64,
    /// Bytes in these blobs, and in the states of these connections.
    pub state_bytes: u64,
}

/// What N has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct Room {
    /// How many descriptors it may have open; 0 if that is unknown.
    pub descriptors_max: u64,
    /// How many it had open when it said Hello.
    pub open_descriptors: u32,
}

impl Room {
    /// Whether as many descriptors as O has open fit in, too.
    ///
    /// # Errors
    /// Why not, with the numbers.
    pub fn check(&self, open_descriptors: u64) -> Result<(), String> {
        let Self { descriptors_max, open_descriptors: own } = *self;
        if descriptors_max == 0 || open_descriptors.saturating_add(own.into()) <= descriptors_max {
            return Ok(());
        }
        Err(format!(
            "this process has {open_descriptors} descriptors open, the successor {own}, and may have {descriptors_max}: raise its hard RLIMIT_NOFILE (ulimit -Hn, LimitNOFILE=)"
        ))
    }
}

/// What tells two descriptions apart, as well as that is cheap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A socket: its device and inode, which no other socket has.
    Socket(u64, u64),
    /// Anything else: its number.
    Number(i32),
}

/// Bytes of a message of connections without them: header, id, batch, count.
const FRAME_BYTES: usize = 8 + 8 + 4 + 8;
/// Bytes of a connection without its name and state: its file, their lengths.
const CONNECTION_BYTES: usize = 8 + 8 + 8 + 8;

impl Connection {
    fn bytes(&self) -> usize {
        CONNECTION_BYTES + self.name.len() + self.state.len()
    }
}

/// O's side of a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Giver {
    id: HandoffId,
    /// The batch that is being filled.
    pending: Vec<Connection>,
    pending_bytes: usize,
    /// The last batch that was sent, and the last that N has.
    sent: u32,
    taken: u32,
    /// Connections in each batch between these two.
    untaken: VecDeque<u64>,
    totals: Totals,
    known: BTreeSet<Identity>,
    keys: BTreeSet<Vec<u8>>,
}

impl Giver {
    /// The giver of this handoff.
    pub fn new(id: HandoffId) -> Self {
        Self {
            id,
            pending: Vec::new(),
            pending_bytes: FRAME_BYTES,
            sent: 0,
            taken: 0,
            untaken: VecDeque::new(),
            totals: Totals::default(),
            known: BTreeSet::new(),
            keys: BTreeSet::new(),
        }
    }

    /// Whether this description was given already.
    pub fn has_connection(&self, identity: Identity) -> bool {
        self.known.contains(&identity)
    }

    /// Whether a blob was given under this key already.
    pub fn has_key(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }

    /// Whether the batch that is being filled has room for this one, too.
    pub fn fits(&self, connection: &Connection) -> bool {
        self.pending.len() < CONNECTIONS_IN_BATCH_MAX && self.pending_bytes + connection.bytes() <= FRAME_BYTES_MAX
    }

    /// Adds to the batch that is being filled; it must fit.
    pub fn add(&mut self, identity: Identity, connection: Connection) {
        self.pending_bytes += connection.bytes();
        self.pending.push(connection);
        self.known.insert(identity);
    }

    /// Takes back the connection that was added last, if its batch was not sent.
    pub fn withdraw(&mut self, identity: Identity) -> Option<Connection> {
        let connection = self.pending.pop()?;
        self.pending_bytes -= connection.bytes();
        self.known.remove(&identity);
        Some(connection)
    }

    /// How many connections wait for their batch to be sent.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether the batch that is being filled has room for no other.
    pub fn is_full(&self) -> bool {
        !self.fits(&Connection::default())
    }

    /// Whether another batch may be sent now.
    pub fn may_send(&self) -> bool {
        self.on_the_way() < BATCHES_UNTAKEN_MAX
    }

    /// Batches that were sent, and of which N has not said that it has them.
    pub fn on_the_way(&self) -> u32 {
        self.sent - self.taken
    }

    /// The batch that is being filled, to be sent: then say [`Giver::sent`], or [`Giver::unsent`] if it could not be.
    pub fn batch(&mut self) -> Message {
        self.pending_bytes = FRAME_BYTES;
        let connections = std::mem::take(&mut self.pending);
        Message::Connections(Connections { id: self.id, batch: self.sent + 1, connections })
    }

    /// A blob, to be sent: then say [`Giver::sent`].
    pub fn state(&self, key: &[u8], size: u64, sealed: bool) -> Message {
        Message::State(State { id: self.id, batch: self.sent + 1, key: key.to_vec(), size, sealed })
    }

    /// The batch is on its way.
    pub fn sent(&mut self, message: Message) {
        self.sent += 1;
        let connections = match message {
            Message::Connections(m) => {
                self.totals.add_connections(&m.connections);
                m.connections.len()
            }
            Message::State(m) => {
                self.totals.add_blob(m.size);
                self.keys.insert(m.key);
                0
            }
            _ => 0,
        };
        self.untaken.push_back(connections as u64);
    }

    /// The batch could not be sent: it waits on.
    pub fn unsent(&mut self, message: Message) {
        if let Message::Connections(m) = message {
            self.pending_bytes = FRAME_BYTES + m.connections.iter().map(Connection::bytes).sum::<usize>();
            self.pending = m.connections;
        }
    }

    /// N has a batch. They come in order.
    ///
    /// # Errors
    /// N says so of one that it can not have.
    pub fn taken(&mut self, batch: u32) -> Result<(), String> {
        if batch != self.taken + 1 || batch > self.sent {
            let (taken, sent) = (self.taken, self.sent);
            return Err(format!("the successor took batch {batch} after {taken}, of {sent}"));
        }
        self.taken = batch;
        self.untaken.pop_front();
        Ok(())
    }

    /// Whether N has everything.
    pub fn is_done(&self) -> bool {
        self.pending.is_empty() && self.on_the_way() == 0
    }

    /// Connections that N would not have, if it were dead and everything it has said were read.
    pub fn untaken(&self) -> u64 {
        self.pending.len() as u64 + self.untaken.iter().sum::<u64>()
    }

    /// What was sent.
    pub fn totals(&self) -> Totals {
        self.totals
    }
}

/// N's side of a transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Taker {
    last: u32,
    totals: Totals,
    keys: BTreeSet<Vec<u8>>,
}

impl Taker {
    /// A batch of connections has come, with its descriptors: the answer.
    ///
    /// # Errors
    /// It can not be the next one.
    pub fn connections(&mut self, message: &Connections) -> Result<Message, String> {
        let answer = self.take(message.id, message.batch)?;
        self.totals.add_connections(&message.connections);
        Ok(answer)
    }

    /// A blob has come, with its descriptor: the answer.
    ///
    /// # Errors
    /// It can not be the next one, or its key came before.
    pub fn state(&mut self, message: &State) -> Result<Message, String> {
        if !self.keys.insert(message.key.clone()) {
            return Err(format!("the incumbent sent state '{}' twice", String::from_utf8_lossy(&message.key)));
        }
        let answer = self.take(message.id, message.batch)?;
        self.totals.add_blob(message.size);
        Ok(answer)
    }

    fn take(&mut self, id: HandoffId, batch: u32) -> Result<Message, String> {
        if Some(batch) != self.last.checked_add(1) {
            return Err(format!("the incumbent sent batch {batch} after batch {}", self.last));
        }
        self.last = batch;
        Ok(Message::Taken(Taken { id, batch }))
    }

    /// What has come.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether everything has come that O says it sent.
    ///
    /// # Errors
    /// What is missing, with both numbers.
    pub fn check(&self, sent: Totals) -> Result<(), String> {
        let came = self.totals;
        if came == sent {
            return Ok(());
        }
        Err(format!(
            "the incumbent sent connections: {}, blobs of state: {}, bytes of it: {}; what has come: {}, {}, {}",
            sent.connections, sent.blobs, sent.state_bytes, came.connections, came.blobs, came.state_bytes
        ))
    }
}

impl Totals {
    fn add_connections(&mut self, connections: &[Connection]) {
        self.connections += connections.len() as u64;
        self.state_bytes += connections.iter().map(|connection| connection.state.len() as u64).sum::<u64>();
    }

    fn add_blob(&mut self, size: u64) {
        self.blobs += 1;
        self.state_bytes = self.state_bytes.saturating_add(size);
    }
}

/// The bounds of names and sizes that hold in both directions.
///
/// # Errors
/// What is out of them.
pub fn check(message: &Message) -> Result<(), String> {
    let name = |what: &str, name: &[u8]| match name.len() {
        1..=NAME_BYTES_MAX => Ok(()),
        length => Err(format!("a {what} of {length} bytes, 1 to {NAME_BYTES_MAX} are allowed")),
    };
    match message {
        Message::Connections(m) => {
            if !(1..=CONNECTIONS_IN_BATCH_MAX).contains(&m.connections.len()) {
                let count = m.connections.len();
                return Err(format!("{count} connections, 1 to {CONNECTIONS_IN_BATCH_MAX} are allowed"));
            }
            for connection in &m.connections {
                name("name", &connection.name)?;
                if connection.state.len() > CONNECTION_STATE_BYTES_MAX {
                    let length = connection.state.len();
                    return Err(format!("a state of {length} bytes, at most {CONNECTION_STATE_BYTES_MAX} are allowed"));
                }
            }
            Ok(())
        }
        Message::State(m) => name("key", &m.key),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
