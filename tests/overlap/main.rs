//! Overlap mode with real processes: somebody accepts at every instant.

mod deaths;
mod draining;
mod scene;
mod sockets;
#[path = "../support/mod.rs"]
mod support;
mod undone;
mod upgrades;
