//! Programs that can not be started, in the place of one that serves.

use crate::harness::Scene;
use crate::support::copy::copy_program;
use crate::support::programs;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

fn file(scene: &Scene, name: &str, content: &[u8], mode: u32) -> PathBuf {
    let (content_path, path) = (scene.path(&format!("{name}.content")), scene.path(name));
    fs::write(&content_path, content).unwrap();
    copy_program(content_path, &path);
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    path
}

#[test]
fn each_is_refused_and_named_and_nothing_happens() {
    let scene = Scene::new();
    let shown = |path: &PathBuf| path.display().to_string();
    let refused = |path: &PathBuf, words: &[&str]| {
        let name = shown(path);
        scene.upgrade_fails(path, 13, "refused", &[&[name.as_str()], words].concat());
    };
    refused(&scene.path("missing"), &["No such file"]);
    symlink(scene.path("nowhere"), scene.path("dangling")).unwrap();
    refused(&scene.path("dangling"), &["No such file"]);
    refused(&file(&scene, "plain", b"text", 0o644), &["not executable", "chmod +x"]);
    refused(&scene.path("data"), &["is a directory, not a program"]);
    let script = file(&scene, "script", b"#!/no/such/interpreter -x\n", 0o755);
    refused(&script, &["interpreter is missing: /no/such/interpreter", "correct that line"]);
    refused(&file(&scene, "headless", b"echo\n", 0o755), &["without #! line"]);
    refused(&file(&scene, "empty", b"", 0o755), &["not a program"]);
    let mut elf = fs::read(&programs().kv_b).unwrap();
    elf[18] = 0xf3; // e_machine: RISC-V
    refused(&file(&scene, "foreign", &elf, 0o755), &["wrong architecture"]);
    let busy = file(&scene, "busy", &fs::read(&programs().kv_b).unwrap(), 0o755);
    let writer = fs::OpenOptions::new().append(true).open(&busy).unwrap();
    refused(&busy, &["is being written", "by a rename"]);
    drop(writer);
    scene.next_commits();
}

#[test]
fn a_library_that_is_missing_is_named() {
    let scene = Scene::new();
    // The library is found beside the program.
    let alone = file(&scene, "alone", &fs::read(&programs().kv_b).unwrap(), 0o755);
    scene.upgrade_fails(&alone, 10, "rolled back", &["exit status 127", "libhandoff.so.0"]);
    scene.next_commits();
}
