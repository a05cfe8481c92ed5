//! The header in every dialect of C and C++.

use crate::compiled::{STRICT, expect_success, have, passed, root};
use std::process::Command;

const C: [&str; 4] = ["c99", "c11", "c17", "c23"];
const CPP: [&str; 4] = ["c++11", "c++14", "c++17", "c++20"];
/// What is only asked of C.
const STRICT_C: [&str; 2] = ["-Wstrict-prototypes", "-Wmissing-prototypes"];

/// Programs that are only checked: the header first, alone and twice, each layout and number; each signature.
const SOURCES: [&str; 2] = ["ffi-tests/c/layout.c", "ffi-tests/c/frozen.c"];

fn checks(compiler: &str, language: &str, standard: &str, source: &str) -> Command {
    let mut command = Command::new(compiler);
    command.args(["-x", language, &format!("-std={standard}"), "-fsyntax-only"]).args(STRICT);
    command.args(["-Wconversion", "-Wshadow", "-Wno-missing-field-initializers"]);
    if language == "c" {
        command.args(STRICT_C);
    }
    command.arg("-I").arg(root().join("include")).arg(root().join(source));
    command
}

/// C23 was called C2x before it was accepted.
fn known(compiler: &str, standard: &'static str) -> &'static str {
    let knows = |standard: &str| {
        let mut command = Command::new(compiler);
        command.args(["-x", "c", &format!("-std={standard}"), "-fsyntax-only", "/dev/null"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    if standard == "c23" && !knows(standard) { "c2x" } else { standard }
}

#[test]
fn the_header_compiles_in_every_dialect_with_the_signatures_and_layouts_that_were_accepted() {
    for (compiler, language, standards) in
        [("gcc", "c", C), ("clang", "c", C), ("g++", "c++", CPP), ("clang++", "c++", CPP)]
    {
        if !have(compiler) {
            continue;
        }
        for standard in standards.map(|standard| known(compiler, standard)) {
            for source in SOURCES {
                expect_success(&mut checks(compiler, language, standard, source));
            }
        }
        passed(&format!("header, signatures, layouts: {compiler}, {}", standards.join(", ")));
    }
}

/// The gate itself: a changed type is seen.
#[test]
fn a_changed_signature_does_not_compile() {
    let dir = tempfile::tempdir().unwrap();
    let header = std::fs::read_to_string(root().join("include/handoff.h")).unwrap();
    for (before, after) in [
        (
            "int handoff_done(struct handoff *h, uint64_t event_id);",
            "int handoff_done(struct handoff *h, int event_id);",
        ),
        ("    uint64_t deadline_ns;", "    uint64_t deadline;"),
        ("HANDOFF_ENONAME = -21", "HANDOFF_ENONAME = -22"),
    ] {
        let changed = header.replace(before, after);
        assert_ne!(changed, header, "{before} is not in the header");
        std::fs::write(dir.path().join("handoff.h"), changed).unwrap();
        let compiles = SOURCES.map(|source| {
            let mut command = Command::new("cc");
            command.args(["-std=c11", "-fsyntax-only", "-Werror", "-I"]).arg(dir.path()).arg(root().join(source));
            command.output().unwrap().status.success()
        });
        assert!(compiles.contains(&false), "nobody notices {after}");
    }
    passed("a changed header does not compile");
}

/// Each function of the committed list is frozen.
#[test]
fn every_symbol_has_an_accepted_signature() {
    let symbols = std::fs::read_to_string(root().join("ffi-tests/symbols.txt")).unwrap();
    let frozen = std::fs::read_to_string(root().join("ffi-tests/c/frozen.c")).unwrap();
    let missing: Vec<_> = symbols.lines().filter(|name| !frozen.contains(&format!(" = {name};"))).collect();
    assert!(missing.is_empty(), "not in ffi-tests/c/frozen.c: {missing:?}");
    passed("every symbol is frozen");
}
