//! What a supervisor process remembers, counts and tells of its services.

use std::collections::BTreeMap;

use handoff::limits::{FOLLOWER_BYTES_MAX, FOLLOWERS_MAX};
use handoff::service::history::History;
use handoff::service::metrics::Metrics;
use handoff::service::paths::RuntimeDir;
use handoff::service::{Event, ServiceStatus};
use handoff::sys::clock::monotonic_ns;
use serde_json::{Value, json};

use crate::control::server::{Client, Server};
use crate::control::{ErrorCode, RpcError};
use crate::output::{News, Output};
use crate::text::{now_ms, utc};

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    runtime: RuntimeDir,
    histories: BTreeMap<String, History>,
    metrics: Metrics,
    followers: Vec<Follower>,
}

/// A client that hears of every event.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Follower {
    client: Client,
    /// None: of all services.
    service: Option<String>,
    /// What it has not heard of, because it did not read.
    dropped: u64,
}

impl Seen {
    pub fn new(runtime: RuntimeDir) -> Self {
        Self { runtime, histories: BTreeMap::new(), metrics: Metrics::default(), followers: Vec::new() }
    }

    /// Takes note of what happened to a service.
    pub fn on_event(&mut self, service: &str, event: &Event) {
        if let Event::Removed = event {
            self.histories.remove(service);
            return self.metrics.forget(service);
        }
        let time_ms = now_ms();
        let over = self.history_of(service).on_event(event, monotonic_ns(), time_ms);
        self.metrics.on_event(service, event, time_ms);
        if let Some(over) = over {
            self.metrics.on_phase(service, &over);
        }
    }

    fn history_of(&mut self, service: &str) -> &mut History {
        let path = self.runtime.history(service);
        self.histories.entry(service.to_owned()).or_insert_with(|| History::open(path))
    }

    /// Somebody has removed files of the runtime directory.
    pub fn renew_files(&mut self) {
        self.histories.values_mut().for_each(History::renew_file);
    }

    /// What is remembered of these services.
    pub fn history(&self, services: &[String]) -> Value {
        let of = |name: &String| {
            let entries: Vec<Value> = match self.histories.get(name) {
                Some(history) => history.entries().map(|entry| json!(entry)).collect(),
                None => History::open(self.runtime.history(name)).entries().map(|entry| json!(entry)).collect(),
            };
            json!({ "name": name, "entries": entries })
        };
        json!({ "services": services.iter().map(of).collect::<Vec<_>>() })
    }

    /// Who served before the handoff of this outcome.
    pub fn from(&self, service: &str, outcome: &Value) -> Value {
        let last = self.histories.get(service).and_then(History::last_handoff);
        match last.filter(|last| last.outcome == *outcome) {
            Some(last) if !last.phases.is_empty() => {
                json!({ "pid": last.from_pid, "generation": last.from_generation })
            }
            _ => Value::Null,
        }
    }

    /// For Prometheus.
    pub fn metrics(&self, now: &[ServiceStatus]) -> String {
        self.metrics.text(now, env!("CARGO_PKG_VERSION"))
    }

    /// This client hears of everything from now on.
    pub fn follow(&mut self, client: Client, service: Option<String>, server: &Server) -> Result<(), RpcError> {
        self.followers.retain(|follower| server.has(follower.client));
        if self.followers.len() >= FOLLOWERS_MAX {
            let message = format!("{FOLLOWERS_MAX} clients follow events already; end one of them");
            return Err(RpcError::new(ErrorCode::TooMany, message));
        }
        self.followers.push(Follower { client, service, dropped: 0 });
        Ok(())
    }

    /// Tells what happened to those who follow. Who does not read what he got misses some, and hears how many.
    pub fn publish(&mut self, output: &Output, server: &mut Server) {
        self.followers.retain(|follower| server.has(follower.client));
        let news = output.news();
        let mut dropped = 0;
        for follower in &mut self.followers {
            follower.say_dropped(server);
            let service = follower.service.clone();
            let wanted = |news: &&News| service.as_ref().is_none_or(|service| *service == news.service);
            dropped += news.iter().filter(wanted).filter(|news| !follower.tell(news, server)).count() as u64;
        }
        self.metrics.events_dropped += dropped;
    }
}

impl Follower {
    fn tell(&mut self, news: &News, server: &mut Server) -> bool {
        let mut object = news.object.clone();
        object.insert("time".to_owned(), json!(utc(news.time_ms)));
        let told =
            self.dropped == 0 && server.notify_within(self.client, "event", Value::Object(object), FOLLOWER_BYTES_MAX);
        self.dropped += u64::from(!told);
        told
    }

    /// When it reads again: half of its room is free.
    fn say_dropped(&mut self, server: &mut Server) {
        let params = json!({ "event": "dropped", "time": utc(now_ms()), "events": self.dropped });
        if self.dropped > 0 && server.notify_within(self.client, "event", params, FOLLOWER_BYTES_MAX / 2) {
            self.dropped = 0;
        }
    }
}
