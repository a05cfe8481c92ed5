//! `make install`, and what a stranger can do with what it has installed, and with nothing else.

mod compiled;
mod support;

use compiled::{STRICT, expect_success, have, root};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use support::Service;
use support::go::have_go;
use support::python::{Python, binding};

/// The oldest glibc that the installed files run with, as the README says. It is that of the oldest functions that std
/// calls by their newest names: a build on an older system needs less.
const GLIBC: (u32, u32) = (2, 34);
/// What the library may add to the smallest shared library that Rust makes. That one has some 260 KB, for the most part
/// what prints a backtrace; docs/development.md has more.
const LIBRARY_BYTES_MAX: u64 = 670 << 10;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the top-level Makefile. Its target directory is its own, and is used again the next time.
fn make(goal: &str, variables: &[(&str, &Path)]) {
    let mut command = Command::new("make");
    command.arg("-j2"); // program and library side by side
    command.arg(goal).current_dir(root()).env("CARGO", env!("CARGO")).env("CARGOFLAGS", "--locked --offline --quiet");
    command.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("packaging"));
    // The library is built as for a release, the program in a third of the time.
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
    for (name, value) in variables {
        command.arg(format!("{name}={}", value.display()));
    }
    expect_success(&mut command);
}

/// The prefix into which everything is installed, once for all tests of this program.
fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prefix");
        make("install", &[("PREFIX", &prefix)]);
        prefix
    })
}

/// Files and links below a directory, by their paths from there; a link as "path -> target".
fn files(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(dir).unwrap().display();
        match fs::read_link(&path) {
            Ok(target) => drop(found.insert(format!("{name} -> {}", target.display()))),
            Err(_) if path.is_dir() => found.extend(files(&path).into_iter().map(|below| format!("{name}/{below}"))),
            Err(_) => drop(found.insert(name.to_string())),
        }
    }
    found
}

/// pkg-config that sees this prefix alone; its words.
fn pkg_config(prefix: &Path, arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.args(arguments).arg("handoff").env("PKG_CONFIG_LIBDIR", prefix.join("lib/pkgconfig"));
    expect_success(&mut command).split_whitespace().map(str::to_owned).collect()
}

/// Compiles an example with what pkg-config says.
fn compile(dir: &Path, example: &str, build: &str, words: &[String]) -> PathBuf {
    let program = dir.join(format!("{example}-{build}"));
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-O1", "-pthread"]).args(STRICT).arg(format!("-DBUILD=\"{build}\"")).current_dir(dir);
    compiler.arg("-o").arg(&program).arg(root().join("examples-c").join(example).with_extension("c")).args(words);
    expect_success(&mut compiler);
    program
}

/// With the shared library, which the program finds in the prefix.
fn compile_dynamic(dir: &Path, example: &str, build: &str) -> PathBuf {
    let mut words = pkg_config(prefix(), &["--cflags", "--libs"]);
    words.push(format!("-Wl,-rpath,{}", prefix().join("lib").display()));
    compile(dir, example, build, &words)
}

/// With the archive, and what the installed handoff.pc says that it needs.
fn compile_static(dir: &Path, example: &str, build: &str) -> PathBuf {
    let words = pkg_config(prefix(), &["--static", "--cflags", "--libs"]);
    let archive = |word: String| if word == "-lhandoff" { "-l:libhandoff.a".to_owned() } else { word };
    compile(dir, example, build, &words.into_iter().map(archive).collect::<Vec<_>>())
}

fn readelf(arguments: &[&str], file: &Path) -> String {
    expect_success(Command::new("readelf").arg("-W").args(arguments).arg(file))
}

fn maps_the_library(pid: i32) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    assert!(!maps.contains("/deps/libhandoff.so"), "from the build tree:\n{maps}");
    maps.contains(&prefix().join(format!("lib/libhandoff.so.{VERSION}")).display().to_string())
}

#[test]
fn every_file_is_in_its_place_and_uninstall_takes_it_away() {
    let root = tempfile::tempdir().unwrap();
    let lib = Path::new("/usr/lib/multi-arch");
    let variables = [("DESTDIR", root.path()), ("PREFIX", Path::new("/usr")), ("LIBDIR", lib)];
    prefix(); // not two builds at once
    make("install", &variables);
    let expected = BTreeSet::from([
        "usr/bin/handoff".to_owned(),
        "usr/share/bash-completion/completions/handoff".to_owned(),
        "usr/share/fish/vendor_completions.d/handoff.fish".to_owned(),
        "usr/share/man/man1/handoff.1".to_owned(),
        "usr/share/zsh/site-functions/_handoff".to_owned(),
        "usr/include/handoff.h".to_owned(),
        "usr/lib/multi-arch/libhandoff.a".to_owned(),
        "usr/lib/multi-arch/libhandoff.so -> libhandoff.so.0".to_owned(),
        format!("usr/lib/multi-arch/libhandoff.so.0 -> libhandoff.so.{VERSION}"),
        format!("usr/lib/multi-arch/libhandoff.so.{VERSION}"),
        "usr/lib/multi-arch/pkgconfig/handoff.pc".to_owned(),
    ]);
    let page = |file: &String| file.starts_with("usr/share/man/man1/handoff-");
    let (pages, others): (BTreeSet<String>, _) = files(root.path()).into_iter().partition(page);
    assert_eq!(others, expected);
    assert!(pages.contains("usr/share/man/man1/handoff-upgrade.1") && pages.len() > 10, "{pages:?}");
    let pc = fs::read_to_string(root.path().join("usr/lib/multi-arch/pkgconfig/handoff.pc")).unwrap();
    assert!(pc.contains("prefix=/usr\n") && pc.contains("libdir=${prefix}/lib/multi-arch\n"), "{pc}");
    assert!(!pc.contains('@') && !pc.contains(&root.path().display().to_string()), "{pc}");
    make("uninstall", &variables);
    assert_eq!(files(root.path()), BTreeSet::new());
}

#[test]
fn the_installed_library_is_the_one_that_was_promised_and_no_larger() {
    let library = prefix().join("lib/libhandoff.so");
    let listed = expect_success(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(&library));
    let exported: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    let committed = fs::read_to_string(root().join("ffi-tests/symbols.txt")).unwrap();
    assert_eq!(exported, committed.lines().collect(), "exported, and ffi-tests/symbols.txt");
    let dynamic = readelf(&["-d"], &library);
    assert!(dynamic.contains("Library soname: [libhandoff.so.0]") && dynamic.contains("NODELETE"), "{dynamic}");
    assert!(!readelf(&["-S"], &library).contains(".symtab"), "it is not stripped");

    // The same compiler and the same flags, and nothing of ours.
    let dir = tempfile::tempdir().unwrap();
    let (source, bare) = (dir.path().join("bare.rs"), dir.path().join("libbare.so"));
    fs::write(
        &source,
        "#[unsafe(no_mangle)] pub extern \"C\" fn bare() -> bool { std::panic::catch_unwind(|| ()).is_ok() }",
    )
    .unwrap();
    let mut compiler = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    compiler.args(["--edition=2024", "--crate-type=cdylib", "-Copt-level=s", "-Clto=fat", "-Ccodegen-units=1"]);
    expect_success(compiler.arg("-Cstrip=symbols").arg(&source).arg("-o").arg(&bare));
    let [whole, bare] = [library, bare].map(|file| fs::metadata(file).unwrap().len());
    println!("libhandoff.so has {whole} bytes; Rust's std alone has {bare}");
    assert!(bare > 100_000, "the library to compare with is empty: {bare}");
    assert!(whole - bare <= LIBRARY_BYTES_MAX, "{whole} bytes, {bare} of them std's");
}

/// The newest version of glibc that a file asks for.
fn glibc(file: &Path) -> (u32, u32) {
    let needed = readelf(&["--version-info"], file);
    let versions = needed.split("GLIBC_").skip(1).filter_map(|rest| {
        let version: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let mut numbers = version.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    versions.max().unwrap_or_else(|| panic!("{} asks for no glibc at all:\n{needed}", file.display()))
}

#[test]
fn no_file_needs_a_newer_glibc_than_the_readme_says() {
    if !have("pkg-config") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let linked = compile_static(dir.path(), "echo", "static");
    for file in [&prefix().join("lib/libhandoff.so"), &prefix().join("bin/handoff"), &linked] {
        let needs = glibc(file);
        println!("{}: glibc {needs:?}", file.display());
        assert!(needs <= GLIBC, "{} needs glibc {needs:?}", file.display());
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&format!("glibc {}.{}", GLIBC.0, GLIBC.1)), "the README says something else");
}

#[test]
fn a_prefix_that_was_moved_tells_where_it_is() {
    if !have("pkg-config") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let moved = dir.path().join("moved");
    expect_success(Command::new("cp").arg("-a").args([prefix(), moved.as_path()]));
    let said = pkg_config(&moved, &["--define-prefix", "--cflags", "--libs"]);
    let expected = [format!("-I{}", moved.join("include").display()), format!("-L{}", moved.join("lib").display())];
    assert_eq!(said, [expected.as_slice(), &["-lhandoff".to_owned()]].concat());
}

/// kv in C, built with CMake alone.
fn compile_by_cmake(dir: &Path, build: &str) -> PathBuf {
    let source = root().join("examples-c/kv.c");
    let text = format!(
        "cmake_minimum_required(VERSION 3.16)\nproject(kv C)\nfind_package(PkgConfig REQUIRED)\nfind_package(Threads REQUIRED)\n\
         pkg_check_modules(HANDOFF REQUIRED IMPORTED_TARGET handoff>={VERSION})\nadd_executable(kv {})\n\
         target_compile_definitions(kv PRIVATE BUILD=\"{build}\")\n\
         target_link_libraries(kv PRIVATE PkgConfig::HANDOFF Threads::Threads)\n",
        source.display()
    );
    fs::write(dir.join("CMakeLists.txt"), text).unwrap();
    let cmake = |arguments: &[&OsStr]| {
        let mut command = Command::new("cmake");
        command.env("PKG_CONFIG_LIBDIR", prefix().join("lib/pkgconfig"));
        expect_success(command.args(arguments));
    };
    let (out, source) = (dir.join("cmake"), dir.as_os_str());
    cmake(&["-S".as_ref(), source, "-B".as_ref(), out.as_os_str()]);
    cmake(&["--build".as_ref(), out.as_os_str()]);
    out.join("kv")
}

#[test]
fn daemons_of_every_build_are_replaced_by_each_other_under_the_installed_program() {
    if !have("pkg-config") || !have("cmake") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let builds = [
        ("dynamic", compile_dynamic(dir.path(), "kv", "dynamic"), true),
        ("static", compile_static(dir.path(), "kv", "static"), false),
        ("cmake", compile_by_cmake(dir.path(), "cmake"), true),
    ];
    let mut service = Service::place();
    service.handoff = prefix().join("bin/handoff");
    service.launch(&builds[0].1, &[]);
    assert!(maps_the_library(service.daemon_pid()));
    let mut acknowledged = Vec::new();
    for (build, program, shared) in builds.iter().cycle().skip(1).take(builds.len()) {
        let reply = service.ask(&format!("SET {build} {build}"));
        assert!(reply.as_deref().is_some_and(|reply| reply.starts_with("OK ")), "{reply:?}");
        acknowledged.push(build);
        let upgrade = service.upgrade(program, &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{build}: {upgrade:?}");
        let pid = service.daemon_pid();
        assert_eq!(service.ping(), Some((pid, (*build).to_owned())));
        assert_eq!(maps_the_library(pid), *shared, "{build}");
        for build in &acknowledged {
            assert_eq!(service.ask(&format!("GET {build}")), Some(format!("VALUE {build}")));
        }
    }
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
}

/// Runs a program under the installed `handoff`, and replaces it.
fn runs_and_is_replaced(program: &Path) {
    let mut service = Service::place();
    service.handoff = prefix().join("bin/handoff");
    service.launch(program, &["--listen", "http=127.0.0.1:0"]);
    assert!(maps_the_library(service.daemon_pid()), "{}", program.display());
    assert_eq!(service.upgrade(program, &[]).result, "committed", "{}", service.stderr());
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
}

#[test]
fn the_other_examples_run_from_the_prefix_too() {
    if !have("pkg-config") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for example in ["echo", "prefork"] {
        let program = compile_dynamic(dir.path(), example, "installed");
        runs_and_is_replaced(&program);
    }
}

#[test]
fn the_example_in_go_is_built_against_the_prefix() {
    if !have("pkg-config") || !have_go() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("web");
    let mut go = Command::new("go");
    go.args(["build", "-mod=mod", "-buildvcs=false", "-o"]).arg(&program).arg("./examples/http");
    go.current_dir(root().join("bindings/go")).env("GOPROXY", "off").env("GOTOOLCHAIN", "local");
    go.env("PKG_CONFIG_LIBDIR", prefix().join("lib/pkgconfig"));
    // Also because Go's cache takes no notice of what pkg-config says.
    go.env("CGO_LDFLAGS", format!("-Wl,-rpath,{}", prefix().join("lib").display()));
    go.env("CGO_CFLAGS", format!("-I{}", prefix().join("include").display()));
    expect_success(&mut go);
    runs_and_is_replaced(&program);
}

#[test]
fn the_example_in_python_runs_with_the_library_of_the_prefix() {
    let Some(python) = Python::find() else { return };
    let (example, library) = (root().join("bindings/python/examples/http_server.py"), prefix().join("lib"));
    let (path, example, library) = (binding(), example.display(), library.display());
    let line = format!("env PYTHONPATH={} LD_LIBRARY_PATH={library} {} {example}", path.display(), python.interpreter);
    runs_and_is_replaced(&python.program("web", &line));
}

#[test]
fn a_library_that_was_loaded_stays() {
    let library = prefix().join("lib/libhandoff.so.0");
    let loads = compiled::program("loads", "ffi-tests/c/loads.c", &["-std=c11", "-ldl"]);
    let needed = readelf(&["-d"], &loads);
    assert!(!needed.contains("libhandoff"), "linked already:\n{needed}");
    expect_success(Command::new("timeout").arg("60").arg(loads).arg(library).arg(VERSION));
}
