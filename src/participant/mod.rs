//! What a daemon links: its part in its own replacement.

mod adopted;
mod answer;
mod as_incumbent;
mod as_successor;
mod config;
mod control;
mod core;
mod data_lock;
mod drainable;
mod event;
mod fence;
mod handle;
mod helper;
mod incumbent;
mod listeners;
mod predecessor;
mod publish;
mod role;
mod shared;
mod start;
mod trace;
mod transfer;

pub use self::config::Config;
pub use self::data_lock::DataDirLock;
pub use self::drainable::{Deadline, DrainReport, Drainable, HookError, SealReport, StateSnapshot};
pub use self::event::{Event, EventKind};
pub use self::handle::{Participant, Progress};
pub use self::incumbent::{Incumbent, Served, Stopper, WriteGuard, Writers};
pub use self::listeners::InheritedListeners;
pub use self::role::{Begun, BegunSuccessor, ColdStart, HandshookSuccessor, Role, Successor, detect_role};
pub use self::shared::Phase;
pub use self::transfer::{StateBytes, Transfer, TransferredConnection};
pub use crate::protocol::message::{Mode, Readiness};
