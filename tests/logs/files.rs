//! A file system for log files that is full, or read-only.

use crate::mounts::{Mounted, fill, own_mounts};
use crate::support::wait_until;
use handoff::service::log::Files;
use std::fs;

const SECOND: u64 = 1_000_000_000;

fn add(files: &mut Files, numbers: std::ops::Range<u64>, now_ns: u64) {
    for number in numbers {
        files.add(format!("{number:099}").as_bytes(), now_ns);
    }
    files.flush(now_ns);
}

/// What was written is whole lines; what was not is counted, and told in the file when there is room again.
#[test]
fn a_full_disk_costs_lines_and_never_half_of_one() {
    if !own_mounts() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _mounted = Mounted::tmpfs(dir.path(), "size=256k,mode=700");
    let path = dir.path().join("u.log");
    let mut files = Files::new(path.clone(), 64 * 1024, 4);
    add(&mut files, 0..10, 0);
    let filler = fill(dir.path(), 20_000);
    add(&mut files, 10..1000, 0);
    let trouble = files.trouble().unwrap().to_owned();
    assert!(trouble.contains("No space left on device") && trouble.contains("free space"), "{trouble}");
    let written = 1000 - files.dropped();
    assert!((11..1000).contains(&written), "{written}");
    // Not tried again at once; then there is still no room.
    add(&mut files, 1000..1001, SECOND / 2);
    add(&mut files, 1001..1002, 2 * SECOND);
    fs::remove_file(filler).unwrap();
    // A process that another test just starts may have it open for a moment.
    let probe = dir.path().join("probe");
    wait_until("room", || fs::write(&probe, [0; 10_000]).ok());
    fs::remove_file(probe).unwrap();
    add(&mut files, 1002..1003, 2 * SECOND + 1);
    add(&mut files, 1003..1005, 4 * SECOND);
    assert_eq!((files.trouble(), files.dropped()), (None, 1003 - written));
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let numbers = (0..written).chain(1003..1005).map(|number| format!("{number:099}"));
    let remark = format!("-- {} lines dropped: {trouble} --", 1003 - written);
    let mut expected: Vec<String> = numbers.collect();
    expected.insert(written as usize, remark);
    assert_eq!(lines, expected);
}

#[test]
fn a_directory_that_becomes_read_only() {
    if !own_mounts() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut files = Files::new(dir.path().join("u.log"), 1000, 3);
    add(&mut files, 0..3, 0);
    let mounted = Mounted::read_only(dir.path());
    add(&mut files, 3..20, 0);
    assert!(files.trouble().unwrap().contains("Read-only file system (os error 30); mount it writable"), "{files:?}");
    drop(mounted);
    add(&mut files, 20..21, 2 * SECOND);
    let text = fs::read_to_string(dir.path().join("u.log")).unwrap();
    assert!(text.contains("lines dropped: ") && text.ends_with("020\n"), "{text}");
    assert_eq!(files.trouble(), None);
}
