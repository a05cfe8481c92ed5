//! The fuzz targets, and the protocol, which knows nothing of the rest. `tests/fuzzing.rs` runs the same targets, briefly.

#[path = "../../src/limits.rs"]
pub mod limits;
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;

pub mod bytes;
pub mod decode;
pub mod incumbent;
pub mod successor;
pub mod supervisor;
