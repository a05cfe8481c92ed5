//! The C ABI as a C programmer meets it: the file, the header, and what every function does with what it should not get.

mod compiled;

use compiled::{STRICT, directory, expect_success, have, library, program, root};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

#[test]
fn the_library_exports_exactly_the_committed_symbols() {
    let listed = expect_success(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(library()));
    let exported: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    let committed = fs::read_to_string(root().join("ffi-tests/symbols.txt")).unwrap();
    let committed: BTreeSet<&str> = committed.lines().collect();
    let (new, gone): (Vec<_>, Vec<_>) =
        (exported.difference(&committed).collect(), committed.difference(&exported).collect());
    assert!(new.is_empty() && gone.is_empty(), "not in ffi-tests/symbols.txt: {new:?}; only there: {gone:?}");
    let header = fs::read_to_string(root().join("include/handoff.h")).unwrap();
    let undeclared: Vec<_> = committed.iter().filter(|name| !header.contains(&format!("{name}("))).collect();
    assert!(undeclared.is_empty(), "exported, but not declared: {undeclared:?}");
}

#[test]
fn the_file_has_its_name_stays_loaded_and_needs_nothing_unusual() {
    let dynamic = expect_success(Command::new("readelf").args(["-d", "-W"]).arg(library()));
    assert!(dynamic.contains("Library soname: [libhandoff.so.0]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
    let usual = ["libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libm.so.6"];
    for line in dynamic.lines().filter(|line| line.contains("(NEEDED)")) {
        assert!(usual.iter().any(|name| line.contains(&format!("[{name}]"))), "{line}");
    }
}

/// The header alone, with the layout that programs were compiled for.
fn compiles(compiler: &str, language: &str, standard: &str) {
    let mut command = Command::new(compiler);
    command.args(["-x", language, &format!("-std={standard}"), "-fsyntax-only"]).args(STRICT);
    command.arg("-Wno-missing-field-initializers").arg("-I").arg(root().join("include"));
    expect_success(command.arg(root().join("ffi-tests/c/layout.c")));
}

#[test]
fn the_header_compiles_in_every_dialect_and_the_layout_is_as_promised() {
    for (c, cpp) in [("gcc", "g++"), ("clang", "clang++")] {
        if have(c) {
            ["c99", "c11", "c17", "c2x"].iter().for_each(|standard| compiles(c, "c", standard));
        }
        if have(cpp) {
            ["c++11", "c++14", "c++17", "c++20"].iter().for_each(|standard| compiles(cpp, "c++", standard));
        }
    }
}

#[test]
fn no_input_and_no_order_of_calls_is_worse_than_an_error_code() {
    let data = tempfile::tempdir().unwrap();
    let abuse = program("abuse", "ffi-tests/c/abuse.c", &["-std=c11"]);
    expect_success(Command::new("timeout").arg("120").arg(abuse).arg(data.path()));
}

#[test]
fn the_same_under_valgrind() {
    if !have("valgrind") {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let abuse = program("abuse-valgrind", "ffi-tests/c/abuse.c", &["-std=c11"]);
    let mut valgrind = Command::new("timeout");
    valgrind.args([
        "300",
        "valgrind",
        "--quiet",
        "--error-exitcode=99",
        "--leak-check=full",
        "--errors-for-leak-kinds=definite",
    ]);
    valgrind.arg(format!("--suppressions={}", root().join("ffi-tests/valgrind.supp").display()));
    expect_success(valgrind.arg(abuse).arg(data.path()));
}

#[test]
fn every_example_compiles_in_strict_c11() {
    for name in ["echo", "kv"] {
        program(name, &format!("examples-c/{name}.c"), &["-std=c11"]);
    }
    assert!(directory().join("echo").exists());
}
