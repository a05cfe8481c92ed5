//! `handoff history`.

use serde_json::Value;

use crate::support::{SIGKILL, Service, programs, signal, wait_until};
use crate::{json_of, output, text};

fn entries(service: &Service) -> Vec<Value> {
    let answer = json_of(&output(service, "history", &["--json"]));
    assert_eq!(answer["services"][0]["name"], "kv");
    answer["services"][0]["entries"].as_array().unwrap().clone()
}

fn kinds(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect()
}

#[test]
fn it_has_starts_ends_and_handoffs_with_their_phases() {
    let service = Service::start(&programs().kv_a);
    let first = service.daemon_pid();
    assert_eq!(service.upgrade(&programs().kv_b, &[]).code, 0);
    let second = service.daemon_pid();
    assert_eq!(service.upgrade(&service.faulty("crash-warm"), &[]).code, 10);
    signal(second, SIGKILL);
    let third = wait_until("another start", || {
        Some(service.status()?["pid"].as_i64()?).filter(|pid| *pid != i64::from(second))
    });
    let all = entries(&service);
    // Which of the two is told first, outcome or start, is the machine's choice.
    let mut known: Vec<&Value> = all.iter().collect();
    known[1..3].sort_by_key(|entry| entry["kind"].as_str().unwrap().to_owned());
    let found: Vec<&str> = known.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!(found, ["start", "handoff", "start", "handoff", "end", "start"], "{all:#?}");
    assert!(all.windows(2).all(|pair| pair[0]["time_ms"].as_u64() <= pair[1]["time_ms"].as_u64()));
    let commit = known[1];
    assert_eq!((commit["from_pid"].as_i64(), commit["from_generation"].as_u64()), (Some(first.into()), Some(1)));
    assert_eq!(
        (commit["outcome"]["pid"].as_i64(), &commit["outcome"]["result"]),
        (Some(second.into()), &"committed".into())
    );
    let phases = commit["phases"].as_array().unwrap();
    let names: Vec<&str> = phases.iter().map(|phase| phase["phase"].as_str().unwrap()).collect();
    let drain = names.iter().position(|name| *name == "draining").unwrap();
    assert_eq!(&names[drain..drain + 3], ["draining", "sealing", "opening"], "{names:?}");
    let sum: u64 = phases.iter().map(|phase| phase["ns"].as_u64().unwrap()).sum();
    let total = commit["outcome"]["total_ns"].as_u64().unwrap();
    assert!(sum > 0 && total > 0, "{sum} of {total}");
    assert_eq!(known[3]["outcome"]["result"], "rolled_back");
    assert_eq!((known[4]["pid"].as_i64(), known[4]["signal"].as_i64()), (Some(second.into()), Some(9)));
    assert!(known[4]["next_start_ms"].is_u64());
    assert_eq!(known[5]["pid"].as_i64(), Some(third));

    let said = text(&output(&service, "history", &[]).stdout);
    for words in
        [format!("upgrade from process {first} (generation 1): committed"), format!("process {second} ended: killed")]
    {
        assert!(said.contains(&words), "{words} is missing:\n{said}");
    }
    assert!(said.lines().any(|line| line.starts_with("    ") && line.contains("draining ")), "{said}");
}

#[test]
fn it_outlives_its_supervisor() {
    let mut service = Service::start(&programs().kv_a);
    assert_eq!(service.upgrade(&programs().kv_b, &[]).code, 0);
    service.wait_for_phase("idle"); // or the next one tells the outcome, too
    let before = entries(&service);
    service.kill_supervisor();
    service.launch(&programs().kv_b, &[]);
    let after = entries(&service);
    assert_eq!(after[..before.len()], before);
    assert_eq!(kinds(&after[before.len()..]), ["start"]);
    assert_eq!(after[before.len()]["adopted"], true);
    let none = output(&service, "history", &["other"]);
    assert_eq!(none.status.code(), Some(4), "{none:?}");
}
