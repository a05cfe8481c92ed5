//! The daemon of the demo: a key-value store that can be replaced while it runs.

use super::clients::{Acceptor, Connection, Server};
use super::store::Store;
use handoff::sys::pidfd::Pidfd;
use handoff::{
    Begun, Config, Deadline, DrainReport, Drainable, Error, HookError, Role, SealReport, Served, StateSnapshot,
    Stopper, Transfer, detect_role,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// The variable that names a [`Fault`].
pub const FAULT: &str = "DEMO_FAULT";
/// The listener's name.
pub const LISTENER: &str = "kv";
/// State that is in no file: the builds that served before, and this one.
const LINEAGE: &str = "lineage";
/// From the request to stop to the end.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Started by the demo itself, and by the tests of every language.
#[derive(Debug, clap::Args)]
pub struct DaemonArgs {
    /// Where the log is
    pub data_dir: PathBuf,
    /// Do not outlive this process
    #[arg(long)]
    pub parent: Option<i32>,
    /// Which build to say that it is
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    pub build: String,
}

/// What a bad build does, after it was told to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Crash,
    Hang,
    /// Opens data that lacks the last acknowledged write.
    LostWrite,
}

impl Fault {
    /// Its name in the environment.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::LostWrite => "lost-write",
        }
    }

    fn from_environment() -> Option<Self> {
        let name = std::env::var(FAULT).ok()?;
        [Self::Crash, Self::Hang, Self::LostWrite].into_iter().find(|fault| fault.name() == name)
    }
}

/// The whole life of the daemon; its exit code.
pub fn run(args: &DaemonArgs) -> u8 {
    match serve(args) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("demo daemon: {error}");
            1
        }
    }
}

fn serve(args: &DaemonArgs) -> Result<(), HookError> {
    let fault = Fault::from_environment();
    let config = Config::new().data_dir(&args.data_dir).build_id(args.build.as_str())?;
    let role = detect_role(&config)?;
    let stopper = stop_on_signal(args.parent)?;
    let store = Store::new(&args.data_dir);
    let begun = match role {
        Role::ColdStart(cold) => cold.begin()?,
        Role::Successor(successor) => {
            let handshook = successor.handshake()?;
            store.warm()?; // the incumbent serves meanwhile
            handshook.wait_for_begin()?
        }
    };
    match fault {
        Some(Fault::Crash) => return Err("told to crash".into()),
        Some(Fault::Hang) => loop {
            thread::park();
        },
        _ => store.open()?,
    }
    if fault == Some(Fault::LostWrite) {
        store.forget_last();
    }
    serve_begun(begun, store, &args.build, &stopper)
}

fn serve_begun(begun: Begun, store: Store, build: &str, stopper: &OnceLock<Stopper>) -> Result<(), HookError> {
    let _ = stopper.set(begun.stopper());
    let transfer = begun.transfer();
    let lineage = match transfer.state(LINEAGE) {
        Ok(before) => format!("{} {build}", String::from_utf8_lossy(&before)),
        Err(Error::NoName(_)) => build.to_owned(), // a cold start
        Err(error) => return Err(error.into()),
    };
    let listener = TcpListener::from(begun.listeners().take(Some(LISTENER), 0)?);
    let server = Arc::new(Server::new(store, build, &lineage, begun.writers(), listener)?);
    let mut daemon = Daemon { server, transfer, lineage, acceptor: None };
    let incumbent = begun.announce_and_bind(&daemon)?;
    while let Some(moved) = daemon.transfer.next_connection()? {
        daemon.server.serve(Connection { stream: moved.fd.into(), input: moved.state });
    }
    daemon.acceptor = Some(daemon.server.start_accepting()?);
    if incumbent.serve(&mut daemon)? == Served::Stopped {
        if let Some(acceptor) = daemon.acceptor.take() {
            daemon.server.stop(acceptor, STOP_PATIENCE);
        }
        daemon.server.store.close()?;
    }
    Ok(())
}

/// What a handoff asks of this daemon.
struct Daemon {
    server: Arc<Server>,
    transfer: Transfer,
    lineage: String,
    acceptor: Option<Acceptor>,
}

impl Drainable for Daemon {
    fn drain(&mut self, deadline: &Deadline<'_>) -> Result<DrainReport, HookError> {
        let acceptor = self.acceptor.take().ok_or("not accepting")?;
        let (stopped, in_time) = self.server.drain(acceptor, || deadline.remaining());
        if !in_time {
            return Err("a client does not read its reply".into());
        }
        self.transfer.put_state(LINEAGE, self.lineage.as_bytes())?;
        // Ours stay open, and untouched, until we know who serves.
        self.server.each_parked(|client| self.transfer.put_connection(&client.stream, "client", &client.input))?;
        Ok(DrainReport { connections_open: 0, accept_stopped: Some(stopped) })
    }

    fn seal(&mut self, _: &Deadline<'_>) -> Result<SealReport, HookError> {
        Ok(SealReport { revisions: vec![self.server.store.close()?] })
    }

    fn resume_after_abort(&mut self) -> Result<(), HookError> {
        self.server.store.open()?;
        self.server.resume();
        if self.acceptor.is_none() {
            self.acceptor = Some(self.server.start_accepting()?);
        }
        Ok(())
    }

    fn resume_after_commit(&mut self) -> Result<(), HookError> {
        self.server.drop_parked();
        self.resume_after_abort()
    }

    fn parked(&mut self) {
        self.server.drop_parked();
    }

    fn snapshot_state(&self) -> StateSnapshot {
        let store = &self.server.store;
        StateSnapshot { revisions: vec![store.revision()], detail: format!("{} keys", store.count().0) }
    }
}

/// Stops when asked, and when its parent is gone. Before it serves, that is simply the end.
fn stop_on_signal(parent: Option<i32>) -> Result<Arc<OnceLock<Stopper>>, HookError> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let arrived = SignalFd::new(&signals)?;
    let parent = parent.map(Pidfd::open).transpose()?;
    let stopper = Arc::new(OnceLock::<Stopper>::new());
    let shared = Arc::clone(&stopper);
    thread::Builder::new().name("signals".into()).spawn(move || {
        let ends = [Some(arrived.as_fd()), parent.as_ref().map(AsFd::as_fd)];
        let mut polled: Vec<PollFd<'_>> =
            ends.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        while poll(&mut polled, PollTimeout::NONE).is_err() {}
        if let Some(stopper) = shared.get() {
            stopper.stop();
            thread::sleep(STOP_PATIENCE * 2);
        }
        std::process::exit(1);
    })?;
    Ok(stopper)
}
