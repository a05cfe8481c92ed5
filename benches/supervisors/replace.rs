//! What clients feel when the binary of a service is replaced.

use crate::bed::{Bed, Kind, Unit, rest, succeeds};
use crate::support::{self, wait_until};
use crate::table::{Table, ms};
use handoff::sys::clock::monotonic_ns;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const REPLACEMENTS: usize = 5;
/// runit starts nothing twice in a second.
const BETWEEN: Duration = Duration::from_millis(1200);
const FRESH: usize = 4;
const KEPT: usize = 8;
const THINK: Duration = Duration::from_millis(1);
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Felt {
    answered: u64,
    refused: u64,
    reset: u64,
    longest_ns: u64,
    kept: usize,
}

impl Felt {
    fn show(&self) -> String {
        let Self { answered, refused, reset, kept, .. } = self;
        let longest = ms(self.longest_ns);
        format!("{refused} refused, {reset} reset, of {answered}; {longest}; {kept} of {KEPT}")
    }
}

fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"PING\n")?;
    let mut answer = [0; 256];
    match stream.read(&mut answer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        length if answer[..length].starts_with(b"CLOSE") => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// A connection for each request.
fn fresh(address: SocketAddr, over: &AtomicBool) -> Felt {
    let mut felt = Felt::default();
    let mut last = monotonic_ns();
    while !over.load(Ordering::Relaxed) {
        match TcpStream::connect(address).and_then(|mut stream| ask(&mut stream)) {
            Ok(()) => {
                felt.answered += 1;
                felt.longest_ns = felt.longest_ns.max(monotonic_ns() - last);
                last = monotonic_ns();
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => felt.refused += 1,
            Err(_) => felt.reset += 1,
        }
        rest(THINK);
    }
    felt
}

/// One connection for all; whether it lives to the end.
fn kept(address: SocketAddr, over: &AtomicBool) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    while !over.load(Ordering::Relaxed) {
        if ask(&mut stream).is_err() {
            return false;
        }
        rest(THINK);
    }
    true
}

/// What clients feel of this.
fn felt(address: SocketAddr, mut replace: impl FnMut(usize)) -> Felt {
    let over = AtomicBool::new(false);
    wait_until("it serves", || TcpStream::connect(address).and_then(|mut stream| ask(&mut stream)).ok());
    std::thread::scope(|scope| {
        let fresh: Vec<_> = (0..FRESH).map(|_| scope.spawn(|| fresh(address, &over))).collect();
        let kept: Vec<_> = (0..KEPT).map(|_| scope.spawn(|| kept(address, &over))).collect();
        for at in 0..REPLACEMENTS {
            rest(BETWEEN);
            replace(at);
        }
        rest(BETWEEN);
        over.store(true, Ordering::Relaxed);
        let mut all = Felt::default();
        for one in fresh {
            let one = one.join().expect("a client");
            all.answered += one.answered;
            all.refused += one.refused;
            all.reset += one.reset;
            all.longest_ns = all.longest_ns.max(one.longest_ns);
        }
        all.kept = kept.into_iter().map(|one| usize::from(one.join().expect("a client"))).sum();
        all
    })
}

/// A service that does not know its supervisor, by the command that restarts it.
fn restarts(kind: Kind) -> Felt {
    let port = free_port();
    let unit = Unit { port: Some(port), ..Unit::new("serve", 1, &format!("serve {port}")) };
    let mut bed = Bed::new(kind, vec![unit]);
    bed.launch_all();
    let felt = felt(([127, 0, 0, 1], port).into(), |_| assert!(succeeds(&mut bed.restart("serve")), "{kind:?}"));
    bed.begin_end();
    bed.wait_for_end();
    felt
}

/// The store of `examples-c`, which links libhandoff.
fn upgrades() -> Felt {
    let programs = support::programs();
    let mut bed = Bed::new(Kind::Handoff, Vec::new());
    let (data, port) = (bed.place.path("data"), free_port());
    let unit =
        format!("[unit.kv]\nexec = [{:?}]\nlisten = ['kv=127.0.0.1:{port}']\ndata_dir = {data:?}\n", programs.kv_a);
    fs::write(bed.place.path("units.toml"), unit).expect("a file");
    bed.launch();
    let felt = felt(([127, 0, 0, 1], port).into(), |at| {
        let binary = if at % 2 == 0 { &programs.kv_b } else { &programs.kv_a };
        let mut upgrade = bed.handoff("upgrade");
        upgrade.arg("kv").arg("--binary").arg(binary).stdout(Stdio::null());
        assert!(upgrade.status().expect("an upgrade").success());
    });
    bed.begin_end();
    bed.wait_for_end();
    felt
}

/// It was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

pub fn measure() {
    let mut table = Table::new("The binary of a service is replaced");
    table.row("a service that links libhandoff, `handoff upgrade`", |kind| match kind {
        Kind::Handoff => upgrades().show(),
        _ => "—".to_owned(),
    });
    table.row("one that does not, and is restarted", |kind| restarts(kind).show());
    table.print(&format!(
        "{FRESH} clients with a connection for each request count those that are refused, and those that are reset or closed \
         without an answer, of all that are answered; then the longest time without an answer. {KEPT} more keep one \
         connection: how many of them still have it in the end. {REPLACEMENTS} replacements. The service of the second \
         row is the same everywhere; under handoff it takes its socket by `LISTEN_FDS`, under the others it opens it itself."
    ));
}
