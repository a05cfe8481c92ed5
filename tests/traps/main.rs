//! The traps into which supervisors have fallen, one by one.

mod asleep;
mod commands;
mod endings;
mod starts;
#[path = "../support/mod.rs"]
mod support;
mod wants;
