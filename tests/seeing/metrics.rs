//! `--metrics`: what Prometheus reads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use crate::exposition::Exposition;
use crate::support::{PATIENCE, SIGKILL, Service, programs, signal, wait_until};

/// Where it listens, as the supervisor says.
fn address(service: &Service) -> SocketAddr {
    let said = service.stderr();
    let url = said.split("metrics are at http://").nth(1).unwrap_or_else(|| panic!("no metrics:\n{said}"));
    url.split("/metrics").next().unwrap().parse().unwrap()
}

fn connect(service: &Service) -> TcpStream {
    let stream = TcpStream::connect(address(service)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The whole answer.
fn answer(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The body of the answer to a good request.
fn body(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    body.to_owned()
}

pub fn scrape(service: &Service) -> String {
    body(&answer(connect(service), "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"))
}

#[test]
fn what_happened_is_counted() {
    let service = Service::start_with(&programs().kv_a, &["--metrics", "127.0.0.1:0"]);
    assert_eq!(service.upgrade(&programs().kv_b, &[]).code, 0);
    assert_eq!(service.upgrade(&service.faulty("crash-warm"), &[]).code, 10);
    let pid = service.daemon_pid();
    signal(pid, SIGKILL);
    wait_until("another start", || service.status()?["pid"].as_i64().filter(|now| *now != i64::from(pid)));
    service.wait_until_served();
    let found = Exposition::parse(&scrape(&service));
    let kv = [("service", "kv")];
    let of = |name: &str, value: &'static str| [kv[0], (name.to_owned().leak() as &str, value)];
    for (name, labels, value) in [
        ("handoff_outcomes_total", of("result", "committed").to_vec(), 1.0),
        ("handoff_outcomes_total", of("result", "rolled_back").to_vec(), 1.0),
        ("handoff_service_restarts_total", of("cause", "signal").to_vec(), 1.0),
        ("handoff_service_state", of("state", "running").to_vec(), 1.0),
        ("handoff_service_state", of("state", "failed").to_vec(), 0.0),
        ("handoff_duration_seconds_count", kv.to_vec(), 2.0),
        ("handoff_pause_seconds_count", kv.to_vec(), 1.0),
        ("handoff_service_draining", kv.to_vec(), 0.0),
        ("handoff_events_dropped_total", vec![], 0.0),
        ("handoff_build_info", vec![("version", env!("CARGO_PKG_VERSION"))], 1.0),
    ] {
        assert_eq!(found.value(name, &labels), Some(value), "{name} {labels:?}");
    }
    assert!(found.value("handoff_service_generation", &kv) >= Some(3.0));
    let phase = found.value("handoff_phase_duration_seconds_count", &of("phase", "sealing"));
    assert_eq!(phase, Some(1.0), "one was sealed");
    let started = found.value("handoff_service_start_time_seconds", &kv).unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!(started <= now && started > now - 3600.0, "{started} of {now}");
}

#[test]
fn other_requests_have_their_answers() {
    let service = Service::start_with(&programs().kv_a, &["--metrics", "127.0.0.1:0"]);
    for (request, status) in
        [("GET / HTTP/1.1\r\n\r\n", "404"), ("DELETE /metrics HTTP/1.1\r\n\r\n", "405"), ("\x01\x02\x03\n\n", "400")]
    {
        let said = answer(connect(&service), request);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {said}");
    }
    // Somebody who never stops.
    let mut endless = connect(&service);
    let cut = wait_until("an end", || endless.write_all(&[b'x'; 1024]).err());
    drop(cut);
    assert!(scrape(&service).starts_with("# HELP "));
}

#[test]
fn silent_clients_are_cut_off_and_delay_nobody() {
    let service = Service::start_with(&programs().kv_a, &["--metrics", "127.0.0.1:0"]);
    let mut silent: Vec<TcpStream> = (0..handoff::limits::SCRAPERS_MAX).map(|_| connect(&service)).collect();
    silent[0].write_all(b"GET /metrics HT").unwrap();
    assert_eq!(service.status().unwrap()["state"], "running");
    // The next one waits in the backlog until those are cut.
    Exposition::parse(&scrape(&service));
    for mut stream in silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "an answer to nothing");
    }
}

#[test]
fn it_can_listen_at_a_path() {
    let mut service = Service::place();
    let path = service.path("metrics.sock");
    service.launch(&programs().kv_a, &["--metrics", &format!("unix:{}", path.display())]);
    let stream = UnixStream::connect(&path).unwrap();
    let found = Exposition::parse(&body(&answer(stream, "GET /metrics HTTP/1.0\n\n")));
    assert_eq!(found.value("handoff_service_generation", &[("service", "kv")]), Some(1.0));
}
