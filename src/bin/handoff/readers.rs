//! Clients that read output. What they have not got yet waits among the lines that are kept, and nowhere else: a client that is too
//! slow finds that lines are gone, and hears how many.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use handoff::limits::{READER_BYTES_MAX, READER_TURN_BYTES, READERS_MAX};
use handoff::service::log::{Line, Log};
use serde_json::{Value, json};

use crate::control::server::{Client, Server};
use crate::control::{ErrorCode, LogsParams, RpcError, notification_line};

/// Where the output of a service is.
pub type Logs<'a> = BTreeMap<&'a str, &'a mut Log>;

/// All of them.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Readers(Vec<Reader>);

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Reader {
    client: Client,
    id: Value,
    params: LogsParams,
    /// Of each service: the number of its next line, and where it ends for a reader who does not follow.
    places: BTreeMap<String, Place>,
    lines: u64,
    dropped: u64,
}

#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Place {
    next: u64,
    end: u64,
}

impl Readers {
    /// A client wants to read. Services that it names exist.
    pub fn add(&mut self, client: Client, id: Value, params: LogsParams, logs: &Logs<'_>, server: &mut Server) {
        if self.0.len() >= READERS_MAX {
            let text = format!("{READERS_MAX} clients read output already; end one of them");
            return server.answer(client, &id, Err(RpcError::new(ErrorCode::TooMany, text)));
        }
        let mut reader = Reader { client, id, params, places: BTreeMap::new(), lines: 0, dropped: 0 };
        reader.begin(logs);
        let names: Vec<&String> = reader.places.keys().collect();
        server.send(client, &notification_line("services", json!({ "services": names })));
        self.0.push(reader);
    }

    /// Nobody reads.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Somebody can be sent more, and has room for it.
    pub fn have_work(&self, logs: &Logs<'_>, server: &Server) -> bool {
        self.0.iter().any(|reader| server.unread(reader.client) == Some(0) && reader.is_behind(logs))
    }

    /// Sends what there is room for.
    pub fn serve(&mut self, logs: &mut Logs<'_>, server: &mut Server) {
        self.0.retain_mut(|reader| {
            let Some(unread) = server.unread(reader.client) else { return false };
            if unread < READER_BYTES_MAX {
                let lines = reader.take(logs);
                server.send(reader.client, &lines);
            }
            let done = !reader.params.follow && !reader.is_behind(logs);
            if done {
                reader.end(server);
            }
            !done
        });
    }

    /// Nothing more will come.
    pub fn finish(&mut self, logs: &mut Logs<'_>, server: &mut Server) {
        self.0.iter_mut().for_each(|reader| reader.params.follow = false);
        while self.have_work(logs, server) {
            self.serve(logs, server);
        }
        self.0.iter().for_each(|reader| reader.end(server));
        self.0.clear();
    }
}

impl LogsParams {
    fn want(&self, name: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|service| service == name)
    }

    fn end_of(&self, place: Place, log: &Log) -> u64 {
        if self.follow { log.ring().next() } else { place.end }
    }
}

impl Reader {
    /// Where it begins.
    fn begin(&mut self, logs: &Logs<'_>) {
        let since_ns = self.params.since_ns.unwrap_or(0);
        let mut times = Vec::new();
        let params = &self.params;
        for (name, log) in logs.iter().filter(|(name, _)| params.want(name)) {
            let ring = log.ring();
            let is_late = |number: &u64| ring.time_ns(*number).is_some_and(|time_ns| time_ns >= since_ns);
            let next = (ring.first()..ring.next()).find(is_late).unwrap_or(ring.next());
            let newest = (next..ring.next()).rev().take(self.params.lines.unwrap_or(usize::MAX));
            times.extend(newest.filter_map(|number| Some((ring.time_ns(number)?, *name, number))));
            self.places.insert((*name).to_owned(), Place { next, end: ring.next() });
        }
        let Some(lines) = self.params.lines else { return };
        // Of all together.
        times.sort_unstable();
        self.places.values_mut().for_each(|place| place.next = place.end);
        for (_, name, number) in times.into_iter().rev().take(lines) {
            self.places.entry(name.to_owned()).and_modify(|place| place.next = place.next.min(number));
        }
    }

    fn is_behind(&self, logs: &Logs<'_>) -> bool {
        logs.iter().filter(|(name, _)| self.params.want(name)).any(|(name, log)| match self.places.get(*name) {
            Some(place) => place.next < self.params.end_of(*place, log),
            None => self.params.follow && log.ring().next() > 0,
        })
    }

    /// Lines of the control socket with the next lines of all services, in the order of their times.
    fn take(&mut self, logs: &mut Logs<'_>) -> String {
        let mut text = String::new();
        let mut heads = BinaryHeap::new();
        let params = &self.params;
        for (name, log) in logs.iter_mut().filter(|(name, _)| params.want(name)) {
            // One that was not there in the beginning.
            let new = Place { next: 0, end: 0 };
            let place = *self.places.entry((*name).to_owned()).or_insert(new);
            let (first, end) = (log.ring().first(), params.end_of(place, log));
            let next = place.next.max(first.min(end));
            if next > place.next {
                let lines = next - place.next;
                log.note_dropped(lines);
                self.dropped += lines;
                text.push_str(&notification_line("dropped", json!({ "service": name, "dropped": lines })));
                self.places.insert((*name).to_owned(), Place { next, ..place });
            }
            heads.extend(
                log.ring().time_ns(next).filter(|_| next < end).map(|time_ns| Reverse((time_ns, *name, next, end))),
            );
        }
        while let Some(Reverse((_, name, number, end))) = heads.pop().filter(|_| text.len() < READER_TURN_BYTES) {
            let Some(ring) = logs.get(name).map(|log| log.ring()) else { continue };
            let Some(line) = ring.line(number) else { continue };
            text.push_str(&notification_line("line", to_json(name, &line)));
            self.lines += 1;
            self.places.entry(name.to_owned()).and_modify(|place| place.next = number + 1);
            let next = ring.time_ns(number + 1).filter(|_| number + 1 < end);
            heads.extend(next.map(|time_ns| Reverse((time_ns, name, number + 1, end))));
        }
        text
    }

    fn end(&self, server: &mut Server) {
        server.answer(self.client, &self.id, Ok(json!({ "lines": self.lines, "dropped": self.dropped })));
    }
}

/// `text` is a string, or, if the line is no UTF-8, an array of its bytes, as `journalctl -o json` has it.
fn to_json(service: &str, line: &Line) -> Value {
    let text = match std::str::from_utf8(&line.bytes) {
        Ok(text) => json!(text),
        Err(_) => json!(line.bytes),
    };
    json!({
        "service": service,
        "time_ns": line.time_ns,
        "pid": line.source.pid,
        "generation": line.source.generation,
        "stream": line.source.origin.name(),
        "goes_on": line.goes_on,
        "text": text,
    })
}
