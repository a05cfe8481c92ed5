//! Each way to tell that a daemon is ready.

use crate::clients::{replaced_under_load, run, upgrade};
use crate::harness::{Place, text};
use crate::small::{own_address, small};

/// Replaced twice, then by one that fails.
fn is_replaced_by(sign: &str, options: &str) {
    let place = Place::new();
    let (good, bad) = (
        small(&place, "good", options),
        place.file("bad", "#!/bin/sh\necho a mistake in its settings >&2\nexit 1\n", 0o755),
    );
    let arguments = format!("--listen web=127.0.0.1:0 --mode overlap --ready {sign}");
    let run = run(&place, &arguments, &[text(&good)]);
    replaced_under_load(&place, &run, 2, None, || {
        let (code, outcome) = upgrade(&place, Some(&bad), "");
        let reason = outcome["reason"].as_str().unwrap();
        assert!(
            code == 10 && reason.contains("exit status 1") && reason.contains("a mistake in its settings"),
            "{reason}"
        );
        outcome
    });
}

#[test]
fn by_a_notification() {
    is_replaced_by("notify", "notify after=0.1");
}

#[test]
fn by_a_line_end_on_the_next_descriptor() {
    is_replaced_by("fd=4", "fd=4");
}

#[test]
fn by_a_line_end_on_a_far_descriptor() {
    is_replaced_by("fd=77", "fd=77");
}

#[test]
fn by_time() {
    is_replaced_by("delay=1s", "");
}

/// The probe goes to the listener that both processes share.
#[test]
fn by_its_answer() {
    for scheme in ["tcp", "http"] {
        let free = own_address();
        is_asked(&format!("--listen web={free}"), &format!("{scheme}://{free}"));
    }
}

/// The same over a Unix socket, beside the one that clients use.
#[test]
fn by_its_answer_at_a_unix_socket() {
    // Each has a socket of its own: the processes of the first one may still be dying.
    let dir = tempfile::tempdir().unwrap();
    let [plain, http] = ["plain", "http"].map(|name| dir.path().join(name));
    let escaped = text(&http).replace('/', "%2F");
    for (path, url) in [(&plain, format!("unix:{}", text(&plain))), (&http, format!("http+unix://{escaped}/ready"))] {
        is_asked(&format!("--listen web={} --listen health=unix:{}", own_address(), text(path)), &url);
    }
}

fn is_asked(listen: &str, url: &str) {
    let place = Place::new();
    let (good, bad) = (small(&place, "good", ""), small(&place, "bad", "hang"));
    let run = run(&place, &format!("{listen} --mode overlap --ready health={url}"), &[text(&good)]);
    replaced_under_load(&place, &run, 2, None, || {
        let (code, outcome) = upgrade(&place, Some(&bad), "--ready-timeout 1s");
        assert!(code == 10 && outcome["reason"] == "the successor was not ready in time", "{outcome}");
        outcome
    });
}

/// It has accepted, and if there is nobody else, it was this one. Of two nobody can tell which it was.
#[test]
fn who_closes_at_once_is_ready_unless_another_one_may_have_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (free, path) = (own_address(), dir.path().join("web"));
    for (listen, url) in [
        (free.to_string(), format!("tcp://{free}")),
        (format!("unix:{}", text(&path)), format!("unix:{}", text(&path))),
    ] {
        let place = Place::new();
        let brief = small(&place, "brief", "brief");
        let run = run(&place, &format!("--listen web={listen} --mode overlap --ready health={url}"), &[text(&brief)]);
        run.wait_for("it is ready", |service| service["state"] == "running");
        let (code, outcome) = upgrade(&place, Some(&brief), "--ready-timeout 1s");
        let reason = outcome["reason"].as_str().unwrap();
        assert!(
            code == 10 && reason.contains(&format!("not ready in time: {url}: a connection was accepted and closed")),
            "{reason}"
        );
    }
}
