//! The C ABI: a thin shell over [`crate::participant`] and [`crate::supervisor`], with no logic of its own.
//!
//! The comments on what is exported here are `include/handoff.h`: cbindgen copies them, in the order of the source. What
//! every call has in common, null, fork, overlap, log and panic, is in one place, `handle`.
#![allow(clippy::missing_safety_doc)]
// what a caller must keep is in the header's own words

// [owner], [event], [any] and [signal] are the thread classes of the header, not links.
#![allow(rustdoc::broken_intra_doc_links)]

mod answer;
mod enums;
mod handle;
mod hooks;
mod kind;
mod library;
mod log;
mod options;
mod payload;
mod serve;
mod start;
mod structs;
mod supervisor;
mod text;

pub use self::answer::*;
pub use self::enums::*;
pub use self::handle::Handoff;
pub use self::library::*;
pub use self::options::*;
pub use self::payload::*;
pub use self::serve::*;
pub use self::start::*;
pub use self::structs::*;
pub use self::supervisor::*;
