//! A service under load, through rounds of upgrades that a seed chooses: good and bad binaries, kills and stalls of the
//! supervisor, the incumbent and the successor, at steps and at random moments.
//!
//! The seed gives the schedule. When exactly a signal falls within a step is the machine's choice.

mod clients;
mod probe;
mod run;
mod schedule;
mod summary;
#[path = "../support/mod.rs"]
mod support;
mod upgrading;

use run::Soak;
use std::time::{Duration, Instant};

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn some_rounds() {
    Soak::new(1).run(|rounds| rounds < 25);
}

/// SOAK_MINUTES, SOAK_SEED.
#[test]
#[ignore = "minutes to hours"]
fn soak() {
    let minutes = from_environment("SOAK_MINUTES", 30);
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    Soak::new(from_environment("SOAK_SEED", 1)).run(|_| Instant::now() < end);
}
