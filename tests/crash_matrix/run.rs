//! One run: a service under load, an upgrade, a crash at one step of it, and what must hold afterwards.

use crate::build::build;
use crate::moved::Kept;
use crate::scenario::Scenario;
use crate::support::load::{Load, LoadOptions, Report, verify};
use crate::support::{Service, Upgrade, Upgrading, lives, process_state, thaw, wait_for_death, wait_until};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What happens at the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    Kill,
    /// Only for the supervisor: another one is started at once.
    KillAndStart,
    /// For longer than everybody waits, then it goes on.
    Stop,
}

/// Longer than [`DEADLINE`] and every wait for a silent peer, which this build has shortened.
const STOPPED_FOR: Duration = Duration::from_millis(4500);
const DEADLINE: &str = "2s";

/// A crash at one step of one scenario.
pub struct Case {
    pub scenario: &'static Scenario,
    pub step: String,
    pub blow: Blow,
    /// How it must end, if that is sure.
    pub end: Option<&'static str>,
    /// All steps of the scenario.
    pub trace: Arc<str>,
}

impl Case {
    /// As it begins its line in the table.
    pub fn name(&self) -> String {
        format!("{:12} {}", self.scenario.name, self.step)
    }

    /// The listeners end with the last process that has them.
    pub fn all_die(&self) -> bool {
        self.blow == Blow::KillAndStart && self.scenario.spares("S")
    }
}

/// What came of it.
pub struct Row {
    /// None: this run did not come to the step.
    pub struck: bool,
    pub outcome: String,
    pub serves: &'static str,
    /// The longest time without an acknowledged write, from the beginning of the upgrade on.
    pub gap: Duration,
    pub acknowledged: usize,
    pub failed_requests: u64,
    /// Kept connections that were closed.
    pub closed: u64,
}

/// A service whose processes know of the points.
pub struct Scene {
    pub service: Service,
    pub incumbent: i32,
    successor: PathBuf,
    pub scenario: &'static Scenario,
    /// The supervisor is not the one that began the upgrade.
    started_again: bool,
}

impl Scene {
    fn new(scenario: &'static Scenario) -> Self {
        let mut service = Service::place_in(scratch());
        let points = service.path("points");
        fs::create_dir(&points).unwrap();
        service.handoff = build().handoff.clone();
        service.environment.extend([("CRASH_POINTS", points), ("OVERLAP_GIVE", "yes".into())]);
        let (incumbent, successor) = scenario.programs(service.dir.path());
        service.launch(&incumbent, &[]);
        let incumbent = service.daemon_pid();
        Self { service, incumbent, successor, scenario, started_again: false }
    }

    fn upgrade(&self) -> Upgrading {
        let times = ["--deadline", DEADLINE, "--drain-grace", "1s", "--ready-timeout", "1s", "--hello-timeout", "1s"];
        let times = [&times[..], &["--probation", self.scenario.probation]].concat();
        self.service.begin_upgrade(&self.successor, &times)
    }

    /// The upgrade in which somebody is struck, after the death that belongs to the scenario.
    fn begin(&self, scenario: &Scenario, blow: Option<(Blow, &str)>) -> Upgrading {
        let deaths = scenario.killed_at.map(|step| (Blow::Kill, step));
        let order = |(blow, step)| format!("{} {step}\n", if blow == Blow::Stop { "stop" } else { "kill" });
        let orders: String = deaths.into_iter().chain(blow).map(order).collect();
        if !orders.is_empty() {
            fs::write(self.service.path("points/armed"), orders).unwrap();
        }
        self.upgrade()
    }

    /// Who was struck by the order that was the last but this many.
    fn struck(&self, others: usize) -> Option<i32> {
        fs::read_to_string(self.service.path(&format!("points/fired.{}", others + 1))).ok()?.parse().ok()
    }

    /// Another supervisor, in the place of the one that was killed.
    fn start_supervisor(&mut self) {
        self.service.kill_supervisor(); // reaps it
        self.service.launch(self.scenario.builds().0, &[]);
        self.started_again = true;
    }

    fn supervisor_lives(&self) -> bool {
        lives(self.service.supervisor_pid())
    }
}

/// In memory, if there is room for it and programs may run there: forty stores at once, of which each waits for the disk with each
/// write, can starve on a slow one for longer than any deadline. What a process that dies leaves behind is the same on both.
fn scratch() -> TempDir {
    const ROOM: u64 = 1 << 30;
    let memory = Path::new("/dev/shm");
    let is_good = statvfs(memory).is_ok_and(|system| {
        !system.flags().contains(FsFlags::ST_NOEXEC) && system.blocks_available() * system.fragment_size() > ROOM
    });
    if is_good { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// The steps of a scenario to which nothing else happens, as the processes wrote them down.
pub fn trace(scenario: &'static Scenario) -> String {
    let scene = Scene::new(scenario);
    let trace = scene.service.path("points/trace");
    let kept = Kept::start(&scene);
    fs::write(&trace, "").unwrap();
    let upgrade = scene.begin(scenario, None).wait();
    eprintln!("{}: {upgrade:?}", scenario.name); // seen if something below fails
    // A process that is killed closes its sockets, and may be seen alive for many milliseconds after that: its inotify
    // instance goes slowly.
    if scenario.killed_at.is_some() {
        wait_for_death(wait_until("somebody died", || scene.struck(0)));
    }
    one_serves(&scene);
    if scene.supervisor_lives() {
        scene.service.wait_for_phase("idle");
        let result = scene.service.status().unwrap()["last_handoff"]["result"].clone();
        assert_eq!(result, scenario.result, "{}: {upgrade:?}", scenario.name);
    }
    drop(kept);
    fs::read_to_string(&trace).unwrap()
}

/// Runs a case; panics if something is not as it must be.
pub fn run(case: &Case) -> Row {
    let mut scene = Scene::new(case.scenario);
    let load = Load::start(LoadOptions {
        clients: 2,
        keep_alive: false,
        // Whoever stands still for seconds is asked less often: the machine has other cases to run.
        think: Duration::from_millis(if case.blow == Blow::Stop { 25 } else { 2 }),
        ..LoadOptions::new(scene.service.address)
    });
    let mut kept = Kept::start(&scene);
    wait_until("some writes", || (load.snapshot().acknowledged > 20).then_some(()));
    let over = AtomicBool::new(false);
    let (struck, upgrade, server, gap) = std::thread::scope(|threads| {
        let gap = threads.spawn(|| longest_gap(&load, &over));
        // Also if something below panics: the scope waits for the thread.
        let ends = SetWhenDropped(&over);
        let (struck, upgrade) = strike(&mut scene, case);
        let server = one_serves(&scene);
        drop(ends);
        (struck, upgrade, server, gap.join().unwrap())
    });
    let report = load.stop();
    check_requests(&scene, case, struck, &upgrade, &report);
    nothing_is_lost(&scene.service, &report);
    let (outcome, serves) = check_outcome(&scene, &upgrade, server);
    if let (Some(end), true) = (case.end, struck.is_some()) {
        assert_eq!((outcome.as_str(), serves == "incumbent"), (end, ["rolled_back", "reverted"].contains(&end)));
    }
    let closed = kept.check(&scene, case, struck.is_some(), &outcome, server);
    service_goes_on(&mut scene, server, &report);
    kept.check_next(&scene, case, closed);
    Row {
        struck: struck.is_some(),
        outcome,
        serves,
        gap,
        acknowledged: report.acknowledged.len(),
        failed_requests: report.failed_requests,
        closed,
    }
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The longest time in which the clients were told nothing.
fn longest_gap(load: &Load, over: &AtomicBool) -> Duration {
    let (mut last, mut since, mut longest) = (0, Instant::now(), Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let now = load.snapshot().acknowledged;
        longest = longest.max(since.elapsed());
        if now > last {
            (last, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    longest
}

/// The upgrade, in which a process is struck; its pid, if the step came.
fn strike(scene: &mut Scene, case: &Case) -> (Option<i32>, Upgrade) {
    let upgrading = scene.begin(case.scenario, Some((case.blow, &case.step)));
    let (struck, upgrade) = std::thread::scope(|threads| {
        let told = threads.spawn(|| upgrading.wait());
        let struck = wait_for_strike(scene, || told.is_finished());
        if let Some(pid) = struck {
            endure(pid, case.blow);
        }
        if struck.is_some() && case.blow == Blow::KillAndStart {
            scene.start_supervisor();
        }
        (struck, told.join().unwrap())
    });
    // The death that belongs to the scenario may take longer to show than what follows from it.
    if let Some(dead) = scene.struck(1) {
        wait_for_death(dead);
    }
    // It must not go off in what follows.
    let _ = fs::remove_file(scene.service.path("points/armed"));
    (struck, upgrade)
}

/// A step after the outcome comes within moments; one that does not come at all is given that time.
fn wait_for_strike(scene: &Scene, told: impl Fn() -> bool) -> Option<i32> {
    let pause = Duration::from_millis(5);
    let mut patience = Duration::from_secs(1);
    while !patience.is_zero() {
        if let Some(pid) = scene.struck(0) {
            return Some(pid);
        }
        if told() {
            patience = patience.saturating_sub(pause);
        }
        std::thread::sleep(pause);
    }
    None
}

fn endure(pid: i32, blow: Blow) {
    if blow != Blow::Stop {
        return wait_for_death(pid);
    }
    wait_until("it stands, or is dead", || (!lives(pid) || process_state(pid) == Some('T')).then_some(()));
    std::thread::sleep(STOPPED_FOR);
    if lives(pid) {
        thaw(pid);
    }
}

/// Waits until exactly one daemon is left, which serves, and holds the lock.
fn one_serves(scene: &Scene) -> i32 {
    let service = &scene.service;
    wait_until("exactly one daemon, which reads and writes", || {
        std::thread::sleep(Duration::from_millis(20));
        service.ask("SET alive 1").filter(|reply| reply.starts_with("OK "))?;
        let daemon = service.ping()?.0;
        // Last, since it is a look at all processes.
        (holds_lock(scene, daemon) && service.daemons() == [daemon]).then_some(daemon)
    })
}

/// In overlap mode that is the gate.
fn holds_lock(scene: &Scene, pid: i32) -> bool {
    let file = if scene.scenario.overlap { "data/.handoff.gate" } else { "data/.handoff.lock" };
    let inode = fs::metadata(scene.service.path(file)).unwrap().ino();
    let held = |line: &str| line.starts_with("lock:") && line.contains("FLOCK") && line.contains(&format!(":{inode} "));
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    infos.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(|info| info.lines().any(held))
}

/// No client was refused; and none failed at all, unless a process that served it was killed.
fn check_requests(scene: &Scene, case: &Case, struck: Option<i32>, upgrade: &Upgrade, report: &Report) {
    if !case.all_die() {
        assert_eq!(report.failures_by_kind.get("refused"), None, "{:?}", report.failures);
    }
    let back = ["rolled_back", "refused"].contains(&upgrade.result.as_str());
    let never_served = case.step.starts_with("S:") || back && struck != Some(scene.incumbent);
    if case.blow != Blow::Stop && case.scenario.killed_at.is_none() && never_served {
        assert_eq!(report.failures, Vec::<String>::new());
    }
}

fn nothing_is_lost(service: &Service, report: &Report) {
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
}

/// What the supervisor says in the end is what is; the final outcome, and who serves.
fn check_outcome(scene: &Scene, upgrade: &Upgrade, server: i32) -> (String, &'static str) {
    let incumbent = server == scene.incumbent;
    if scene.started_again || !scene.supervisor_lives() {
        return ("-".to_owned(), if incumbent { "incumbent" } else { "successor" });
    }
    let status = wait_until("the supervisor agrees", || {
        let status = scene.service.status()?;
        (status["state"] == "running" && status["phase"] == "idle" && status["pid"] == server).then_some(status)
    });
    let told = upgrade.result.as_str();
    // A refusal is no handoff; another outcome may be corrected, once it is known.
    let last = if told == "refused" { &upgrade.outcome } else { &status["last_handoff"] };
    let result = last["result"].as_str().unwrap_or_default();
    let corrected = matches!((told, result), ("undecided", _) | ("committed", "reverted" | "started_cold"));
    assert!(told == result || corrected, "{told}, then {result}");
    let started = status["restarts"].as_u64() > Some(0); // of which a process that dies after an outcome is one
    let right = match result {
        "committed" | "started_cold" => last["pid"] != scene.incumbent && last["pid"] == server || started,
        "rolled_back" | "reverted" | "refused" => server == scene.incumbent || started,
        "failed" => started,
        _ => false,
    };
    assert!(right, "{result}, but {server} serves, and {} was to be replaced: {status}", scene.incumbent);
    let serves = match result {
        _ if incumbent => "incumbent",
        "committed" if last["pid"] == server => "successor",
        _ => "a new one",
    };
    (result.to_owned(), serves)
}

/// A supervisor that was killed, and is started again, adopts the daemon. The service can be upgraded again, and still has
/// everything.
fn service_goes_on(scene: &mut Scene, server: i32, report: &Report) {
    if !scene.supervisor_lives() {
        scene.start_supervisor();
    }
    assert_eq!(scene.service.daemon_pid(), server);
    let upgrade = scene.service.upgrade(scene.scenario.builds().0, &[]);
    assert_eq!(upgrade.result, "committed", "the next upgrade: {upgrade:?}");
    assert_eq!(upgrade.outcome["pid"], one_serves(scene));
    nothing_is_lost(&scene.service, report);
}
