//! Units, of which both streams are kept, and written to files.

use crate::harness::{Run, lines, logs, text};
use crate::mounts::{Mounted, fill, own_mounts};
use crate::support::{SIGKILL, Service, signal, wait_until};
use nix::unistd::geteuid;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A unit that numbers its lines of 100 bytes, with a pause in seconds after each, in files there.
pub fn that_numbers(dir: &Path, pause: &str, files: &str) -> String {
    format!(
        "[unit.n]
        exec = 'i=0; while :; do i=$((i+1)); printf \"%099d\\n\" $i; sleep {pause}; done'
        shell = true
        mode = 'none'
        ready = 'delay=10ms'
        log = {{ dir = '{}', {files} }}
        ",
        dir.display()
    )
}

/// All lines of the files of a unit, the oldest first.
pub fn in_files(dir: &Path, unit: &str) -> Vec<String> {
    let path = |number: usize| match number {
        0 => dir.join(format!("{unit}.log")),
        number => dir.join(format!("{unit}.log.{number}")),
    };
    let texts: Vec<String> = (0..).map_while(|number| fs::read_to_string(path(number)).ok()).collect();
    texts.iter().rev().flat_map(|text| text.lines()).map(str::to_owned).collect()
}

#[test]
fn who_wrote_what_and_where() {
    let place = Service::place();
    let units = "
        [unit.a]
        exec = 'echo out; echo err >&2; exec sleep 1000'
        shell = true
        mode = 'none'
        ready = 'delay=10ms'
        pre_start = 'echo before'
        [unit.longer]
        exec = ['echo', 'done']
        oneshot = true
        [unit.silent]
        exec = ['sleep', '1000']
        mode = 'none'
        ready = 'delay=10ms'
        [target.both]
        units = ['a', 'longer']
        ";
    let run = Run::up(place, units);
    let all = run.wait_for_lines(4);
    let mut found: Vec<(&str, &str, &str)> = all
        .iter()
        .map(|line| (line["service"].as_str().unwrap(), line["stream"].as_str().unwrap(), text(line)))
        .collect();
    found.sort_unstable();
    let expected =
        [("a", "hook", "before"), ("a", "stderr", "err"), ("a", "stdout", "out"), ("longer", "stdout", "done")];
    assert_eq!(found, expected);
    let pid = run.unit("a")["pid"].clone();
    assert!(
        all.iter().all(|line| (line["pid"] == pid) == (line["service"] == "a" && line["stream"] != "hook")),
        "{all:?}"
    );
    // With their names, and of a target only its units.
    let text = String::from_utf8(run.logs(&["both"])).unwrap();
    let mut named: Vec<&str> = text.lines().collect();
    named.sort_unstable();
    assert_eq!(named, ["a      | before", "a      | err", "a      | out", "longer | done"]);
    assert_eq!(logs(&run.place, &["longer"]), b"done\n");
    assert_eq!(logs(&run.place, &["silent"]), b"");
    wait_until("the same on our own standard error", || {
        let said = run.place.stderr();
        ["a | before\n", "a | err\n", "a | out\n", "longer | done\n"]
            .iter()
            .all(|line| said.contains(line))
            .then_some(())
    });
}

fn numbering(dir: &Path, more: &str) -> String {
    format!(
        "[unit.n]
        exec = 'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; done; exit 1'
        shell = true
        mode = 'none'
        ready = 'delay=1h'
        start_timeout = '2h'
        backoff = {{ first = '10ms' }}
        restart_limit = {{ count = 3, window = '1h' }}
        log = {{ dir = '{}'{more} }}
        ",
        dir.display()
    )
}

/// Four lives, each of three thousand lines, in files of a few hundred each.
#[test]
fn numbered_lines_through_rotations_and_restarts() {
    let place = Service::place();
    let dir = place.path("logs/of");
    let run = Run::up(place, &numbering(&dir, ", file_bytes = '2KiB', files = 1000"));
    wait_until("the end", || (run.unit("n")["state"] == "failed").then_some(()));
    let lives: Vec<String> = (0..4).flat_map(|_| 1..=3000).map(|number: u32| number.to_string()).collect();
    wait_until("the last line", || (in_files(&dir, "n").len() >= lives.len()).then_some(()));
    assert!(in_files(&dir, "n") == lives);
    let sizes = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    let sizes: Vec<u64> = sizes.collect();
    assert!(sizes.len() > 20 && sizes.iter().all(|size| *size <= 2048), "{sizes:?}");
    assert_eq!(run.unit("n")["log"]["dropped_from_file"], 0);
}

/// What was dropped while a file could not be written is one gap of the numbers in it, and told there; how many lines.
pub fn one_gap(run: &Run, dir: &Path) -> u64 {
    let remark = |lines: &[String]| lines.iter().find(|line| line.starts_with("-- ")).cloned();
    let said = wait_until("the remark", || remark(&in_files(dir, "n")));
    assert!(said.contains(" lines dropped: cannot ") && said.ends_with(" --"), "{said}");
    let lost = run.unit("n")["log"]["dropped_from_file"].as_u64().unwrap();
    assert_eq!(said.split(' ').nth(1).unwrap(), lost.to_string());
    let numbers: Vec<u64> = in_files(dir, "n").iter().filter_map(|line| line.parse().ok()).collect();
    let gaps: Vec<u64> = numbers.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step != 1).collect();
    assert_eq!(gaps, [lost + 1], "one gap, of what was lost");
    lost
}

/// The disk fills up; there is room again; the directory is taken away; the supervisor is killed.
#[test]
fn files_that_can_not_be_written_are_no_trouble_of_the_unit() {
    if !own_mounts() {
        return;
    }
    let place = Service::place();
    let dir = place.path("logs");
    fs::create_dir(&dir).unwrap();
    let mounted = Mounted::tmpfs(&dir, "size=256k,mode=700");
    let units = that_numbers(&dir, "0.001", "file_bytes = '20KiB', files = 3");
    let run = Run::up(place, &units);
    let pid = wait_until("a process", || Some(run.unit("n")["pid"].clone()).filter(Value::is_i64));
    let trouble = || run.unit("n")["log"]["trouble"].clone();
    wait_until("some lines", || (in_files(&dir, "n").len() > 10).then_some(()));
    let filler = fill(&dir, 0);
    let text = wait_until("the trouble", || trouble().as_str().map(str::to_owned));
    assert!(text.contains("No space left on device"), "{text}");
    let said = run.place.command("status").arg("n").output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.matches(&format!("output     {text}; ")).count(), 1, "{said}");
    fs::remove_file(filler).unwrap();
    wait_until("the end of the trouble", || trouble().is_null().then_some(()));
    let lost = one_gap(&run, &dir);
    // It is another directory, and the lines go there at once.
    drop(mounted);
    wait_until("lines in the directory itself", || (in_files(&dir, "n").len() > 10).then_some(()));
    assert_eq!((run.unit("n")["pid"].clone(), run.unit("n")["log"]["dropped_from_file"].as_u64()), (pid, Some(lost)));
    let said = run.place.stderr();
    assert_eq!(said.matches("its output is dropped there until that is possible").count(), 1, "{said}");
    assert_eq!(said.matches("its output is written to the file again").count(), 1, "{said}");
}

/// What is in the files is whole after kill -9 of the supervisor, and nothing is missing.
#[test]
fn files_through_the_death_of_the_supervisor() {
    let place = Service::place();
    let dir = place.path("logs");
    let units = format!(
        "[unit.n]
        exec = 'i=0; while :; do i=$((i+1)); echo $i; [ $((i % 20)) = 0 ] && sleep 0.002; done'
        shell = true
        mode = 'none'
        ready = 'delay=10ms'
        log = {{ dir = '{}', files = 100 }}
        ",
        dir.display()
    );
    let run = Run::up(place, &units);
    wait_until("some lines", || (in_files(&dir, "n").len() > 500).then_some(()));
    wait_until("running", || (run.unit("n")["state"] == "running").then_some(()));
    let pid = run.unit("n")["pid"].clone();
    signal(run.pid(), SIGKILL);
    let place = run.into_place();
    let before = in_files(&dir, "n").len();
    let run = Run::up(place, &units);
    wait_until("the adoption", || (run.unit("n")["pid"] == pid).then_some(()));
    wait_until("more lines", || (in_files(&dir, "n").len() > before + 500).then_some(()));
    let mut numbers: Vec<u64> = in_files(&dir, "n").iter().map(|line| line.parse().unwrap()).collect();
    let count = numbers.len();
    numbers.dedup();
    numbers.sort_unstable();
    numbers.dedup();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "lines are missing");
    println!("{count} lines, {} of them twice", count - numbers.len());
    // The second one has lines from where the first was killed.
    let own: Vec<Value> = lines(&run.place, &["n"]);
    assert!(own.iter().all(|line| line["generation"] == json!(1) && line["pid"] == pid), "{:?}", own.first());
}

/// A program of another user may open them by their names.
#[test]
fn a_user_of_its_own_opens_dev_stdout() {
    if !geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI=true, and this is not root");
        return eprintln!("SKIPPED: only root may become another user");
    }
    let units = "
        [unit.n]
        exec = 'echo one >>/dev/stdout; echo two >>/dev/stderr; exec sleep 1000'
        shell = true
        user = 'nobody'
        mode = 'none'
        ready = 'delay=10ms'
        ";
    let run = Run::up(Service::place(), units);
    let lines = run.wait_for_lines(2);
    let mut found: Vec<&str> = lines.iter().map(text).collect();
    found.sort_unstable();
    assert_eq!(found, ["one", "two"]);
}
