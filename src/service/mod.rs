//! Running daemons: their addresses, their files, their restarts.
//!
//! A [`Service`] is one daemon with its [`crate::supervisor::Supervisor`]: what it should be, what it is, and why. It owns
//! no thread and never waits; a program polls its descriptor, calls [`Service::turn`] at [`Service::due_ns`] at the
//! latest, and may do so for any number of them in one loop.

pub mod address;
mod bad;
pub mod config;
pub mod doctor;
pub mod fleet;
pub mod given;
pub mod graph;
pub mod history;
pub mod instance;
pub mod log;
pub mod manager;
pub mod metrics;
pub mod parse;
pub mod paths;
pub mod reaper;
pub mod task;
mod unit;
pub mod words;

pub use crate::supervisor::OutputWatch;
pub use crate::sys::signals;
pub use unit::Service;
pub use unit::event::{Ended, Event, RestartCause};
pub use unit::preview::Preview;
pub use unit::restart;
pub use unit::rollback::WayBack;
pub use unit::settings::{ProcessSettings, Settings, Times, Upgrade, WhenDraining};
pub use unit::status::{
    DrainingStatus, HealthStatus, ListenerStatus, STATES, ServiceStatus, WaitingStatus, WatchdogStatus,
};
