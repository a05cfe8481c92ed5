//! Where units are read from, and what can be wrong with that.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::{Said, check};

const GOOD: &str = "[unit.NAME]\nexec = [\"x\"]\n";

fn unit(name: &str) -> String {
    GOOD.replace("NAME", name)
}

/// A plain error, on standard error, in a line.
fn assert_error(said: &Said, text: &str) {
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (1, "", format!("handoff: {text}\n").as_str()));
}

#[test]
fn a_directory_is_read_and_its_files_do_not_hurt_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("10-a.toml", format!("{}requires = [\"b\", \"d\"]\n", unit("a")).as_bytes());
    write("20-b.toml", unit("b").as_bytes());
    write("30-bad.toml", format!("x = \"\"\"\n{}", unit("lost")).as_bytes());
    write("40-latin.toml", b"# \xc3\xa4\n\xc3\xa4\xe4\n[unit.latin]\n");
    write("50-huge.toml", "#".repeat(1024 * 1024 + 1).as_bytes());
    write("60-a.toml", unit("b").as_bytes());
    write("70-d.toml", format!("\u{feff}{}autostart = true\n", unit("d")).replace('\n', "\r\n").as_bytes());
    for ignored in [".hidden.toml", "c.toml~", "c.conf", "toml"] {
        write(ignored, b"[[");
    }
    fs::create_dir(dir.path().join("80-dir.toml")).unwrap();
    symlink("90-loop.toml", dir.path().join("90-loop.toml")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("95-pipe.toml"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    symlink("nowhere", dir.path().join("98-none.toml")).unwrap();
    let said = check(dir.path(), &["-c", "."]);
    let expected = "./10-a.toml:3:13: a, requires: 'b' can not run, see ./20-b.toml:1:7; mend that first
./20-b.toml:1:7: b: the name is there twice, at ./60-a.toml:1:7; rename this one
./30-bad.toml:2:1: lost: the mistake at ./30-bad.toml:4:1 may reach here; mend that first
./30-bad.toml:4:1: this is no TOML: invalid multi-line basic string, expected '\"'; mend it
./40-latin.toml:2:2: this is not UTF-8; save the file as UTF-8
./40-latin.toml:3:1: latin: the mistake at ./40-latin.toml:2:2 may reach here; mend that first
./50-huge.toml: cannot read it: it has more than 1024 KiB; split it
./60-a.toml:1:7: b: the name is there twice, at ./20-b.toml:1:7; rename this one
./80-dir.toml: cannot read it: it is no regular file; remove it
./90-loop.toml: cannot read it: Too many levels of symbolic links (os error 40); remove this symbolic link
./95-pipe.toml: cannot read it: it is no regular file; remove it
./98-none.toml: cannot read it: No such file or directory (os error 2); write it, or give another file or directory
12 faults; 1 unit and 0 targets could run
";
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (1, expected, ""));
    let json = check(dir.path(), &["-c", ".", "--json"]).json();
    assert_eq!(json["units"], serde_json::json!(["d"]));
    let huge = &json["faults"][6];
    assert_eq!(
        (&huge["line"], &huge["column"], &huge["unit"], &huge["key"]),
        (&Value::Null, &Value::Null, &Value::Null, &Value::Null)
    );
}

#[test]
fn what_can_not_be_read_at_all_is_a_plain_error() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    symlink("loop", at("loop")).unwrap();
    fs::write(at("huge"), unit("x").repeat(64 * 1024)).unwrap();
    fs::write(at("none.toml"), "# nothing\n").unwrap();
    let none = "cannot read it: No such file or directory (os error 2); write it, or give another file or directory";
    let told = [
        (vec![], format!("handoff.toml: {none}")),
        (vec!["-c", "missing"], format!("missing: {none}")),
        (vec!["-c", "empty"], "there is no file *.toml in empty; write one, or give another directory".to_owned()),
        (
            vec!["-c", "loop"],
            "loop: cannot read it: Too many levels of symbolic links (os error 40); remove this symbolic link"
                .to_owned(),
        ),
        (vec!["-c", "huge"], "huge: cannot read it: it has more than 1024 KiB; split it".to_owned()),
        (vec!["-c", "none.toml"], "there is no unit in none.toml; write [unit.NAME]".to_owned()),
        (vec!["-c", "/dev/zero"], "/dev/zero: cannot read it: it is no regular file; remove it".to_owned()),
    ];
    for (arguments, text) in told {
        assert_error(&check(dir.path(), &arguments), &text);
    }
    let json = check(dir.path(), &["-c", "missing", "--json"]);
    assert_eq!((json.code, &json.json()["error"]["message"]), (1, &Value::from(format!("missing: {none}"))));
}

#[test]
fn the_default_is_a_file_here() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("real"), unit("a")).unwrap();
    symlink("real", dir.path().join("handoff.toml")).unwrap();
    assert_eq!(check(dir.path(), &[]).stdout, "1 unit and 0 targets, all well\n");
}

/// As large as a file may be, full of mistakes or of units.
#[test]
fn the_largest_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| fs::write(dir.path().join("handoff.toml"), &text[..text.len().min(1024 * 1024)]).unwrap();
    let many: String = (0..8000)
        .map(|number| {
            format!("[unit.u{number}]\nexec=[\"x\"]\nafter=[\"u0\"]\nlisten=[\"a=127.1.0.1:{}\"]\n", number + 1)
        })
        .collect();
    write(&many.replacen("after=[\"u0\"]\n", "", 1));
    assert_eq!(check(dir.path(), &[]).stdout, "8000 units and 0 targets, all well\n");
    write(&"[unit.x]\na\n".repeat(100_000));
    assert!(
        check(dir.path(), &[])
            .stdout
            .starts_with("handoff.toml:2:2: x: this is no TOML: key with no value, expected '='; mend it\n")
    );
    write(&format!("[unit.x]\nexec = {}", "[".repeat(1024 * 1024)));
    assert_eq!(check(dir.path(), &[]).stdout.lines().count(), 2);
    write(&format!("[unit.x]\nexec = [\"x\"]\nlisten = [\"{}\"]\n", "y".repeat(1_000_000)));
    let long = check(dir.path(), &[]).stdout;
    assert!(long.len() < 2000, "{} bytes", long.len());
    let ring: String = (0..8000)
        .map(|number| format!("[unit.u{number}]\nexec=[\"x\"]\nrequires=[\"u{}\"]\n", (number + 1) % 8000))
        .collect();
    write(&ring);
    let said = check(dir.path(), &[]).stdout;
    let way = "it waits for itself: u0 -> u1 -> u2 -> u3 -> u4 -> u5 -> u6 -> u7 -> u8 -> u9 -> u10 -> (7988 more) -> u7999 -> u0; take";
    assert!(said.lines().next().unwrap().contains(way), "{said:.500}");
    assert_eq!(said.lines().count(), 8001);
}
