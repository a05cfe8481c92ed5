//! One run: a service under load, an upgrade, a crash at one step of it, and what must hold afterwards.

use crate::build::build;
use crate::scenario::Scenario;
use crate::support::load::{Load, LoadOptions, Report, verify};
use crate::support::{Service, Upgrade, lives, process_state, thaw, wait_for_death, wait_until};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What happens at the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    Kill,
    /// For longer than everybody waits, then it goes on.
    Stop,
}

/// Longer than [`DEADLINE`] and every wait for a silent peer, which this build has shortened.
const STOPPED_FOR: Duration = Duration::from_millis(5500);
const DEADLINE: &str = "3s";

/// A crash at one step of one scenario.
pub struct Case {
    pub scenario: &'static Scenario,
    pub step: String,
    pub blow: Blow,
}

/// What came of it.
pub struct Row {
    /// None: this run did not come to the step.
    pub fired: bool,
    pub outcome: String,
    pub server: &'static str,
    /// The longest time without an acknowledged write, from the beginning of the upgrade on.
    pub gap: Duration,
    pub acknowledged: usize,
    pub failed_requests: u64,
}

/// A service whose processes know of the points.
struct Scene {
    service: Service,
    incumbent: i32,
    successor: PathBuf,
}

impl Scene {
    fn new(scenario: &Scenario) -> Self {
        let mut service = Service::place();
        let points = service.path("points");
        fs::create_dir(&points).unwrap();
        service.handoff = build().handoff.clone();
        service.environment.push(("CRASH_POINTS", points));
        let (incumbent, successor) = scenario.programs(service.dir.path());
        service.launch(&incumbent, &[]);
        let incumbent = service.daemon_pid();
        Self { service, incumbent, successor }
    }

    fn upgrade(&self) -> crate::support::Upgrading {
        let times = ["--deadline", DEADLINE, "--drain-grace", "1s", "--ready-timeout", "1s", "--hello-timeout", "1s"];
        self.service.begin_upgrade(&self.successor, &times)
    }

    fn supervisor_lives(&self) -> bool {
        lives(self.service.supervisor_pid())
    }
}

/// The steps of a scenario in which nobody crashes, as the processes wrote them down.
pub fn trace(scenario: &Scenario) -> String {
    let scene = Scene::new(scenario);
    let trace = scene.service.path("points/trace");
    fs::write(&trace, "").unwrap();
    let upgrade = scene.upgrade().wait();
    assert_eq!(upgrade.result, scenario.result, "{upgrade:?}");
    let server = scene.service.wait_until_served();
    wait_until("one daemon", || (scene.service.daemons() == [server]).then_some(()));
    scene.service.wait_for_phase("idle");
    fs::read_to_string(&trace).unwrap()
}

/// Runs a case; panics if something is not as it must be.
pub fn run(case: &Case) -> Row {
    let scene = Scene::new(case.scenario);
    let service = &scene.service;
    let load = Load::start(LoadOptions {
        clients: 2,
        keep_alive: false,
        think: Duration::from_millis(2),
        ..LoadOptions::new(service.address)
    });
    wait_until("some writes", || (load.snapshot().acknowledged > 20).then_some(()));
    let over = AtomicBool::new(false);
    let (fired, upgrade, server, gap) = std::thread::scope(|threads| {
        let gap = threads.spawn(|| longest_gap(&load, &over));
        // Also if something below panics: the scope waits for the thread.
        let _end = SetWhenDropped(&over);
        let (fired, upgrade) = strike(&scene, case);
        let server = one_serves(&scene);
        drop(_end);
        (fired, upgrade, server, gap.join().unwrap())
    });
    let report = load.stop();
    check_requests(&scene, case, fired, &report);
    nothing_is_lost(service, &report);
    check_outcome(&scene, &upgrade, server);
    service_goes_on(&scene, &report);
    Row {
        fired: fired.is_some(),
        outcome: upgrade.result,
        server: who(&scene, server, &upgrade.outcome["pid"]),
        gap,
        acknowledged: report.acknowledged.len(),
        failed_requests: report.failed_requests,
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
        std::thread::sleep(Duration::from_millis(1));
    }
    longest
}

/// The upgrade, in which a process is struck; its pid, if the step came.
fn strike(scene: &Scene, case: &Case) -> (Option<i32>, Upgrade) {
    let points = scene.service.path("points");
    let action = if case.blow == Blow::Kill { "kill" } else { "stop" };
    fs::write(points.join("order"), format!("{action} {}\n", case.step)).unwrap();
    fs::rename(points.join("order"), points.join("armed")).unwrap();
    let upgrading = scene.upgrade();
    let fired = std::thread::scope(|threads| {
        let told = threads.spawn(|| upgrading.wait());
        // A step after the outcome comes within moments; one that does not come at all is given that time.
        let mut patience = Duration::from_secs(2);
        let fired = loop {
            if let Some(pid) = fired(&points) {
                break Some(pid);
            }
            if told.is_finished() {
                patience = patience.saturating_sub(Duration::from_millis(5));
            }
            if patience.is_zero() {
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        match (fired, case.blow) {
            (Some(pid), Blow::Kill) => wait_for_death(pid),
            (Some(pid), Blow::Stop) => {
                wait_until("it stands or is dead", || (!lives(pid) || process_state(pid) == Some('T')).then_some(()));
                std::thread::sleep(STOPPED_FOR);
                if lives(pid) {
                    thaw(pid);
                }
            }
            (None, _) => {}
        }
        (fired, told.join().unwrap())
    });
    // It must not go off in what follows.
    let _ = fs::remove_file(points.join("armed"));
    fired
}

/// Who came to the step.
fn fired(points: &std::path::Path) -> Option<i32> {
    let name = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("fired.")?.parse().ok();
    fs::read_dir(points).unwrap().flatten().find_map(name)
}

/// Waits until exactly one daemon is left, which serves, and holds the lock.
fn one_serves(scene: &Scene) -> i32 {
    let service = &scene.service;
    wait_until("exactly one daemon, which reads and writes", || {
        std::thread::sleep(Duration::from_millis(20));
        let [daemon] = service.daemons()[..] else { return None };
        service.ask("SET alive 1").filter(|reply| reply.starts_with("OK "))?;
        (service.ping()?.0 == daemon && holds_lock(service, daemon)).then_some(daemon)
    })
}

fn holds_lock(service: &Service, pid: i32) -> bool {
    let inode = fs::metadata(service.path("data/.handoff.lock")).unwrap().ino();
    let held = |line: &str| line.starts_with("lock:") && line.contains("FLOCK") && line.contains(&format!(":{inode} "));
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    infos.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(|info| info.lines().any(held))
}

/// No client was refused; and none failed at all, unless the process that served it was struck.
fn check_requests(scene: &Scene, case: &Case, struck: Option<i32>, report: &Report) {
    assert_eq!(report.failures_by_kind.get("refused"), None, "{:?}", report.failures);
    let served = case.step.starts_with("O:") || struck.is_some_and(|pid| pid == scene.incumbent);
    let may_have_served = served || case.step.starts_with("N:");
    if case.blow == Blow::Kill && !may_have_served {
        assert_eq!(report.failures, Vec::<String>::new());
    }
}

fn nothing_is_lost(service: &Service, report: &Report) {
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
}

/// What the supervisor says in the end is what is.
fn check_outcome(scene: &Scene, upgrade: &Upgrade, server: i32) {
    if !scene.supervisor_lives() {
        return;
    }
    let settled = wait_until("the supervisor agrees", || {
        let status = scene.service.status()?;
        (status["state"] == "running" && status["phase"] == "idle" && status["pid"] == server).then_some(status)
    });
    let last = &settled["last_handoff"]["result"];
    let result = if upgrade.result == "refused" { "refused" } else { last.as_str().unwrap_or("none") };
    let told = (upgrade.result.as_str(), result);
    // An outcome may be corrected, once it is known.
    assert!(
        told.0 == told.1 || matches!(told, ("undecided", _) | ("committed", "reverted" | "started_cold")),
        "{told:?}"
    );
    match result {
        "committed" => assert_ne!(server, scene.incumbent, "{upgrade:?}"),
        "rolled_back" | "reverted" | "refused" => assert_eq!(server, scene.incumbent, "{upgrade:?}"),
        "started_cold" => assert_ne!(server, scene.incumbent, "{upgrade:?}"),
        other => panic!("the outcome is {other}: {upgrade:?}"),
    }
}

/// The service can be upgraded again, and still has everything.
fn service_goes_on(scene: &Scene, report: &Report) {
    if !scene.supervisor_lives() {
        return;
    }
    let upgrade = scene.service.upgrade(&build().kv_a, &[]);
    assert_eq!(upgrade.result, "committed", "the next upgrade: {upgrade:?}");
    let server = one_serves(scene);
    assert_eq!(upgrade.outcome["pid"], server);
    nothing_is_lost(&scene.service, report);
}

fn who(scene: &Scene, server: i32, told: &serde_json::Value) -> &'static str {
    match server {
        pid if pid == scene.incumbent => "incumbent",
        pid if !scene.supervisor_lives() || *told == pid => "successor",
        _ => "another",
    }
}
