//! Keys of one unit that are good one by one, and not together.

use std::time::Duration;

use super::table::Table;
use super::unit::{Check, Mode, Ready, Unit};
use crate::service::address::first_free;
use crate::service::unit::restart::Policy;
use crate::supervisor::{self, ReadySign};

/// Keys that have no meaning for a process that is to end.
const OF_DAEMONS: &[&str] = &["mode", "ready", "health", "watchdog"];
/// Keys that have none for a process that is not replaced by a handoff.
const OF_HANDOFFS: &[&str] = &["deadline", "drain_grace", "ready_timeout", "hello_timeout"];

pub(super) fn check(table: Table<'_>, unit: &Unit) {
    let fault = |key: &str, text: &str| {
        if let Some(value) = table.get(key) {
            value.fault(text);
        }
    };
    if unit.oneshot {
        let text = "a oneshot ends, and is neither asked nor replaced; leave it out, or leave oneshot out";
        let handoff = ["probation", "max_draining"];
        OF_DAEMONS.iter().chain(OF_HANDOFFS).chain(&handoff).for_each(|key| fault(key, text));
        if unit.restart == Policy::Always {
            fault("restart", "a oneshot that is done is not started again; write \"on-failure\" or \"never\"");
        }
    } else {
        check_mode(table, unit, fault);
    }
    if let Ready::Sign(ReadySign::Descriptor(number)) = unit.ready
        && number < first_free(&unit.listen)
    {
        let text = format!(
            "that is a listener's descriptor; write \"fd={}\", the first one that is free",
            first_free(&unit.listen)
        );
        fault("ready", &text);
    }
    if let Ready::Sign(ReadySign::Delay(delay)) = unit.ready
        && !unit.oneshot
        && let Some((key, limit)) = times_of_start(unit).into_iter().find(|(_, limit)| delay >= *limit)
    {
        let text = format!("the delay is not over within {key}, {limit:?}; make it shorter, or '{key}' longer");
        fault("ready", &text);
    }
    if unit.ready == Ready::Health && table.get("health").is_none() {
        fault("ready", "there is no health to ask; add health = { url = \"…\" }, or write ready = \"health=URL\"");
    }
    let by_command = matches!(unit.health.as_ref().map(|health| &health.check), Some(Check::Exec(_)));
    if unit.ready == Ready::Health && by_command && unit.mode == Mode::Handoff(supervisor::Mode::Overlap) {
        // In exclusive mode it is at fault for that.
        fault(
            "ready",
            "a command can not tell which of two processes it has asked; write health.url, or mode = \"none\"",
        );
    }
    if unit.restart == Policy::Never {
        let text = "with restart = \"never\" nothing is started again; leave one of them out";
        ["backoff", "restart_limit"].iter().for_each(|key| fault(key, text));
    }
}

/// In which a process must become ready.
fn times_of_start(unit: &Unit) -> Vec<(&'static str, Duration)> {
    let mut times = vec![("start_timeout", unit.start_timeout)];
    if unit.mode == Mode::Handoff(supervisor::Mode::Overlap) {
        times.extend([("ready_timeout", unit.ready_timeout), ("deadline", unit.deadline)]);
    }
    times
}

fn check_mode(table: Table<'_>, unit: &Unit, fault: impl Fn(&str, &str)) {
    let overlap = unit.mode == Mode::Handoff(supervisor::Mode::Overlap);
    match unit.mode {
        Mode::None => {
            let text = "with mode = \"none\" there is no handoff; leave one of them out";
            OF_HANDOFFS.iter().for_each(|key| fault(key, text));
        }
        // What was written in place of a mode is wrong, and is told already.
        Mode::Handoff(supervisor::Mode::Exclusive) if unit.ready != Ready::Linked && !has_wrong_mode(table) => fault(
            "ready",
            "only a daemon that links libhandoff can be replaced in exclusive mode; add mode = \"overlap\" or mode = \"none\"",
        ),
        Mode::Handoff(_) => {}
    }
    if unit.mode != Mode::Handoff(supervisor::Mode::Exclusive) {
        fault("probation", "there is a probation in exclusive mode only; leave it out");
    }
    if !overlap && !has_wrong_mode(table) {
        fault(
            "max_draining",
            "only in overlap mode processes drain beside each other; leave it out, or add mode = \"overlap\"",
        );
    }
}

fn has_wrong_mode(table: Table<'_>) -> bool {
    table.get("mode").is_some_and(|mode| !["exclusive", "overlap", "none"].iter().any(|word| mode.says(word)))
}
