//! The program from outside: `handoff run`, `upgrade` and `status` as processes.

mod control;
mod daemons;
mod harness;
mod linked;
mod listeners;
mod running;
mod starting;
