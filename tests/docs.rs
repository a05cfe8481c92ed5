//! The pages of docs: what they show is run, and what they name is there.
//!
//! Blocks of `bash` are run as one script for each page, in a directory that has the store of `examples-c` as `kv`. A block of `text` below
//! one is what it says: each line of it must be among the lines that were said, in this order. Any number stands for any other one, and a line that ends in an
//! ellipsis for any that begins so. Blocks of `sh` are only read by a shell, those of `toml` by `handoff check`.

mod compiled;
mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::copy::copy_program;

use compiled::root;
use support::{SIGTERM, Service, compile, library, signal, wait_until};

/// A fenced part of a page.
struct Block {
    language: String,
    text: String,
}

/// README.md and all pages of docs, by their paths.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.extend([root().join("README.md"), root().join("ARCHITECTURE.md")]);
    paths.sort();
    assert!(paths.len() > 10, "{paths:?}");
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut is_open = false;
    for line in page.lines() {
        match (line.strip_prefix("```"), is_open) {
            (Some(language), false) => found.push(Block { language: language.to_owned(), text: String::new() }),
            (None, true) => found.last_mut().unwrap().text.push_str(&format!("{line}\n")),
            _ => {}
        }
        is_open ^= line.starts_with("```");
    }
    assert!(!is_open, "a block has no end");
    found
}

/// A line with each number, and each run of blanks, as one sign.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    for word in line.split_whitespace() {
        let mut last = ' ';
        for sign in word.chars() {
            let sign = if sign.is_ascii_digit() || sign == '.' && last == '#' { '#' } else { sign };
            if sign != '#' || last != '#' {
                plain.push(sign);
            }
            last = sign;
        }
        plain.push(' ');
    }
    // 947 µs today may be 2 ms tomorrow.
    plain.replace("# µs", "# ms").replace("# s", "# ms").trim_end().to_owned()
}

/// Each line of what a page shows is among those that were said, in this order.
fn expect_shown(name: &str, shown: &str, said: &str) {
    let mut lines = said.lines().map(plain);
    for line in shown.lines() {
        let wanted = plain(line);
        let found = match wanted.strip_suffix('…') {
            Some(beginning) => lines.any(|line| line.starts_with(beginning)),
            None => lines.any(|line| line == wanted),
        };
        assert!(found, "{name} shows, and it did not come: {line}\n---- said was:\n{said}");
    }
}

/// Runs the page's blocks of `bash`, in a directory of a service that never starts, which keeps its processes from outliving the test.
fn run_page(name: &str, number: u8, prepare: impl FnOnce(&Service) -> Vec<Child>) {
    let place = place_of_pages();
    let hosts = prepare(&place);
    run_page_in(&place, name, number);
    for mut host in hosts {
        signal(host.id() as i32, SIGTERM);
        let status = wait_until("the end of a host", || host.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

fn place_of_pages() -> Service {
    let place = Service::place();
    fs::remove_dir(place.path("data")).unwrap();
    copy_program(compile("kv", "examples-c/kv.c", &[]), place.path("kv"));
    symlink(library(), place.path("libhandoff.so.0")).unwrap();
    place
}

fn run_page_in(place: &Service, name: &str, number: u8) {
    let blocks = blocks(&page(name));
    // Blocks of a page are parts of one session. What each says goes to a file of its own.
    let mut script = String::from("set -eu\n");
    for (index, block) in blocks.iter().enumerate().filter(|(_, block)| block.language == "bash") {
        script.push_str(&format!("exec >said.{index} 2>&1\n{}", block.text));
    }
    // Addresses that are this test's own: all of 127.0.0.0/8 is the loopback.
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let own = format!("127.{}.{b}.{c}", a | number << 6);
    let path = format!("{}:{}", place.handoff.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut bash = place.other_command("bash");
    bash.args(["-c", &script.replace("127.0.0.1", &own)]).current_dir(place.path(""));
    bash.env("PATH", format!("{}:{path}", place.path("stubs").display())).env("HANDOFF_RUNTIME_DIR", place.path("run"));
    let mut child = bash.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = wait_until(&format!("the end of {name}"), || child.try_wait().unwrap());
    let said = |index: usize| fs::read_to_string(place.path(&format!("said.{index}"))).unwrap_or_default();
    let all: String = (0..blocks.len()).map(said).collect();
    assert!(status.success(), "{name}: {status}\n{all}");
    let mut last = None;
    for (index, block) in blocks.iter().enumerate() {
        match (block.language.as_str(), last) {
            ("bash", _) => last = Some(index),
            ("text", Some(shower)) => expect_shown(name, &block.text.replace("127.0.0.1", &own), &said(shower)),
            _ => {}
        }
    }
}

/// The second page goes on with the program and the runtime directory that the first one leaves.
#[test]
fn one_daemon_is_run_and_upgraded_and_many_after_it() {
    let place = place_of_pages();
    run_page_in(&place, "run-one.md", 0);
    run_page_in(&place, "run-many.md", 1);
}

/// Hosts are directories: `ssh HOST COMMAND` runs it in one, and `scp FILE HOST:PATH` copies there. On each runs a supervisor.
#[test]
fn hosts_are_upgraded() {
    run_page("deploy.md", 2, |place| {
        fs::create_dir(place.path("stubs")).unwrap();
        stub(
            place,
            "ssh",
            "cd \"$HOSTS/$1\"; shift; exec env HOME=\"$PWD\" HANDOFF_RUNTIME_DIR=\"$PWD/run\" bash -c \"$*\"",
        );
        stub(place, "scp", "exec cp \"$1\" \"$HOSTS/${2%%:*}/${2#*:}\"");
        ["one", "two", "three"].map(|name| host(place, name)).into()
    });
}

/// It serves version 41.
fn host(place: &Service, name: &str) -> Child {
    let home = place.path("hosts").join(name);
    let releases = home.join("kv");
    fs::create_dir_all(&releases).unwrap();
    fs::create_dir(home.join("data")).unwrap();
    copy_program(place.path("kv"), releases.join("kv-41"));
    symlink(library(), releases.join("libhandoff.so.0")).unwrap();
    symlink("kv-41", releases.join("kv")).unwrap();
    let mut run = place.other_command(&place.handoff);
    run.args(["run", "--name", "kv", "--listen", "kv=127.0.0.1:0", "--runtime-dir", "run", "--data-dir"]);
    run.arg(home.join("data")).arg("--").arg(releases.join("kv"));
    let mut run = run.current_dir(&home).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("a host serves", || {
        let mut start = place.other_command(&place.handoff);
        start.args(["start", "kv", "--runtime-dir", "run"]).current_dir(&home).stderr(Stdio::null());
        assert_eq!(run.try_wait().unwrap(), None, "run has ended");
        start.output().unwrap().status.success().then_some(())
    });
    run
}

fn stub(place: &Service, name: &str, text: &str) {
    let path = place.path("stubs").join(name);
    let text = format!("#!/bin/sh\nset -e\nHOSTS={}\n{text}\n", place.path("hosts").display());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A shell reads all scripts, also those that nobody runs here.
#[test]
fn a_shell_understands_all_scripts() {
    let mut count = 0;
    for (path, text) in pages() {
        for block in blocks(&text).iter().filter(|block| ["sh", "bash"].contains(&block.language.as_str())) {
            let output = Command::new("bash").args(["-n", "-c", &block.text]).output().unwrap();
            let complained = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && complained.is_empty(),
                "{}: {complained}\n{}",
                path.display(),
                block.text
            );
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn all_units_are_well() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("handoff.toml");
    let mut count = 0;
    for (path, text) in pages() {
        for block in blocks(&text).iter().filter(|block| block.language == "toml") {
            fs::write(&file, &block.text).unwrap();
            let output = Command::new(env!("CARGO_BIN_EXE_handoff")).args(["check", "-c"]).arg(&file).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{}: {said}", path.display());
            count += 1;
        }
    }
    assert!(count > 2, "{count}");
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()));
    targets.filter(|target| !target.contains("://")).collect()
}

/// As GitHub makes it of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|sign| sign.is_alphanumeric() || " -_".contains(*sign));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn has_anchor(page: &Path, wanted: &str) -> bool {
    let text = fs::read_to_string(page).unwrap();
    text.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line.trim_start_matches('#').trim()) == wanted)
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for (path, text) in pages() {
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{} links to {link}, which is not there", path.display());
            assert!(
                anchor.is_empty() || has_anchor(&target, anchor),
                "{} links to {link}: no such heading",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

/// What is not in the index is not found.
#[test]
fn the_index_has_every_page() {
    let index = links(&page("README.md"));
    for (path, _) in pages() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_there = index.iter().any(|link| link.split('#').next().unwrap().trim_start_matches("../") == name);
        assert!(is_there || path == root().join("docs/README.md"), "{} is not in docs/README.md", path.display());
    }
}

#[test]
fn every_command_is_told() {
    let help = Command::new(env!("CARGO_BIN_EXE_handoff")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    assert!(commands.len() > 15, "{commands:?}");
    let index = page("README.md");
    for command in commands {
        assert!(index.contains(&format!("`{command}`")), "handoff {command} is not in docs/README.md");
    }
}
