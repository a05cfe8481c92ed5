//! The supervisor replaces its own program, in the same process: by execve(2), so that its children stay its children, and whatever it
//! has open stays open.
//!
//! The state is written into a sealed memfd. The new program is first run beside us, and must say that it can read it; then it is executed
//! with it. If it does not go on with all of it in time, it executes the old one, which does.

pub mod client;
pub mod restore;
pub mod state;

/// What a program says that has understood a state.
pub const PREFLIGHT_PASSED: &str = "handoff-preflight passed";
/// The subcommand that is asked.
pub const PREFLIGHT: &str = "handoff-preflight";
/// For the next program: our pid, the descriptor of the state and that of the way back.
pub const RESTORE: &str = "HANDOFF_RESTORE";
/// Why the one before has given up.
pub const RESTORE_FAILED: &str = "HANDOFF_RESTORE_FAILED";
