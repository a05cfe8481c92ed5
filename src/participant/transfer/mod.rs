//! Connections and state that move to the successor: O gives inside of a drain or a seal, N takes.
//!
//! In exclusive mode O keeps what is its own; what is sent are duplicates. So a rollback at any moment loses nothing: N closes its copies, and O
//! goes on with its own. In overlap mode N serves already, and a connection is its own as soon as it was sent: `leaving`, `donor`.

mod api;
mod donor;
mod give;
mod leaving;
mod socket;
mod take;

pub use self::api::Transfer;
pub(super) use self::donor::Donor;
pub(super) use self::give::Giving;
pub(super) use self::take::Received;
pub use self::take::{StateBytes, TransferredConnection};
