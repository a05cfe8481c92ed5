//! The metrics listener: one request and one answer for each connection, by HTTP/1.1. Nothing here waits for a client.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use handoff::limits::{REQUEST_BYTES_MAX, SCRAPE_TIMEOUT, SCRAPERS_MAX};
use handoff::service::address::{Address, ListenSpec};
use handoff::service::metrics::CONTENT_TYPE;
use nix::poll::PollFlags;

/// After an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Exporter {
    listener: Listener,
    /// Where it listens, for people.
    pub url: String,
    scrapers: BTreeMap<u64, Scraper>,
    next: u64,
    #[serde(skip)]
    accept_after: Option<Instant>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Listener {
    Tcp(#[serde(with = "handoff::sys::inherit::fd")] TcpListener),
    Unix(#[serde(with = "handoff::sys::inherit::fd")] UnixListener),
}

/// A client.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Scraper {
    #[serde(with = "handoff::sys::inherit::fd")]
    stream: File,
    inbox: Vec<u8>,
    /// The answer, once there is one.
    outbox: Option<Vec<u8>>,
    #[serde(skip, default = "scrape_end")]
    until: Instant,
}

fn scrape_end() -> Instant {
    Instant::now() + SCRAPE_TIMEOUT
}

/// What a descriptor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Listener,
    Scraper(u64),
}

impl Exporter {
    pub fn bind(address: &Address) -> handoff::Result<Self> {
        let (name, address) = ("metrics".to_owned(), address.clone());
        let bound = ListenSpec { name, address, blocking: false, backlog: None, mode: None, sockets: 1 }.bind()?;
        let (listener, url) = match bound.address.strip_prefix("unix:") {
            Some(_) => (Listener::Unix(bound.fd.into()), bound.address),
            None => (Listener::Tcp(bound.fd.into()), format!("http://{}/metrics", bound.address)),
        };
        Ok(Self { listener, url, scrapers: BTreeMap::new(), next: 0, accept_after: None })
    }

    /// What to poll, and for what.
    pub fn interests(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>, PollFlags)> {
        let open = self.accept_after.is_none() && self.scrapers.len() < SCRAPERS_MAX;
        let listener = open.then(|| (Source::Listener, self.listener.as_fd(), PollFlags::POLLIN));
        let scrapers = self.scrapers.iter().map(|(number, scraper)| {
            let interest = if scraper.outbox.is_some() { PollFlags::POLLOUT } else { PollFlags::POLLIN };
            (Source::Scraper(*number), scraper.stream.as_fd(), interest)
        });
        listener.into_iter().chain(scrapers)
    }

    /// When [`Self::tidy`] has work.
    pub fn next_due(&self) -> Option<Instant> {
        self.scrapers.values().map(|scraper| scraper.until).chain(self.accept_after).min()
    }

    /// Cuts off those that take too long.
    pub fn tidy(&mut self) {
        let now = Instant::now();
        self.accept_after = self.accept_after.filter(|after| *after > now);
        self.scrapers.retain(|_, scraper| scraper.until > now);
    }

    /// Deals with a descriptor that is ready; `metrics` makes the answer.
    pub fn on_ready(&mut self, source: Source, metrics: impl FnOnce() -> String) {
        match source {
            Source::Listener => self.accept(),
            Source::Scraper(number) => {
                let Some(scraper) = self.scrapers.get_mut(&number) else { return };
                if !scraper.turn(metrics).unwrap_or(false) {
                    self.scrapers.remove(&number);
                }
            }
        }
    }

    /// One at a time: the next poll tells of others.
    fn accept(&mut self) {
        match self.listener.accept() {
            Ok(fd) => {
                let scraper = Scraper { stream: File::from(fd), inbox: Vec::new(), outbox: None, until: scrape_end() };
                self.scrapers.insert(self.next, scraper);
                self.next += 1;
            }
            Err(error) if is_passing(&error) || error.kind() == ErrorKind::ConnectionAborted => {}
            Err(_) => self.accept_after = Some(Instant::now() + ACCEPT_PAUSE),
        }
    }
}

impl Listener {
    /// A connection that never blocks.
    fn accept(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Scraper {
    /// Goes on as far as it can; whether there is more to do.
    fn turn(&mut self, metrics: impl FnOnce() -> String) -> io::Result<bool> {
        if self.outbox.is_none() {
            let mut part = [0; 4096];
            match self.stream.read(&mut part) {
                Ok(0) => return Ok(false),
                Ok(len) => self.inbox.extend_from_slice(&part[..len]),
                Err(error) if is_passing(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
            self.outbox = answer(&self.inbox, metrics);
        }
        let Some(outbox) = &mut self.outbox else { return Ok(true) };
        while !outbox.is_empty() {
            match self.stream.write(outbox) {
                Ok(len) => drop(outbox.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// To what has come by now; None: there must be more.
fn answer(request: &[u8], metrics: impl FnOnce() -> String) -> Option<Vec<u8>> {
    if request.len() > REQUEST_BYTES_MAX {
        return Some(response("431 Request Header Fields Too Large", "the request is too long\n", true));
    }
    // An answer before the end of the request would reach its sender as a reset.
    if !request.windows(4).any(|end| end == b"\r\n\r\n") && !request.windows(2).any(|end| end == b"\n\n") {
        return None;
    }
    let line = request.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.trim_ascii().split(|byte| *byte == b' ').collect();
    let [method, target, version] = words.as_slice() else {
        return Some(response("400 Bad Request", "this is no HTTP\n", true));
    };
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    Some(match *method {
        _ if !version.starts_with(b"HTTP/1.") => response("400 Bad Request", "this is no HTTP/1\n", true),
        b"GET" | b"HEAD" if path == b"/metrics" => response("200 OK", &metrics(), *method == b"GET"),
        b"GET" | b"HEAD" => response("404 Not Found", "there is /metrics\n", *method == b"GET"),
        _ => response("405 Method Not Allowed\r\nAllow: GET, HEAD", "there is GET\n", true),
    })
}

fn response(status: &str, body: &str, with_body: bool) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    if with_body { (head + body).into_bytes() } else { head.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_their_answers() {
        let said = |request: &str| {
            let answer = answer(request.as_bytes(), || "metrics 1\n".to_owned())?;
            Some(String::from_utf8(answer).unwrap())
        };
        let ok = said("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(ok.starts_with("HTTP/1.1 200 OK\r\n") && ok.ends_with("\r\n\r\nmetrics 1\n"), "{ok}");
        assert!(said("HEAD /metrics HTTP/1.0\r\n\r\n").unwrap().ends_with("\r\n\r\n"));
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("nonsense\n\n", "400"),
            ("GET /metrics SMTP\r\n\r\n", "400"),
            (&"x".repeat(REQUEST_BYTES_MAX + 1), "431"),
        ] {
            assert!(said(request).unwrap().starts_with(&format!("HTTP/1.1 {status} ")), "{request}");
        }
        assert_eq!(said("GET /metrics HTTP/1.1\r\nHost: a\r\n"), None);
    }
}
