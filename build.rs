//! Passes what the linker must know.
fn main() {}
