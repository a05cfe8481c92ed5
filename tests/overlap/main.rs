//! Overlap mode with real processes: somebody accepts at every instant.

mod scene;
#[path = "../support/mod.rs"]
mod support;
mod upgrades;
