//! The rounds, and what must hold after each.

use crate::clients::Clients;
use crate::probe::Probe;
use crate::schedule::{Binary, Kind, Role, Round, Schedule};
use crate::summary::{Sort, Summary};
use crate::support::streams::Streams;
use crate::support::watch::{LockWatch, settled_descriptors};
use crate::support::{Service, children, programs, wait_until};
use crate::upgrading::{Dealt, Upgrading};
use std::collections::HashMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// Nobody serves for this long: he is not coming back.
const OUTAGE: Duration = Duration::from_secs(60);
/// A stall, or two, up to this make no client give up.
const SHORT_STALL_MS: u64 = 5_000;
const ROUNDS_PER_EPOCH: u64 = 20;
const STREAMS: usize = 6;

pub struct Soak {
    seed: u64,
    service: Service,
    scripts: HashMap<&'static str, PathBuf>,
    clients: Clients,
    /// Connections that live through all of it.
    streams: Streams,
    probe: Probe,
    locks: LockWatch,
    /// Of the supervisor and of the daemon, when the run began.
    descriptors: (usize, usize),
    files: usize,
    summary: Summary,
}

/// What a round has come to.
struct Played<'a> {
    round: &'a Round,
    /// Who served when it began, and what.
    incumbent: i32,
    program: String,
    blows: Vec<Dealt>,
    code: i32,
    said: String,
    /// Who serves now.
    server: i32,
}

impl Soak {
    pub fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let service = Service::start(&programs().kv_a);
        // The first supervisor's descriptors of a handoff stay with it.
        assert_eq!(service.upgrade(&programs().kv_b, &[]).result, "committed");
        let descriptors = wait_until("one daemon", || settled_descriptors(&service));
        let files = files(&service).len();
        let clients = Clients::start(service.address);
        let streams = Streams::start(service.address, STREAMS, "stream");
        let probe = Probe::start(service.address);
        let locks = LockWatch::start(&service, Duration::from_millis(1));
        let (scripts, summary) = (HashMap::new(), Summary::default());
        Self { seed, service, scripts, clients, streams, probe, locks, descriptors, files, summary }
    }

    pub fn run(mut self, goes_on: impl Fn(u64) -> bool) {
        for round in Schedule::new(self.seed) {
            if !goes_on(self.summary.rounds) {
                break;
            }
            self.play(&round);
            if round.number % ROUNDS_PER_EPOCH == 0 {
                self.clients.check_epoch();
            }
            thread::sleep(round.rest);
        }
        self.finish();
    }

    fn play(&mut self, round: &Round) {
        println!("{round}");
        let binary = self.program(round.binary);
        let incumbent = self.service.daemon_pid();
        let program = self.service.status().unwrap()["program"].as_str().unwrap().to_owned();
        let (failed, closed) = (self.clients.failed(), self.streams.seen().closed);
        let mut upgrading = Upgrading::begin(&self.service, &binary, round);
        let deal = |blow: &_| Dealt::deal(*blow, &mut upgrading, &self.service, incumbent);
        let mut blows: Vec<Dealt> = round.blows.iter().map(deal).collect();
        if blows.iter().any(|dealt| dealt.is(Role::Supervisor, Kind::Kill)) {
            self.restart_supervisor(round.absence);
        }
        let (code, said) = upgrading.wait();
        blows.iter_mut().for_each(Dealt::wait_for_thaw);
        let server = self.settle();
        self.streams.go_on();
        let played = Played { round, incumbent, program, blows, code, said, server };
        self.account(&played, self.clients.failed() - failed, self.streams.seen().closed - closed);
    }

    fn program(&mut self, binary: Binary) -> PathBuf {
        match binary {
            Binary::A => programs().kv_a.clone(),
            Binary::B => programs().kv_b.clone(),
            Binary::Missing => "/nonexistent/daemon".into(),
            Binary::Faulty(fault) => self.scripts.entry(fault).or_insert_with(|| self.service.faulty(fault)).clone(),
        }
    }

    /// The same command again; the service must be where it was.
    fn restart_supervisor(&mut self, absence: Duration) {
        self.service.reap_supervisor();
        thread::sleep(absence);
        let address = self.service.address;
        self.service.launch(&programs().kv_a, &[]);
        assert_eq!(self.service.address, address, "the address changed");
        self.summary.supervisor_restarts += 1;
    }

    /// Waits until one daemon serves, nothing is under way, and nothing is left behind; who serves.
    fn settle(&self) -> i32 {
        let since = Instant::now();
        loop {
            let missing = match self.look() {
                Ok(server) => {
                    self.hear_probe();
                    return server;
                }
                Err(missing) => missing,
            };
            let silence = self.probe.silence();
            assert!(silence < OUTAGE, "nobody has served for {silence:?}: {missing}");
            assert!(since.elapsed() < OUTAGE, "it does not settle: {missing}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its next answer ends the time in which nobody served; that is to be this round's.
    fn hear_probe(&self) {
        let before = self.probe.answers();
        wait_until("an answer to the probe", || (self.probe.answers() > before).then_some(()));
    }

    fn look(&self) -> Result<i32, String> {
        let status = self.service.status().ok_or("the supervisor does not answer")?;
        if status["state"] != "running" || status["phase"] != "idle" || status["linked"] != true {
            return Err(format!("status {status}"));
        }
        let pid = status["pid"].as_i64().ok_or("no pid")? as i32;
        let daemons = self.service.daemons();
        let children = children(self.service.supervisor_pid());
        if daemons != [pid] || !(children == [pid] || children.is_empty()) {
            return Err(format!("daemons {daemons:?}, children {children:?}, and {pid} serves"));
        }
        let files = files(&self.service);
        if files.len() > self.files {
            return Err(format!("files left in the runtime directory: {files:?}"));
        }
        match self.service.ping() {
            Some((answers, _)) if answers == pid => Ok(pid),
            other => Err(format!("{other:?} answers, and {pid} should")),
        }
    }

    fn account(&mut self, played: &Played, failed: u64, closed: u64) {
        let gap = self.probe.take_longest();
        println!("    {played}; {failed} failed, {closed} closed; silent for {:.1} ms", gap.as_secs_f64() * 1e3);
        played.check();
        let mut faults = self.streams.take_faults();
        // The listeners end with the last process that has them.
        faults.retain(|fault| !(played.all_died() && fault.contains("cannot connect: Connection refused")));
        assert_eq!(faults, Vec::<String>::new(), "numbered streams with a gap");
        if played.forgives() {
            self.summary.failed_then += failed;
            self.summary.closed_then += closed;
        } else if closed > 0 {
            panic!("{closed} connections were closed: {:#?}", self.streams.seen());
        } else if failed > 0 {
            panic!("{failed} requests failed: {:#?}", self.clients.failures());
        }
        self.summary.rounds += 1;
        *self.summary.outcomes.entry(outcome(played.code)).or_default() += 1;
        played.blows.iter().for_each(|dealt| self.summary.note_blow(dealt));
        self.summary.note_gap(played.sort(), gap, &played.round.to_string());
    }

    fn finish(mut self) {
        self.clients.check_all();
        let streams = self.streams.stop();
        assert_eq!(streams.faults, Vec::<String>::new(), "numbered streams with a gap");
        let answers = self.probe.answers();
        let (samples, holders) = self.locks.stop();
        drop(self.probe);
        assert_eq!(holders, 1, "processes that held the lock at once, in {samples} looks");
        // As at the beginning: the supervisor keeps the program before the present one open.
        for program in [&programs().kv_a, &programs().kv_b] {
            assert_eq!(self.service.upgrade(program, &[]).result, "committed");
        }
        let (supervisor, daemon) = wait_until("one daemon", || settled_descriptors(&self.service));
        self.summary.print();
        println!(
            "lost writes: 0 of {}; {} requests and {answers} probes",
            self.clients.acknowledged(),
            self.clients.requests
        );
        println!("streams: {} numbers there and back, none lost, none twice", streams.numbers.iter().sum::<u64>());
        println!("the lock was looked at {samples} times, and never held twice");
        println!("descriptors: {:?} at the beginning, {:?} in the end", self.descriptors, (supervisor, daemon));
        assert_eq!((supervisor, daemon), self.descriptors, "descriptors of the supervisor and of the daemon");
        assert_eq!(self.service.stop(), Some(0));
        assert_eq!(self.service.daemons(), Vec::<i32>::new());
    }
}

impl Played<'_> {
    fn disturbed(&self) -> bool {
        self.blows.iter().any(|dealt| dealt.pid.is_some())
    }

    fn killed(&self, role: Role) -> bool {
        self.blows.iter().any(|dealt| dealt.is(role, Kind::Kill))
    }

    fn stalled_ms(&self) -> u64 {
        self.blows.iter().map(Dealt::stall_ms).sum()
    }

    /// The outcome is one that there can be, and who serves fits to it.
    fn check(&self) {
        let fails_once = ["drain-fails", "seal-fails"].iter().any(|fault| self.program.contains(fault));
        let expected = self.round.expected.code;
        if !self.disturbed() {
            assert!(self.code == expected || fails_once && self.code == 10, "{self}, and not {}", outcome(expected));
        } else if !self.killed(Role::Supervisor) {
            // 1: it came while the dead incumbent's next start was due, and its program could not be started instead.
            let started_instead = self.code == 1 && self.killed(Role::Incumbent);
            assert!(matches!(self.code, 0 | 10..=14) || started_instead, "{self}");
        }
        let went_on = self.server == self.incumbent;
        match self.code {
            0 if !self.killed(Role::Successor) => assert!(!went_on, "{self}"),
            10 | 11 | 13 if !self.killed(Role::Incumbent) && self.stalled_ms() < SHORT_STALL_MS => {
                assert!(went_on, "{self}");
            }
            _ => {}
        }
    }

    /// Requests may have failed: who served was killed, or stopped for longer than a client waits; or the successor died
    /// when the connections were its own.
    fn forgives(&self) -> bool {
        // It had committed, and so has had the connections; S may have been killed before it could say so.
        let served_and_died = self.code == 11 || matches!(self.round.binary, Binary::Faulty("crash-committed"));
        let server_killed =
            served_and_died || self.killed(Role::Incumbent) || self.killed(Role::Successor) && self.code != 10;
        server_killed || self.stalled_ms() > SHORT_STALL_MS
    }

    /// Supervisor and server may have been dead at the same time.
    fn all_died(&self) -> bool {
        self.killed(Role::Supervisor) && (self.killed(Role::Incumbent) || self.killed(Role::Successor))
    }

    fn sort(&self) -> Sort {
        let slow = |name: &str| ["slow-open", "slow-drain", "fails"].iter().any(|fault| name.contains(fault));
        if self.disturbed() {
            Sort::Disturbed
        } else if self.round.expected.hangs || slow(&self.program) || slow(&format!("{:?}", self.round.binary)) {
            Sort::Slow
        } else {
            Sort::Undisturbed
        }
    }
}

impl std::fmt::Display for Played<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { incumbent, server, said, .. } = self;
        for dealt in &self.blows {
            match dealt.pid {
                Some(pid) => write!(f, "{:?} {pid} in '{}', ", dealt.blow.role, dealt.phase)?,
                None => write!(f, "nobody, ")?,
            }
        }
        write!(f, "{}: {incumbent} -> {server}: {said}", outcome(self.code))
    }
}

fn outcome(code: i32) -> &'static str {
    match code {
        0 => "committed",
        10 => "rolled back",
        11 => "reverted",
        12 => "started cold",
        13 => "refused",
        14 => "undecided",
        _ => "no outcome",
    }
}

fn files(service: &Service) -> Vec<String> {
    let entries = std::fs::read_dir(service.path("run")).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
