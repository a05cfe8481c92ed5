//! Units at random: what a fault takes along, which orders are kept, and what a change is.

mod changes;
mod faults;
mod order;
mod plan;

use proptest::test_runner::Config;

fn cases(cases: u32) -> Config {
    // Nothing is written beside the sources; a failure prints its message.
    Config { cases, failure_persistence: None, ..Config::default() }
}
