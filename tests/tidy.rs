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

/// The same of the modules of `src/service`, for those that have such walls.
const SERVICE_WALLS: &[(&str, &[&str])] = &[
    ("config", &["address", "graph", "parse", "paths", "unit"]),
    ("graph", &["config"]),
    ("log", &["config", "words"]),
    ("task", &[]),
    ("reaper", &[]),
    ("paths", &[]),
    ("words", &[]),
    ("unit", &["address", "bad", "config", "given", "graph", "log", "paths", "task", "words"]),
];

/// What makes no system call and reads no clock, so that whoever holds it against its rules needs neither. A configuration is read
/// from files in one place only.
const PURE: &[&str] =
    &["protocol", "service/config", "service/graph", "service/unit/health/machine.rs", "service/unit/restart.rs"];
const IMPURE: &[&str] = &["service/config/load.rs"];

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
fn modules_of_service_keep_theirs() {
    let service = root().join("src/service");
    let all: Vec<String> = fs::read_dir(&service)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().trim_end_matches(".rs").to_owned())
        .filter(|name| name != "mod")
        .collect();
    let mut found = Vec::new();
    for (module, allowed) in SERVICE_WALLS {
        assert!(all.iter().any(|name| name == module), "there is no src/service/{module}");
        let dir = service.join(module);
        let files = if dir.is_dir() { sources(&dir) } else { vec![dir.with_extension("rs")] };
        for path in files {
            let code = code(&path);
            // From the file of the module itself its sisters are one step away.
            let is_top = path.parent() == Some(&service) || path == dir.join("mod.rs");
            let names = |other: &str| {
                let step = format!("super::{other}::");
                code.contains(&format!("crate::service::{other}::")) || is_top && code.contains(&step)
            };
            let through =
                all.iter().filter(|other| other != module && !allowed.contains(&other.as_str()) && names(other));
            found.extend(through.map(|other| format!("{} names service::{other}", path.display())));
        }
    }
    complain("a module of service reaches through a wall", &found);
}

#[test]
fn what_decides_is_pure() {
    let impure = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::process",
        "std::os::fd",
        "Instant",
        "SystemTime",
        "libc::",
        "monotonic_ns",
        "sys::clock",
        "sys::fd",
        "sys::pidfd",
    ];
    let exempt: Vec<_> = IMPURE.iter().map(|file| root().join("src").join(file)).collect();
    let mut found = Vec::new();
    for place in PURE.iter().map(|place| root().join("src").join(place)) {
        let files = if place.is_dir() { sources(&place) } else { vec![place] };
        for path in files.into_iter().filter(|path| !exempt.contains(path)) {
            let code = code(&path);
            // The numbers of signals are words.
            let code = code.replace("nix::sys::signal::Signal", "");
            let words = impure.iter().chain(&["nix::"]).filter(|word| code.contains(**word));
            found.extend(words.map(|word| format!("{}: {word}", path.display())));
        }
    }
    complain("what is pure reads a clock or makes a system call", &found);
}

#[test]
fn the_program_knows_only_the_rust_api() {
    let inner = ["handoff::protocol", "handoff::channel", "handoff::ffi", "handoff::participant"];
    let mut found = Vec::new();
    for path in sources(&root().join("src/bin")) {
        let code = code(&path);
        found.extend(
            inner.iter().filter(|word| code.contains(**word)).map(|word| format!("{}: {word}", path.display())),
        );
    }
    complain("the program reaches behind the Rust API", &found);
}

/// Every file and folder below one of the tree's own.
fn paths(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(paths(&path));
            found.push(format!("{name}/"));
        } else {
            found.push(name);
        }
    }
    found
}

#[test]
fn what_the_architecture_names_is_there() {
    let tops = ["src", "tests", "bindings", "ffi-tests", "docs"];
    let known: Vec<String> =
        tops.iter().flat_map(|top| paths(&root().join(top)).into_iter().chain([format!("{top}/")])).collect();
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let text = text.split("```").step_by(2).collect::<String>();
    let is_there = |name: &str| known.iter().any(|path| path == name || path.ends_with(&format!("/{name}")));
    let names: Vec<&str> =
        text.split('`').skip(1).step_by(2).filter(|name| name.ends_with('/') || name.ends_with(".rs")).collect();
    assert!(names.len() > 40, "only these are named: {names:?}");
    let missing: Vec<String> = names.into_iter().filter(|name| !is_there(name)).map(str::to_owned).collect();
    complain("ARCHITECTURE.md names what is not there", &missing);
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
