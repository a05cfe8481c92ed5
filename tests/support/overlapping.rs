//! Web servers in overlap mode: somebody accepts at every instant.

use super::{PATIENCE, Service, wait_until};
use std::fs;
use std::io::{Error, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

/// One request on a connection of its own: the pid that answers.
fn request(address: SocketAddr) -> std::io::Result<i32> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let pid = reply.trim_end().rsplit(' ').next().and_then(|pid| pid.parse().ok());
    pid.filter(|_| reply.starts_with("HTTP/1.1 200 ")).ok_or_else(|| Error::other(format!("the answer was {reply:?}")))
}

/// Clients with a connection for each request.
struct Clients {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Clients {
    fn start(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) && failures.len() < 10 {
                    match request(address) {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.push(error.to_string()),
                    }
                }
                failures
            })
        };
        let threads = (0..6).map(client).collect();
        Self { stop, answered, threads }
    }

    fn go_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        wait_until("more answers", || (self.answered.load(Ordering::Relaxed) > before + 20).then_some(()));
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

fn serves(service: &Service, address: SocketAddr) {
    let pid = service.daemon_pid();
    // The one before it may have accepted in its last instant.
    wait_until("the successor answers", || (request(address).unwrap() == pid).then_some(()));
}

/// Under load the programs replace each other; then comes the slow one, which initialises until there is the file `go`: no
/// request fails, and none waits for it.
pub fn upgrades_stop_nobody(programs: [&Path; 2], slow: &Path, go: &Path) {
    let mut service = Service::start(programs[0]);
    let address = service.address;
    let clients = Clients::start(address);
    for round in 1..=10 {
        let upgrade = service.upgrade(programs[round % 2], &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "round {round}: {upgrade:?}");
        serves(&service, address);
        clients.go_on();
    }
    wait_until("the others have drained", || (service.daemons().len() == 1).then_some(()));
    let (first, begun) = (service.daemon_pid(), service.stderr().matches("web: begun").count());
    let upgrading = service.begin_upgrade(slow, &[]);
    wait_until("it initialises", || (service.stderr().matches("web: begun").count() > begun).then_some(()));
    for _ in 0..20 {
        assert_eq!(request(address).unwrap(), first, "the successor still initialises");
    }
    clients.go_on();
    fs::write(go, "").unwrap();
    assert_eq!(upgrading.wait().result, "committed");
    serves(&service, address);
    assert_eq!(clients.stop(), Vec::<String>::new());
    let last = service.daemon_pid();
    wait_until("the incumbent has drained", || (service.daemons() == [last]).then_some(()));
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
}
