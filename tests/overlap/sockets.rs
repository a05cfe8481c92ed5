//! Sockets that share an address, and datagrams.

use crate::scene::{Load, program, request, start};
use crate::support::{Service, wait_until};
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const SOCKETS: usize = 3;

fn address(service: &Service, name: &str) -> SocketAddr {
    let status = service.status().unwrap();
    let listener = status["listeners"].as_array().unwrap().iter().find(|listener| listener["name"] == name).unwrap();
    let address = listener["address"].as_str().unwrap();
    address.strip_prefix("udp:").unwrap_or(address).parse().unwrap()
}

/// A datagram of a client of its own, as each one of a group goes to one socket: the pid that answers.
fn ask(address: SocketAddr) -> std::io::Result<i32> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    socket.send_to(b"PING\n", address)?;
    let mut reply = [0; 100];
    let (size, from) = socket.recv_from(&mut reply)?;
    assert_eq!(from, address);
    let reply = String::from_utf8_lossy(&reply[..size]).into_owned();
    reply.split(' ').nth(1).and_then(|pid| pid.parse().ok()).ok_or_else(|| std::io::Error::other(reply))
}

#[test]
fn each_socket_of_a_group_is_served_at_every_instant() {
    let service = start(&["--listen", "group=127.0.0.1:0,sockets=3", "--listen", "dns=udp:127.0.0.1:0,sockets=3"]);
    let (tcp, udp) = (address(&service, "group"), address(&service, "dns"));
    let status = service.status().unwrap();
    let sockets: Vec<_> = status["listeners"].as_array().unwrap().iter().map(|of| of["sockets"].as_u64()).collect();
    assert_eq!(sockets, [Some(1), Some(1), Some(SOCKETS as u64), Some(SOCKETS as u64)]);
    let said = service.command("status").output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains(&format!("listener   group {tcp},sockets=3\n")), "{said}");
    assert_eq!(said.matches("sockets=").count(), 2, "{said}");
    let load = Load::start(tcp, 4);
    for round in 1..=6 {
        assert_eq!(service.upgrade(program(if round % 2 == 0 { "a" } else { "b" }), &[]).result, "committed");
        let serves = service.daemon_pid();
        // The kernel hashes the clients over the sockets: thirty reach each of three.
        let answered: BTreeSet<i32> = (0..30).map(|_| ask(udp).unwrap()).collect();
        // What a socket had got before it was left is answered by whoever reads it first.
        assert!(answered.contains(&serves), "{answered:?}");
        wait_until("the others have drained", || (service.daemons() == [serves]).then_some(()));
        assert!((0..30).all(|_| ask(udp).unwrap() == serves && request(tcp).unwrap() == serves));
    }
    let (answered, failures) = load.stop();
    assert_eq!(failures, Vec::<String>::new(), "of {answered}");
}

#[test]
fn datagrams_are_answered_through_upgrades() {
    let service = start(&["--listen", "dns=udp:127.0.0.1:0"]);
    let udp = address(&service, "dns");
    let (stop, failures) = (std::sync::atomic::AtomicBool::new(false), std::sync::Mutex::new(Vec::new()));
    let answered = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    match ask(udp) {
                        Ok(_) => drop(answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
                        Err(error) => failures.lock().unwrap().push(error.to_string()),
                    }
                }
            });
        }
        let upgrades =
            (0..10).map(|round| service.upgrade(program(if round % 2 == 0 { "b" } else { "a" }), &[]).result);
        let upgrades: Vec<String> = upgrades.collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(upgrades, vec!["committed"; 10]);
    });
    assert_eq!(failures.into_inner().unwrap(), Vec::<String>::new());
    assert!(answered.into_inner() > 100);
}

#[test]
fn a_supervisor_that_comes_back_has_the_group_again() {
    let arguments = ["--listen", "group=127.0.0.1:0,sockets=3"];
    let mut service = start(&arguments);
    let (tcp, pid) = (address(&service, "group"), service.daemon_pid());
    let load = Load::start(tcp, 4);
    service.kill_supervisor();
    service.launch(program("a"), &arguments);
    assert_eq!((service.daemon_pid(), address(&service, "group")), (pid, tcp));
    assert_eq!(service.upgrade(program("b"), &[]).result, "committed");
    let serves = service.daemon_pid();
    wait_until("the other has drained", || (service.daemons() == [serves]).then_some(()));
    assert!((0..30).all(|_| request(tcp).unwrap() == serves));
    assert_eq!(load.stop().1, Vec::<String>::new());
    service.kill_supervisor();
    let mut other = service.command("run");
    other.args(["--listen", "group=127.0.0.1:0,sockets=2", "--", "true"]);
    let said = other.output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("has 3 sockets of listener 'group', not 2"), "{said:?}");
}
