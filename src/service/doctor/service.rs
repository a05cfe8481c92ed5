//! Checks of one service.

use super::facts::{DataDir, Process, Queue, SECCOMP_FILTER, ServiceFacts};
use super::{Check, Finding, mebibytes, show};
use crate::limits::{BATCHES_UNTAKEN_MAX, CONNECTIONS_IN_BATCH_MAX, OWN_DESCRIPTORS_MAX};
use crate::service::words::counted;

pub(super) fn examine(facts: &ServiceFacts, available: Option<u64>) -> Vec<Finding> {
    let mut findings = vec![replaceable(facts), program(facts)];
    findings.extend(facts.bad.as_deref().map(|why| bad(&facts.name, why)));
    findings.extend(facts.data.as_ref().map(|data| data_dir(&facts.name, data)));
    if let Some(process) = &facts.process {
        findings.push(descriptors(facts, process));
        findings.extend(memory(&facts.name, process, available));
        findings.extend(restrictions(facts, process));
        findings.extend(running_program(&facts.name, process));
    }
    findings.extend(facts.queues.iter().map(|queue| self::queue(facts, queue)));
    findings
}

fn replaceable(facts: &ServiceFacts) -> Finding {
    let check = Check::new("replaceable", &facts.name);
    if let Some(path) = &facts.lost_lock {
        let text = format!("{path} was removed while it runs: every upgrade is refused until it is made anew");
        return check.error(text, "restart it (handoff restart)");
    }
    match facts.mode.as_deref() {
        _ if facts.pid.is_none() => check.ok("it does not run"),
        Some(mode) if facts.linked => check.ok(format!("it links libhandoff, mode {mode}")),
        Some("overlap") if facts.has_sign => check.ok("it does not link libhandoff; its successor serves beside it"),
        Some("none") => check.ok("it is replaced by a restart, as its unit says (mode none)"),
        _ => check.warning(
            "it never said Hello: it can not be replaced without a restart",
            "link libhandoff, or use --mode overlap with --ready",
        ),
    }
}

fn program(facts: &ServiceFacts) -> Finding {
    let check = Check::new("program", &facts.name);
    match &facts.program_fault {
        Some(fault) => check.error(
            format!("{}, which the next upgrade or restart would execute: {fault}", show(&facts.program)),
            "put a program there, or name another by upgrade --binary",
        ),
        None => check.ok(format!("{} can be executed", show(&facts.program))),
    }
}

fn bad(name: &str, why: &str) -> Finding {
    Check::new("bad-program", name).error(why, "build another one, or upgrade --force")
}

fn data_dir(name: &str, data: &DataDir) -> Finding {
    let check = Check::new("data-dir", name);
    let what = format!("data directory {}", show(&data.path));
    match (&data.fault, data.network) {
        (Some(fault), _) => check.error(format!("{what}: {fault}"), "create it, for the user of the daemon"),
        (None, Some(network)) => check.error(
            format!("{what} is on {network}, where flock(2) may not keep two writers apart"),
            "put it on a local file system",
        ),
        (None, None) => check.ok(what),
    }
}

/// What a daemon has open now, its successor will need, and some more while connections move.
fn descriptors(facts: &ServiceFacts, process: &Process) -> Finding {
    let check = Check::new("descriptors", &facts.name);
    let on_the_way = BATCHES_UNTAKEN_MAX as u64 * CONNECTIONS_IN_BATCH_MAX as u64;
    let moving = if facts.linked { process.descriptors.min(on_the_way) } else { 0 };
    let needed = process.descriptors + facts.listeners as u64 + OWN_DESCRIPTORS_MAX as u64 + moving;
    let limit = process.nofile_hard;
    let text = format!(
        "process {} has {}; a successor may need {needed}, and may have {limit}",
        process.pid,
        counted(process.descriptors, "descriptor")
    );
    if needed > limit {
        return check.error(text, "raise the hard RLIMIT_NOFILE of the supervisor (ulimit -Hn, LimitNOFILE=)");
    }
    check.ok(text)
}

/// During a handoff two of them live.
fn memory(name: &str, process: &Process, available: Option<u64>) -> Vec<Finding> {
    let check = || Check::new("memory", name);
    let rss = mebibytes(process.rss);
    let mut findings = Vec::new();
    if available.is_some_and(|available| process.rss > available) {
        let text = format!(
            "process {} has {rss}, and only {} are available for a second one",
            process.pid,
            mebibytes(available.unwrap_or_default())
        );
        findings.push(check().warning(text, "make room, or move large state as a memfd, which is shared"));
    }
    if let Some((used, limit)) = process.memory {
        let left = limit.saturating_sub(used);
        if process.rss > left {
            let text = format!(
                "process {} has {rss}, and its cgroup has {} left of {}: with a second one the kernel may kill either",
                process.pid,
                mebibytes(left),
                mebibytes(limit)
            );
            findings.push(check().error(text, "raise the memory limit of the cgroup (MemoryMax=, memory.max)"));
        }
    }
    if findings.is_empty() {
        findings.push(check().ok(format!("process {} has {rss}, and there is room for two", process.pid)));
    }
    findings
}

/// One that the daemon has given itself, or has from the supervisor: it may not know what the library calls.
fn restrictions(facts: &ServiceFacts, process: &Process) -> Option<Finding> {
    if !facts.linked || process.seccomp != SECCOMP_FILTER {
        return None;
    }
    let who = if process.no_new_privs { " and NoNewPrivs" } else { "" };
    Some(Check::new("seccomp", &facts.name).warning(
        format!("process {} has a seccomp filter{who}", process.pid),
        "see that it allows sendmsg, recvmsg, flock, fcntl, memfd_create, pidfd_open, pidfd_send_signal, inotify and epoll",
    ))
}

fn running_program(name: &str, process: &Process) -> Option<Finding> {
    let exe = process.exe.as_deref().unwrap_or_default();
    process.exe_deleted.then(|| {
        Check::new("running-program", name).ok(format!(
            "process {} runs a program that was replaced or deleted since ({exe}); an upgrade starts the new one",
            process.pid
        ))
    })
}

/// Clients that come during a pause wait here.
fn queue(facts: &ServiceFacts, queue: &Queue) -> Finding {
    let check = Check::new("backlog", &facts.name);
    let pause = facts.last_pause_ns as f64 / 1e9;
    let expected = queue.connections_per_s.map(|rate| (rate as f64 * pause).ceil() as u64);
    let waiting = counted(queue.waiting, "client");
    let full = format!("listener {} has {waiting} waiting, of {} at most", queue.name, queue.limit);
    if queue.waiting >= queue.limit {
        return check.error(full, "raise net.core.somaxconn and the listener's backlog=");
    }
    match expected.filter(|expected| queue.waiting + expected > queue.limit) {
        Some(expected) => check.warning(
            format!("{full}; in a pause like the last one, {:.1} ms, some {expected} would come", pause * 1e3),
            "raise net.core.somaxconn and the listener's backlog=",
        ),
        None => check.ok(full),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity::{Error, Ok, Warning};
    use super::*;

    fn service() -> ServiceFacts {
        ServiceFacts {
            name: "kv".into(),
            linked: true,
            lost_lock: None,
            mode: Some("exclusive".into()),
            pid: Some(7),
            ..Default::default()
        }
    }

    #[test]
    fn who_can_be_replaced() {
        assert_eq!(replaceable(&service()).severity, Ok);
        assert_eq!(replaceable(&ServiceFacts { linked: false, ..service() }).severity, Warning);
        let lost = ServiceFacts { lost_lock: Some("/run/kv.control.gate".into()), ..service() };
        assert_eq!(replaceable(&lost).severity, Error);
        let beside = ServiceFacts { linked: false, mode: Some("overlap".into()), has_sign: true, ..service() };
        assert_eq!(replaceable(&beside).severity, Ok);
        assert_eq!(replaceable(&ServiceFacts { mode: Some("none".into()), ..beside }).severity, Ok);
    }

    #[test]
    fn a_successor_needs_as_many_descriptors() {
        let severity = |descriptors, limit| {
            let process = Process { descriptors, nofile_hard: limit, ..Process::default() };
            descriptors_of(&process)
        };
        assert_eq!((severity(10, 1024), severity(600, 1024), severity(600, 4096)), (Ok, Error, Ok));
    }

    fn descriptors_of(process: &Process) -> super::super::Severity {
        descriptors(&service(), process).severity
    }

    #[test]
    fn there_is_memory_for_two() {
        let process = Process { rss: 100, ..Process::default() };
        let severities = |process: &Process, available| {
            memory("kv", process, available).into_iter().map(|finding| finding.severity).collect::<Vec<_>>()
        };
        assert_eq!(severities(&process, Some(100)), [Ok]);
        assert_eq!(severities(&process, Some(99)), [Warning]);
        let limited = Process { memory: Some((150, 200)), ..process };
        assert_eq!(severities(&limited, None), [Error]);
        assert_eq!(severities(&Process { memory: Some((150, 250)), ..limited }, None), [Ok]);
    }

    #[test]
    fn data_on_a_network_is_an_error() {
        let data = DataDir { path: "/d".into(), network: None, fault: None };
        assert_eq!(data_dir("kv", &data).severity, Ok);
        assert_eq!(data_dir("kv", &DataDir { network: Some("NFS"), ..data.clone() }).severity, Error);
        assert_eq!(data_dir("kv", &DataDir { fault: Some("is no directory".into()), ..data }).severity, Error);
    }

    #[test]
    fn the_queue_must_hold_a_pause() {
        let severity = |waiting, rate, pause_ns| {
            let facts = ServiceFacts { last_pause_ns: pause_ns, ..service() };
            let (name, limit) = ("web".into(), 128);
            queue(&facts, &Queue { name, waiting, limit, connections_per_s: rate }).severity
        };
        assert_eq!(severity(0, Some(1000), 100_000_000), Ok);
        assert_eq!(severity(0, Some(1000), 200_000_000), Warning);
        assert_eq!((severity(128, None, 0), severity(127, None, 0)), (Error, Ok));
    }

    #[test]
    fn filters_are_told() {
        let filtered = Process { seccomp: 2, no_new_privs: true, ..Process::default() };
        assert_eq!(restrictions(&service(), &filtered).map(|finding| finding.severity), Some(Warning));
        assert!(restrictions(&service(), &Process::default()).is_none());
        assert!(restrictions(&ServiceFacts { linked: false, ..service() }, &filtered).is_none());
    }
}
