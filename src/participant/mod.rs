//! What a daemon links: its part in its own replacement.

mod as_incumbent;
mod as_successor;
mod config;
mod control;
mod core;
mod data_lock;
mod event;
mod fence;
mod handle;
mod helper;
mod listeners;
mod shared;

pub use self::config::Config;
pub use self::data_lock::DataDirLock;
pub use self::event::{Event, EventKind};
pub use self::handle::{Participant, Progress};
pub use self::listeners::InheritedListeners;
pub use self::shared::Phase;
