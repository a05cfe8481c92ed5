//! The gates of the C ABI that compilers and tools of C keep: dialects, frozen signatures and layouts, the accepted ABI,
//! sanitizers, valgrind. See docs/development.md.

#[path = "../compiled/mod.rs"]
mod compiled;

mod abi;
mod dialects;
mod sanitizers;
