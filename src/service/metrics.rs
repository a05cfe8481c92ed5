//! What is counted, and how Prometheus wants to read it (its text exposition format, version 0.0.4).
//!
//! Plain numbers, so that they can be carried from one supervisor process to the next: that is why no crate of counters is used.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::history::PhaseTime;
use super::unit::event::Event;
use super::unit::status::{STATES, ServiceStatus};
use crate::supervisor::{HandoffOutcome, verdict_name};

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the buckets, in nanoseconds: pauses have some 100 µs, drains minutes.
const BOUNDS_NS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    300_000_000_000,
];

/// Everything that is counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Metrics {
    services: BTreeMap<String, Counts>,
    /// Events that a follower did not read in time.
    pub events_dropped: u64,
}

/// Of one service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counts {
    /// By the word for the verdict.
    handoffs: BTreeMap<String, u64>,
    whole: Histogram,
    pause: Histogram,
    phases: BTreeMap<String, Histogram>,
    /// By what ended the process before.
    restarts: BTreeMap<String, u64>,
    connections: u64,
    state_bytes: u64,
    /// When the process that serves was started, or adopted: milliseconds since 1970.
    started_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Histogram {
    /// Of each bucket alone.
    counts: [u64; BOUNDS_NS.len()],
    count: u64,
    sum_ns: u64,
}

impl Histogram {
    fn observe(&mut self, ns: u64) {
        if let Some(bucket) = BOUNDS_NS.iter().position(|bound| ns <= *bound) {
            self.counts[bucket] += 1;
        }
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }
}

impl Metrics {
    /// Counts what happened to a service. `time_ms`: since 1970.
    pub fn on_event(&mut self, service: &str, event: &Event, time_ms: u64) {
        let counts = self.services.entry(service.to_owned()).or_default();
        match event {
            Event::Started { .. } | Event::Adopted { .. } => counts.started_ms = Some(time_ms),
            Event::Outcome(_, outcome) | Event::Corrected(_, outcome) => counts.add_outcome(outcome),
            Event::Restarting { cause, .. } => {
                *counts.restarts.entry(cause.word().to_owned()).or_default() += 1;
                counts.started_ms = None;
            }
            Event::Ended(_) => counts.started_ms = None,
            _ => {}
        }
    }

    /// The service is gone, and with it all that was counted of it.
    pub fn forget(&mut self, service: &str) {
        self.services.remove(service);
    }

    /// A phase of a service's start or handoff is over.
    pub fn on_phase(&mut self, service: &str, over: &PhaseTime) {
        let counts = self.services.entry(service.to_owned()).or_default();
        counts.phases.entry(over.phase.clone()).or_default().observe(over.ns);
    }

    /// All of it, and what is now.
    pub fn text(&self, now: &[ServiceStatus], version: &str) -> String {
        let mut text = Text(String::new());
        text.family("handoff_build_info", "gauge", "The version of the supervisor, as a label.");
        text.sample("handoff_build_info", &[("version", version)], 1);
        text.family("handoff_events_dropped_total", "counter", "Events that followers did not read in time.");
        text.sample("handoff_events_dropped_total", &[], self.events_dropped);
        self.write_handoffs(&mut text);
        self.write_services(&mut text);
        write_now(&mut text, now);
        write_logs(&mut text, now);
        text.0
    }

    fn write_handoffs(&self, text: &mut Text) {
        let outcomes = "Outcomes of upgrades and rollbacks; a commit that was reverted has two.";
        text.family("handoff_outcomes_total", "counter", outcomes);
        for (service, counts) in &self.services {
            for (result, count) in &counts.handoffs {
                text.sample("handoff_outcomes_total", &[("service", service), ("result", result)], *count);
            }
        }
        let begun = |(_, counts): &(&String, &Counts)| counts.whole.count > 0;
        text.family("handoff_duration_seconds", "histogram", "From the call of a handoff to its outcome.");
        for (service, counts) in self.services.iter().filter(begun) {
            text.histogram("handoff_duration_seconds", &[("service", service)], &counts.whole);
        }
        text.family("handoff_pause_seconds", "histogram", "For how long nobody accepted during a handoff.");
        for (service, counts) in self.services.iter().filter(|(_, counts)| counts.pause.count > 0) {
            text.histogram("handoff_pause_seconds", &[("service", service)], &counts.pause);
        }
        text.family("handoff_phase_duration_seconds", "histogram", "How long the phases of starts and handoffs took.");
        for (service, counts) in &self.services {
            for (phase, histogram) in &counts.phases {
                let labels = [("service", service.as_str()), ("phase", phase)];
                text.histogram("handoff_phase_duration_seconds", &labels, histogram);
            }
        }
        let moved = "Connections that moved to a successor that serves.";
        text.family("handoff_connections_moved_total", "counter", moved);
        for (service, counts) in &self.services {
            text.sample("handoff_connections_moved_total", &[("service", service)], counts.connections);
        }
        text.family("handoff_state_moved_bytes_total", "counter", "Bytes of state that moved to a successor.");
        for (service, counts) in &self.services {
            text.sample("handoff_state_moved_bytes_total", &[("service", service)], counts.state_bytes);
        }
    }

    fn write_services(&self, text: &mut Text) {
        let help = "Processes that were started again, by what ended the one before: exit, signal, health, watchdog, start (it \
                    could not be started, or was not ready in time) or unknown.";
        text.family("handoff_service_restarts_total", "counter", help);
        for (service, counts) in &self.services {
            for (cause, count) in &counts.restarts {
                text.sample("handoff_service_restarts_total", &[("service", service), ("cause", cause)], *count);
            }
        }
        let help = "When the process that serves was started, in seconds since 1970.";
        text.family("handoff_service_start_time_seconds", "gauge", help);
        for (service, counts) in &self.services {
            if let Some(started_ms) = counts.started_ms {
                let seconds = started_ms as f64 / 1e3;
                text.sample("handoff_service_start_time_seconds", &[("service", service)], seconds);
            }
        }
    }
}

fn write_now(text: &mut Text, now: &[ServiceStatus]) {
    text.family("handoff_service_state", "gauge", "1 for the state that the service is in, 0 for the others.");
    for service in now {
        for state in STATES {
            let labels = [("service", service.name.as_str()), ("state", state)];
            text.sample("handoff_service_state", &labels, u8::from(service.state == state));
        }
    }
    text.family("handoff_service_healthy", "gauge", "Whether it is well, of those that are asked and have answered.");
    for service in now {
        let state = service.health.as_ref().map(|health| health.state).filter(|state| *state != "unknown");
        if let Some(state) = state {
            text.sample("handoff_service_healthy", &[("service", &service.name)], u8::from(state == "healthy"));
        }
    }
    text.family("handoff_service_generation", "gauge", "Which process of the service serves: 1, 2, 3.");
    for service in now {
        text.sample("handoff_service_generation", &[("service", &service.name)], service.generation);
    }
    let help = "Processes that were replaced in overlap mode and serve their last clients.";
    text.family("handoff_service_draining", "gauge", help);
    for service in now {
        text.sample("handoff_service_draining", &[("service", &service.name)], service.draining.len());
    }
}

fn write_logs(text: &mut Text, now: &[ServiceStatus]) {
    text.family("handoff_log_lines_total", "counter", "Lines that processes of the service wrote.");
    for service in now {
        text.sample("handoff_log_lines_total", &[("service", &service.name)], service.log.lines_total);
    }
    let help = "Bytes that processes wrote faster than they could be read.";
    text.family("handoff_log_dropped_bytes_total", "counter", help);
    for service in now {
        text.sample("handoff_log_dropped_bytes_total", &[("service", &service.name)], service.log.dropped_bytes);
    }
    let help = "Lines that could not be written to the service's file, or that readers were too slow for.";
    text.family("handoff_log_dropped_lines_total", "counter", help);
    for service in now {
        let log = &service.log;
        for (to, lines) in [("file", log.dropped_from_file), ("readers", log.dropped_from_readers)] {
            text.sample("handoff_log_dropped_lines_total", &[("service", &service.name), ("to", to)], lines);
        }
    }
}

impl Counts {
    fn add_outcome(&mut self, outcome: &HandoffOutcome) {
        *self.handoffs.entry(verdict_name(outcome.verdict).to_owned()).or_default() += 1;
        if outcome.total_ns > 0 {
            self.whole.observe(outcome.total_ns);
        }
        if outcome.pause_ns > 0 {
            self.pause.observe(outcome.pause_ns);
        }
        if outcome.committed() {
            self.connections += outcome.transferred_connections;
            self.state_bytes += outcome.transferred_state_bytes;
        }
    }
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{value}\"", if index == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut below = 0;
        for (bound, count) in BOUNDS_NS.iter().zip(histogram.counts) {
            below += count;
            self.bucket(name, labels, &(*bound as f64 / 1e9).to_string(), below);
        }
        self.bucket(name, labels, "+Inf", histogram.count);
        self.sample(&format!("{name}_sum"), labels, histogram.sum_ns as f64 / 1e9);
        self.sample(&format!("{name}_count"), labels, histogram.count);
    }

    fn bucket(&mut self, name: &str, labels: &[(&str, &str)], bound: &str, count: u64) {
        self.sample(&format!("{name}_bucket"), &[labels, &[("le", bound)]].concat(), count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::unit::event::RestartCause;
    use std::time::Duration;

    #[test]
    fn buckets_are_cumulative_and_labels_escaped() {
        let mut metrics = Metrics::default();
        for ns in [50_000, 100_000, 3_000_000, u64::MAX] {
            metrics.on_phase("a\"b\\c", &PhaseTime { phase: "sealing".into(), ns });
        }
        let text = metrics.text(&[], "1");
        let line = |bound: &str| {
            format!("handoff_phase_duration_seconds_bucket{{service=\"a\\\"b\\\\c\",phase=\"sealing\",le=\"{bound}\"}}")
        };
        for (bound, count) in [("0.0001", 2), ("0.0025", 2), ("0.005", 3), ("300", 3), ("+Inf", 4)] {
            assert!(text.contains(&format!("{} {count}\n", line(bound))), "{bound}:\n{text}");
        }
    }

    #[test]
    fn restarts_have_causes() {
        let mut metrics = Metrics::default();
        use RestartCause::{Exit, Health, Signal, Start};
        for cause in [Exit, Signal, Signal, Start, Health] {
            let event = Event::Restarting { text: String::new(), after: Duration::ZERO, status: None, cause };
            metrics.on_event("kv", &event, 0);
        }
        let text = metrics.text(&[], "1");
        for (cause, count) in [("exit", 1), ("signal", 2), ("start", 1), ("health", 1)] {
            let line = format!("handoff_service_restarts_total{{service=\"kv\",cause=\"{cause}\"}} {count}\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}
