//! What an operator can get wrong, end to end: each is one clear error that names the thing and says what to do; nothing
//! is changed; and whoever serves goes on, with reads and writes, and can be replaced afterwards.

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod binaries;
mod clients;
mod control;
mod data;
mod environment;
mod full;
mod harness;
mod mounts;
mod runtime;
mod second;
mod state;
mod units;
