//! The supervisor is killed, and another one comes.

use crate::harness::{lines, script, text};
use crate::support::{SIGKILL, SIGTERM, Service, programs, signal, wait_for_death, wait_until};
use std::fs;
use std::path::PathBuf;

/// A store with a child that numbers lines, some a millisecond.
fn numbering(place: &Service) -> PathBuf {
    let text = format!(
        "(i=0; while :; do i=$((i+1)); echo \"line $i\" >&2; [ $((i % 20)) = 0 ] && sleep 0.005; done) &
        exec {} \"$@\"",
        programs().kv_a.display()
    );
    script(place.dir.path(), "numbering", &text)
}

fn numbers(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect()
}

/// Whatever was written while nobody read is there in the end; at most a line or two twice, those at which a supervisor was killed.
#[test]
fn what_was_not_read_is_read_by_the_next_one() {
    let mut service = Service::place();
    let program = numbering(&service);
    service.launch(&program, &[]);
    for round in 1..=3 {
        let before = numbers(&service.stderr()).len();
        wait_until("some lines", || (numbers(&service.stderr()).len() > before + 200).then_some(()));
        service.kill_supervisor();
        std::thread::sleep(std::time::Duration::from_millis(50 * round)); // it writes on
        service.launch(&program, &[]);
    }
    // Those of the last supervisor have no gap, and begin where the one before was killed.
    let own: Vec<u64> =
        lines(&service, &[]).iter().map(text).filter_map(|text| text.strip_prefix("line ")?.parse().ok()).collect();
    assert!(own.len() > 1 && own.windows(2).all(|pair| pair[1] == pair[0] + 1), "{own:?}");
    let said = numbers(&service.stderr());
    let mut all = said.clone();
    all.sort_unstable();
    all.dedup();
    assert!(all.iter().copied().eq(1..=all.len() as u64), "lines are missing");
    println!("{} lines, {} of them twice", all.len(), said.len() - all.len());
    assert_eq!(service.stop(), Some(0));
    let left: Vec<_> = fs::read_dir(service.path("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_str().unwrap().contains(".std")), "{left:?}");
}

/// It dies while nobody supervises it: its last words are told by the next supervisor.
#[test]
fn last_words_that_nobody_heard() {
    let mut service = Service::place();
    let helper = "trap 'echo \"the last words\" >&2; exit 0' TERM; echo \"up $$\" >&2; while :; do sleep 0.01; done";
    let helper = script(service.dir.path(), "helper", helper);
    let start = format!("{} & exec {} \"$@\"", helper.display(), programs().kv_a.display());
    let program = script(service.dir.path(), "speaking", &start);
    service.launch(&program, &[]);
    let up = |line: &str| line.strip_prefix("up ")?.parse().ok();
    let helper: i32 = wait_until("its first words", || service.stderr().lines().find_map(up));
    let daemon = service.daemon_pid();
    service.kill_supervisor();
    signal(helper, SIGTERM);
    wait_for_death(helper);
    signal(daemon, SIGKILL);
    wait_for_death(daemon);
    assert!(!service.stderr().contains("the last words"));
    service.launch(&program, &[]);
    let found = lines(&service, &[]);
    let own: Vec<_> = found.iter().filter(|line| line["pid"] == daemon).map(text).collect();
    assert_eq!(own, ["the last words"], "{found:?}");
    assert_ne!(service.daemon_pid(), daemon);
}
