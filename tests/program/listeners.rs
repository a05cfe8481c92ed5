//! Addresses that can not be had.

use crate::daemons::{refs, web};
use crate::harness::Place;
use serde_json::json;
use std::net::TcpListener;

fn listen(place: &Place, listeners: &[&str]) -> crate::harness::Said {
    let mut arguments: Vec<&str> = listeners.iter().flat_map(|listener| ["--listen", listener]).collect();
    arguments.extend(["--", "true"]);
    place.output("run", &arguments)
}

#[test]
fn what_makes_no_sense_is_one_clear_error() {
    let place = Place::new();
    for (listener, words) in [
        ("127.0.0.1:80", "NAME=ADDRESS"),
        ("=127.0.0.1:80", "empty"),
        ("a:b=127.0.0.1:80", "':'"),
        ("a=localhost:80", "127.0.0.1:80"),
        ("a=127.0.0.1:0,quick", "unknown option 'quick'"),
        ("a=127.0.0.1:0,backlog=x", "backlog"),
        ("a=unix:/x,mode=9", "octal"),
    ] {
        listen(&place, &[listener]).expect(2, &[words]);
    }
    listen(&place, &["a=127.0.0.1:0", "a=127.0.0.1:0"]).expect(2, &["two listeners have the name 'a'"]);
    assert!(!place.path("runtime").exists(), "nothing was changed");
}

#[test]
fn an_address_in_use_names_who_has_it() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = format!("a={}", taken.local_addr().unwrap());
    listen(&place, &[&listener]).expect(125, &["'a'", &format!("process {}", std::process::id())]);
    let socket = format!("a=unix:{}", place.path("socket").display());
    let _bound = std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
    listen(&place, &[&socket]).expect(125, &["in use", &format!("process {}", std::process::id())]);
    let long = format!("a=unix:{}/x", "/tmp/long".repeat(20));
    listen(&place, &[&long]).expect(125, &["107 bytes"]);
    listen(&place, &["a=unix:/no/such/dir/socket"]).expect(125, &["/no/such/dir"]);
}

#[test]
fn every_kind_is_shown_with_what_it_got() {
    let place = Place::new();
    let socket = format!("admin=unix:{},mode=0660,backlog=16", place.path("admin").display());
    let listeners = ["--listen", "web=127.0.0.1:0", "--listen", "dns=udp:127.0.0.1:0", "--listen", &socket];
    let run = place.run(&[&listeners[..], &["--name", "all", "--", "sleep", "1000"]].concat());
    let service = run.wait_for("running", |service| service["pid"].is_i64());
    let address = |index: usize| service["listeners"][index]["address"].as_str().unwrap().to_owned();
    assert!(address(0).starts_with("127.0.0.1:") && !address(0).ends_with(":0"));
    assert!(address(1).starts_with("udp:127.0.0.1:") && !address(1).ends_with(":0"));
    assert_eq!(address(2), format!("unix:{}", place.path("admin").display()));
    assert_eq!(service["listeners"][1]["name"], json!("dns"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(place.path("admin")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn the_same_address_can_be_had_again_at_once() {
    let place = Place::new();
    let mut run = place.run(&refs(&web(&place, "plain", &[])));
    let (_, address) = run.running();
    run.wait_for_text("serving");
    crate::harness::ask(address, "x");
    crate::harness::signal(run.pid(), nix::sys::signal::Signal::SIGTERM);
    run.end();
    listen(&place, &[&format!("web={address}")]).expect(0, &[]);
}
