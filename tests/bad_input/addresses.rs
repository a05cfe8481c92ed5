//! Listeners that can not be had, beside a service that has them.

use crate::harness::{Scene, names, run_store};
use std::net::UdpSocket;

#[test]
fn an_address_that_a_service_listens_on_names_its_supervisor() {
    let scene = Scene::new();
    let (runtime, data) = (scene.path("other"), scene.path("other-data"));
    std::fs::create_dir(&data).unwrap();
    let listen = format!("kv={}", scene.service.address);
    let said = run_store(&scene.service, &runtime, &data, &["--listen", &listen]);
    let address = scene.service.address.to_string();
    let holder = format!("process {}", scene.service.supervisor_pid());
    said.expect_line(125, &[&address, &holder, "stop that process, or choose another address"]);
    assert_eq!(names(&data), Vec::<String>::new());
    assert_eq!(names(&runtime), ["other.lock"]);

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let said = run_store(&scene.service, &runtime, &data, &["--listen", &format!("dns=udp:{address}")]);
    said.expect_line(125, &[&address, &format!("process {}", std::process::id()), "another address"]);
    scene.next_commits();
}

#[test]
fn names_that_can_not_be_are_refused_before_anything_is_made() {
    let scene = Scene::new();
    let (runtime, data) = (scene.path("other"), scene.path("data"));
    let start = |listeners: &[&str]| run_store(&scene.service, &runtime, &data, listeners);
    start(&["--listen", "a:b=127.0.0.1:0"]).expect(2, &["'a:b=127.0.0.1:0'", "must not contain ':'"]);
    let twice = ["--listen", "a=127.0.0.1:0", "--listen", "a=127.0.0.1:0"];
    start(&twice).expect_line(2, &["two listeners have the name 'a'", "each needs its own"]);
    let address = ["--listen", "a=127.0.0.1:7", "--listen", "b=127.0.0.1:7"];
    start(&address).expect_line(2, &["listeners 'a' and 'b' have the same address 127.0.0.1:7"]);
    assert!(!runtime.exists());
    scene.next_commits();
}

#[test]
fn a_listener_that_the_daemon_does_not_know_ends_its_first_start() {
    let service = crate::support::Service::place();
    let listen = ["--listen", "web=127.0.0.1:0"];
    let said = run_store(&service, &service.path("run"), &service.path("data"), &listen);
    said.expect(1, &["no listener 0 named \"kv\" was given; given are: web", "ended: exit status 1"]);
    assert_eq!(names(&service.path("data")), Vec::<String>::new());
}
