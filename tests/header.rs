//! The committed header is what the source says.

use std::fs;
use std::path::Path;

/// What build.rs has made of `src/ffi` for this very build.
const GENERATED: &str = concat!(env!("OUT_DIR"), "/handoff.h");

#[test]
fn the_committed_header_is_the_generated_one() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/handoff.h");
    let generated = fs::read_to_string(GENERATED).expect("build.rs makes it, or says why not");
    if std::env::var_os("HANDOFF_BLESS").is_some() {
        fs::write(&committed, generated).unwrap();
        return;
    }
    let found = fs::read_to_string(&committed).unwrap_or_default();
    let differs = generated.lines().zip(found.lines()).position(|(new, old)| new != old);
    let line = differs.map_or(generated.lines().count().min(found.lines().count()), |line| line) + 1;
    assert!(
        generated == found,
        "include/handoff.h is not what src/ffi and cbindgen.toml say, from line {line} on.\n\
         If the change is wanted:  HANDOFF_BLESS=1 cargo test --test header\n\
         and look at the difference: a program that was compiled before must still run."
    );
}
