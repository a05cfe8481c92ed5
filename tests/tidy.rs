//! The rules of the tree that a machine can check: walls between the modules, sizes, and where `unsafe` may be.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file at most.
const FILE_LINES_MAX: usize = 500;

/// Each module of the library, and the only ones of its sisters that it may name.
const WALLS: &[(&str, &[&str])] = &[
    ("protocol", &["limits"]),
    ("sys", &[]),
    ("channel", &["limits", "protocol", "sys"]),
    ("participant", &["channel", "error", "limits", "protocol", "sys"]),
    ("supervisor", &["channel", "error", "limits", "protocol", "sys"]),
    ("service", &["error", "limits", "supervisor", "sys"]),
];

const MODULES: &[&str] =
    &["channel", "error", "ffi", "limits", "participant", "protocol", "service", "supervisor", "sys"];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The top-level module of a file below `src`.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The code of a file without comments, so that prose may name what code may not.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

fn complain(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn modules_keep_their_walls() {
    let mut found = Vec::new();
    for path in sources(&root().join("src")) {
        let module = module(&path);
        let Some((_, allowed)) = WALLS.iter().find(|(name, _)| *name == module) else { continue };
        let code = code(&path);
        for other in MODULES.iter().filter(|other| **other != module && !allowed.contains(*other)) {
            if code.contains(&format!("crate::{other}")) {
                found.push(format!("{} names crate::{other}", path.display()));
            }
        }
    }
    complain("a module reaches through a wall", &found);
}

#[test]
fn the_protocol_is_pure() {
    let impure =
        ["std::fs", "std::net", "std::process", "std::os::fd", "std::time::Instant", "SystemTime", "libc::", "nix::"];
    let mut found = Vec::new();
    for path in sources(&root().join("src/protocol")) {
        let code = code(&path);
        found.extend(
            impure.iter().filter(|word| code.contains(**word)).map(|word| format!("{}: {word}", path.display())),
        );
    }
    complain("the protocol reads a clock or makes a system call", &found);
}

#[test]
fn unsafe_is_only_in_sys_and_ffi() {
    let mut found = Vec::new();
    for path in sources(&root().join("src")) {
        let unsafe_code = code(&path)
            .lines()
            .any(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe"));
        if unsafe_code && !["sys", "ffi"].contains(&module(&path).as_str()) {
            found.push(path.display().to_string());
        }
    }
    complain("unsafe outside of sys and ffi", &found);
}

#[test]
fn bincode_is_named_in_one_file() {
    let files: Vec<_> =
        sources(&root().join("src")).into_iter().filter(|path| code(path).contains("bincode::")).collect();
    assert_eq!(files, [root().join("src/protocol/codec.rs")]);
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let mut found = Vec::new();
    for dir in ["src", "tests", "benches", "ffi-tests", "fuzz/src", "fuzz/fuzz_targets"] {
        if !root().join(dir).exists() {
            continue;
        }
        for path in sources(&root().join(dir)) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            if lines > FILE_LINES_MAX {
                found.push(format!("{} has {lines} lines", path.display()));
            }
        }
    }
    complain(&format!("more than {FILE_LINES_MAX} lines"), &found);
}
