//! The ABI that was accepted, as libabigail sees it.
//!
//! Rust's own debug information is of no use for that: its dump is a megabyte of private types with paths of the machine in
//! it. So what is dumped is the header, as a C compiler understands it: a library that defines each of its functions.
//! tests/header.rs ties the header to the source, and the list of symbols to the library.

use crate::compiled::{directory, expect_success, have, passed, root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A library with an empty body for each declaration of the header, and one that takes each enum: their values go through
/// plain integers.
fn shim(header: &str, name: &str) -> PathBuf {
    let dir = directory().join(name);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("handoff.h"), header).unwrap();
    let functions: Vec<String> = (header.lines())
        .filter(|line| line.contains("handoff_") && !line.starts_with("typedef") && !line.starts_with([' ', '/']))
        .filter_map(|line| line.strip_suffix(");"))
        .map(|line| format!("{line}) {{ __builtin_trap(); }}\n"))
        .collect();
    let symbols = fs::read_to_string(root().join("ffi-tests/symbols.txt")).unwrap();
    assert_eq!(functions.len(), symbols.lines().count(), "a declaration was not found");
    let enums = (header.lines())
        .filter_map(|line| line.strip_prefix("typedef enum ")?.strip_suffix(" {"))
        .map(|name| format!("void values_of_{name}({name} value) {{ (void)value; }}\n"));
    let source: String = functions.into_iter().chain(enums).collect();
    fs::write(dir.join("shim.c"), format!("#include \"handoff.h\"\n{source}")).unwrap();
    let mut compiler = Command::new("gcc");
    compiler.args(["-std=c11", "-g", "-fPIC", "-shared", "-Wl,-soname,libhandoff.so.0", "-o", "shim.so", "shim.c"]);
    expect_success(compiler.current_dir(&dir));
    dir.join("shim.so")
}

/// abidiff's words; none if nothing has changed.
fn differences(accepted: &Path, shim: &Path) -> Option<String> {
    let output = Command::new("abidiff").arg(accepted).arg(shim).output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_abi_is_the_accepted_one() {
    if !have("abidw") || !have("abidiff") {
        return;
    }
    let accepted = root().join("ffi-tests/libhandoff.abi");
    let header = fs::read_to_string(root().join("include/handoff.h")).unwrap();
    let shim = shim(&header, "abi");
    if std::env::var_os("HANDOFF_BLESS").is_some() {
        let mut dump = Command::new("abidw");
        dump.args(["--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--out-file"]);
        expect_success(dump.arg(&accepted).arg(&shim));
        return;
    }
    if let Some(words) = differences(&accepted, &shim) {
        panic!(
            "the ABI is not the one of ffi-tests/libhandoff.abi:\n{words}\n\
             If programs that were compiled before still run:  HANDOFF_BLESS=1 cargo test --test c_gates abi"
        );
    }
    passed("abidiff against ffi-tests/libhandoff.abi");
}

/// The gate itself: what breaks programs is seen, also in types that no function takes.
#[test]
fn a_changed_abi_is_noticed() {
    if !have("abidiff") {
        return;
    }
    let accepted = root().join("ffi-tests/libhandoff.abi");
    let header = fs::read_to_string(root().join("include/handoff.h")).unwrap();
    for (number, (before, after)) in [
        (
            "int handoff_progress(struct handoff *h, uint64_t event_id,",
            "int handoff_progress(struct handoff *h, uint32_t event_id,",
        ),
        ("    int32_t cancel_fd;", "    int64_t cancel_fd;"),
        ("HANDOFF_ESTALE = -9", "HANDOFF_ESTALE = -99"),
        ("    char reason[512];", "    char reason[256];"),
    ]
    .into_iter()
    .enumerate()
    {
        let changed = header.replace(before, after);
        assert_ne!(changed, header, "{before} is not in the header");
        assert!(differences(&accepted, &shim(&changed, &format!("abi-{number}"))).is_some(), "nobody notices {after}");
    }
    assert_eq!(differences(&accepted, &shim(&header, "abi-same")), None, "it notices what is not there");
    passed("abidiff notices a change");
}

#[test]
fn the_dump_names_no_machine() {
    let dump = fs::read_to_string(root().join("ffi-tests/libhandoff.abi")).unwrap();
    let path = dump.lines().find(|line| line.contains("='/"));
    assert_eq!(path, None);
}
