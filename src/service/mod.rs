//! Running daemons: their addresses, their files, their restarts.
//!
//! A [`Service`] is one daemon with its [`crate::supervisor::Supervisor`]: what it should be, what it is, and why. It owns
//! no thread and never waits; a program polls its descriptor, calls [`Service::turn`] within [`Service::due_in`] at the
//! latest, and may do so for any number of them in one loop.

pub mod address;
mod adopting;
mod bad;
pub mod instance;
pub mod paths;
pub mod restart;
mod rollback;
mod settings;
mod status;
mod stop;
mod unit;
mod upgrade;

pub use crate::sys::signals;
pub use rollback::WayBack;
pub use settings::{Settings, Times, Upgrade, WhenDraining};
pub use status::{DrainingStatus, ListenerStatus, ServiceStatus, WaitingStatus};
pub use unit::{Ended, Event, Service};
