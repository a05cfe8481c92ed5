//! Connections and state that move, through the C calls.

#[path = "../compiled/mod.rs"]
mod compiled;
mod kinds;
