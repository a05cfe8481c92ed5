//! Connections and state that move, through the C calls.

mod clients;
#[path = "../compiled/mod.rs"]
mod compiled;
mod kinds;
mod overlap;
mod serving;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
