//! The three machines together, on a virtual clock: every driver that they need, in memory.
//!
//! [`world`] has the processes and the events that can happen next, [`daemons`] and [`service`] carry out the machines'
//! actions, [`checks`] holds what must be true after each event and at the end. The rest are tests: one fixed schedule
//! with a fault at each of its steps, and `explore`, where a seeded scheduler chooses events and faults.

mod aborts;
mod acts;
mod adoption;
mod checks;
mod crossings;
mod daemons;
mod deaths;
mod edges;
mod explore;
mod forward;
mod restart;
mod service;
mod world;
