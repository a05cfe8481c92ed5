//! A directory of files that does not stay what it was, under a unit that writes on.

use crate::harness::{Run, lines};
use crate::mounts::{Mounted, own_mounts};
use crate::support::{Service, wait_until};
use crate::units::{in_files, one_gap, that_numbers};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A unit that numbers its lines.
struct Numbering {
    run: Run,
    dir: PathBuf,
    pid: Value,
}

impl Numbering {
    /// It has written some of them.
    fn start() -> Self {
        let place = Service::place();
        let dir = place.path("logs");
        let units = that_numbers(&dir, "0.002", "file_bytes = '40KiB', files = 100");
        let run = Run::up(place, &units);
        let pid = wait_until("a process", || Some(run.unit("n")["pid"].clone()).filter(Value::is_i64));
        let numbering = Self { run, dir, pid };
        numbering.wait_for_more(&numbering.dir);
        numbering
    }

    /// More lines than are in the files there.
    fn wait_for_more(&self, dir: &Path) {
        let before = in_files(dir, "n").len();
        wait_until("more lines", || (in_files(dir, "n").len() > before + 20).then_some(()));
    }

    fn trouble(&self) -> Value {
        self.run.unit("n")["log"]["trouble"].clone()
    }

    /// The files can not be written: this is why. The unit does not notice.
    fn wait_for_trouble(&self, why: &str) {
        let text = wait_until("the trouble", || self.trouble().as_str().map(str::to_owned));
        assert!(text.contains(why), "{text}");
        let last = |lines: &[Value]| lines.last().and_then(|line| line["text"].as_str()?.parse::<u64>().ok());
        let before = last(&lines(&self.run.place, &["n"])).unwrap();
        wait_until("more lines", || last(&lines(&self.run.place, &["n"])).filter(|number| *number > before + 20));
    }

    /// The files are written, and it is the same process.
    fn assert_well(&self) {
        wait_until("the end of the trouble", || self.trouble().is_null().then_some(()));
        self.wait_for_more(&self.dir);
        assert_eq!(self.run.unit("n")["pid"], self.pid);
    }
}

/// At once, or the directory would be made again in between.
fn exchange(one: &Path, other: &Path) {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).unwrap();
}

fn numbers(dir: &Path) -> Vec<u64> {
    in_files(dir, "n").iter().map(|line| line.parse().unwrap_or_else(|_| panic!("{line:?}"))).collect()
}

#[test]
fn one_that_becomes_read_only() {
    if !own_mounts() {
        return;
    }
    let numbering = Numbering::start();
    let mounted = Mounted::read_only(&numbering.dir);
    numbering.wait_for_trouble("Read-only file system (os error 30); mount it writable");
    drop(mounted);
    numbering.assert_well();
    one_gap(&numbering.run, &numbering.dir);
}

/// As by a rotation of somebody else: what was there has no more than it had, and what comes is in the other one.
#[test]
fn one_that_is_replaced_by_another() {
    let numbering = Numbering::start();
    let old = numbering.run.place.path("old");
    fs::create_dir(&old).unwrap();
    exchange(&numbering.dir, &old);
    numbering.assert_well();
    let all: Vec<u64> = numbers(&old).into_iter().chain(numbers(&numbering.dir)).collect();
    assert!(all.iter().copied().eq(1..=all.len() as u64), "{all:?}");
    assert_eq!(numbering.run.unit("n")["log"]["dropped_from_file"], 0);
}

#[test]
fn one_that_is_deleted_is_made_again() {
    let numbering = Numbering::start();
    // Nothing is put into it any more that a removal would miss.
    let gone = numbering.run.place.path("gone");
    fs::rename(&numbering.dir, &gone).unwrap();
    fs::remove_dir_all(&gone).unwrap();
    wait_until("the directory", || numbering.dir.is_dir().then_some(()));
    numbering.assert_well();
    let all = numbers(&numbering.dir);
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "{all:?}");
    assert!(all[0] > 20, "those of before are gone");
}

#[test]
fn a_file_in_its_place() {
    let numbering = Numbering::start();
    let old = numbering.run.place.path("old");
    fs::write(&old, "mine").unwrap();
    exchange(&numbering.dir, &old);
    numbering.wait_for_trouble("logs/n.log: in the place of its directory is a file; move it away");
    assert_eq!(fs::read_to_string(&numbering.dir).unwrap(), "mine");
    fs::remove_file(&numbering.dir).unwrap();
    numbering.assert_well();
    let lost = numbering.run.unit("n")["log"]["dropped_from_file"].as_u64().unwrap();
    let lines = in_files(&numbering.dir, "n");
    assert!(lines[0].starts_with(&format!("-- {lost} lines dropped: cannot ")), "{}", lines[0]);
    let (before, after) = (numbers(&old), lines[1].parse::<u64>().unwrap());
    assert_eq!(after, before.last().unwrap() + lost + 1);
}
