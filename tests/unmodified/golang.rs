//! A web server in Go, of nothing but its standard library.
use crate::clients::{replaced_under_load, run, upgrade};
use crate::harness::{Place, text};
use crate::support::go::{build_go, have_go};

#[test]
fn a_server_in_go_is_replaced() {
    if !have_go() {
        return;
    }
    let place = Place::new();
    let good = build_go("web", "tests/unmodified/go", ".", &[]);
    let bad = place.file("bad", format!("#!/bin/sh\nBROKEN=1 exec {}\n", text(&good)), 0o755);
    let run = run(&place, "--listen http=127.0.0.1:0 --mode overlap --ready notify", &[text(&good)]);
    replaced_under_load(&place, &run, 5, None, || {
        let (code, outcome) = upgrade(&place, Some(&bad), "");
        assert!(code == 10 && outcome["reason"].as_str().unwrap().contains("its settings are broken"), "{outcome}");
        outcome
    });
}
