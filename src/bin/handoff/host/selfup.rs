//! This process goes on as another program: when, with what, and how that ended.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use handoff::limits::{PREFLIGHT_TIMEOUT, RESTORE_TIMEOUT, SELF_UPGRADE_PATIENCE};
use handoff::service::task::{Task, TaskEnd, TaskSpec};
use handoff::supervisor::ExecContext;
use handoff::sys::clock::{monotonic_ns, nanoseconds};
use handoff::sys::limits::{hard_nofile, raise_nofile, set_soft_nofile_before, soft_nofile, soft_nofile_before};
use handoff::sys::program::{check_format, find_program};
use handoff::sys::reexec::{Program, begin_time, end_time, is_unchanged, own_file};
use handoff::sys::spawn::{Limit, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Host;
use crate::control::SelfUpgradeParams;
use crate::control::server::Client;
use crate::selfup::state::{self, Sealed};
use crate::selfup::{PREFLIGHT, PREFLIGHT_PASSED, RESTORE, RESTORE_FAILED};
use crate::text::{now_ms, self_upgrade_line};

/// See proc_pid_oom_score_adj(5).
const OOM_SCORE_ADJ_MAX: i32 = 1000;
/// What it opens beyond those that are taken along: the standard ones, the state and the way back twice, what it looks into.
const RESTORE_ROOM: u64 = 32;

/// Whether, and how, the program of this process is being replaced.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SelfUpgrade {
    #[serde(skip)]
    under_way: Option<UnderWay>,
    /// Of the one that is being executed.
    request: Option<Asked>,
    /// How the last one ended that was executed.
    pub last: Option<Value>,
    /// How often it was done.
    pub count: u64,
}

/// Who asked, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    client: Client,
    id: Value,
    binary: PathBuf,
    from_version: String,
    /// In absolute `CLOCK_MONOTONIC` nanoseconds, like those below.
    since_ns: u64,
    /// When the loop stood still.
    stopped_ns: u64,
    /// The limit on descriptors that children get, if that is not our own.
    #[serde(default)]
    soft_nofile: Option<u64>,
}

/// From the request to the execve(2).
#[derive(Debug)]
struct UnderWay {
    asked: Asked,
    file: File,
    found: Metadata,
    /// Until when it waits for the end of what must not be disturbed.
    until_ns: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Waiting,
    /// The new program reads this state, by our descriptor.
    Preflight {
        task: Box<Task>,
        _state: Sealed,
    },
    Passed,
}

/// It came to nothing, and nothing was changed.
struct Refused {
    result: &'static str,
    reason: String,
}

fn refused(reason: impl Into<String>) -> Refused {
    Refused { result: "refused", reason: reason.into() }
}

impl SelfUpgrade {
    /// What to poll for reading.
    pub fn interest(&self) -> Option<BorrowedFd<'_>> {
        match self.under_way.as_ref().map(|under_way| &under_way.stage) {
            Some(Stage::Preflight { task, .. }) => Some(task.as_fd()),
            _ => None,
        }
    }

    /// When there is something to do at the latest, in absolute `CLOCK_MONOTONIC` nanoseconds.
    pub fn due_ns(&self) -> Option<u64> {
        let under_way = self.under_way.as_ref()?;
        match &under_way.stage {
            Stage::Preflight { task, .. } => task.due_ns(),
            Stage::Waiting | Stage::Passed => Some(under_way.until_ns),
        }
    }
}

impl Host {
    pub(super) fn begin_self_upgrade(&mut self, client: Client, id: Value, params: &SelfUpgradeParams) {
        let since_ns = monotonic_ns();
        let patience = params.timeout_ms.map_or(SELF_UPGRADE_PATIENCE, Duration::from_millis);
        let asked = |binary| Asked {
            client,
            id: id.clone(),
            binary,
            from_version: env!("CARGO_PKG_VERSION").to_owned(),
            since_ns,
            stopped_ns: 0,
            soft_nofile: soft_nofile_before(),
        };
        let binary = params.binary.clone().map_or_else(own_path, Ok);
        let found = match (binary, &self.self_upgrade.under_way) {
            (_, Some(_)) => Err(refused("busy: a self-upgrade is under way; try again")),
            _ if self.fleet.is_ending() => Err(refused("busy: the supervisor is being stopped")),
            (Err(error), _) => Err(refused(format!("which file this program is can not be told: {error}"))),
            (Ok(binary), None) => open(&binary).map(|(file, found)| (binary, file, found)),
        };
        match found {
            Ok((binary, file, found)) => {
                let until_ns = since_ns.saturating_add(nanoseconds(patience));
                let under_way = UnderWay { asked: asked(binary), file, found, until_ns, stage: Stage::Waiting };
                self.self_upgrade.under_way = Some(under_way);
                self.advance_self_upgrade();
            }
            Err(refused) => {
                self.refuse_self_upgrade(&asked(params.binary.clone().unwrap_or_default()), &refused);
            }
        }
    }

    /// Goes on with it as far as it can.
    pub(super) fn advance_self_upgrade(&mut self) {
        let Some(mut under_way) = self.self_upgrade.under_way.take() else { return };
        if !self.server.has(under_way.asked.client) {
            let text = "self-upgrade: given up, since the command that asked for it has ended; nothing was changed";
            return self.output.say("self_upgrade", &self.name, text, json!({}));
        }
        match self.step(&mut under_way) {
            Ok(()) => self.self_upgrade.under_way = Some(under_way),
            Err(refused) => self.refuse_self_upgrade(&under_way.asked, &refused),
        }
    }

    fn step(&mut self, under_way: &mut UnderWay) -> Result<(), Refused> {
        if let Stage::Preflight { task, .. } = &mut under_way.stage {
            let turn = task.turn();
            let Some(end) = turn.end else { return Ok(()) };
            judge(&end, &under_way.asked.binary)?;
            under_way.stage = Stage::Passed;
        }
        if !self.is_still(under_way)? {
            return Ok(());
        }
        match under_way.stage {
            Stage::Passed if !is_unchanged(&under_way.file, &under_way.found) => {
                let binary = under_way.asked.binary.display();
                Err(refused(format!("{binary} was written to meanwhile; replace a program by a rename")))
            }
            Stage::Passed => Err(self.execute(under_way)),
            _ => self.begin_preflight(under_way),
        }
    }

    /// Whether all that runs can be taken along as it is now.
    fn is_still(&self, under_way: &UnderWay) -> Result<bool, Refused> {
        if self.fleet.is_ending() {
            return Err(refused("the supervisor is being stopped"));
        }
        let transaction = self.fleet.transaction();
        match transaction {
            None if !self.fleet.has_news() && self.is_told() => Ok(true),
            None if monotonic_ns() >= under_way.until_ns => {
                Err(Refused { result: "timed_out", reason: "busy: events come without end".to_owned() })
            }
            None => Ok(false),
            Some((what, passes)) if !passes => Err(refused(format!("busy: {what}"))),
            Some((what, _)) if monotonic_ns() >= under_way.until_ns => {
                Err(Refused { result: "timed_out", reason: format!("busy: {what}") })
            }
            Some(_) => Ok(false),
        }
    }

    fn begin_preflight(&mut self, under_way: &mut UnderWay) -> Result<(), Refused> {
        let sealed = self.seal(&under_way.asked)?;
        check_room(&sealed)?;
        let own = std::process::id();
        let link = |fd: BorrowedFd<'_>| format!("/proc/{own}/fd/{}", fd.as_raw_fd()).into();
        let argv = vec![link(under_way.file.as_fd()), PREFLIGHT.into(), link(sealed.fd.as_fd())];
        // If memory ends while it runs, it is the one that the kernel ends.
        let context =
            ExecContext { oom_score_adj: Some(OOM_SCORE_ADJ_MAX), limits: own_nofile(), ..ExecContext::default() };
        let spec = TaskSpec { argv, context, ..TaskSpec::default() };
        let task = Task::start(&spec, PREFLIGHT_TIMEOUT)
            .map_err(|error| refused(in_its_name(&error.to_string(), &under_way.file, &under_way.asked.binary)))?;
        under_way.stage = Stage::Preflight { task: Box::new(task), _state: sealed };
        Ok(())
    }

    fn seal(&mut self, asked: &Asked) -> Result<Sealed, Refused> {
        self.self_upgrade.request = Some(asked.clone());
        let sealed = state::seal(self);
        self.self_upgrade.request = None;
        sealed.map_err(|error| refused(format!("the state can not be written down: {error}")))
    }

    /// It returns only if that was not possible.
    fn execute(&mut self, under_way: &mut UnderWay) -> Refused {
        under_way.asked.stopped_ns = monotonic_ns();
        let (sealed, old) = match (self.seal(&under_way.asked), own_file()) {
            (Ok(sealed), Ok(old)) => (sealed, old),
            (Err(refused), _) => return refused,
            (_, Err(error)) => return refused(format!("this program can not be kept as the way back: {error}")),
        };
        if let Err(refused) = check_room(&sealed) {
            return refused;
        }
        let mut kept = sealed.kept.clone();
        kept.extend([sealed.fd.as_raw_fd(), old.as_raw_fd()]);
        let place = format!("{} {} {}", std::process::id(), sealed.fd.as_raw_fd(), old.as_raw_fd());
        let program = Program::new(&under_way.file, &[(RESTORE, Some(place.into())), (RESTORE_FAILED, None)]);
        begin_time(RESTORE_TIMEOUT);
        let error = program.execute(&kept);
        end_time();
        refused(format!("cannot execute {}: {error}", under_way.asked.binary.display()))
    }

    fn refuse_self_upgrade(&mut self, asked: &Asked, refused: &Refused) {
        let Refused { result, reason } = refused;
        let outcome = json!({
            "result": result,
            "reason": reason,
            "binary": asked.binary,
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "from_version": asked.from_version,
            "pause_ns": 0,
            "total_ns": monotonic_ns().saturating_sub(asked.since_ns),
        });
        self.output.say("self_upgrade", &self.name, &self_upgrade_line(&outcome), outcome.clone());
        self.server.answer(asked.client, &asked.id, Ok(outcome));
    }

    /// This is the next program; or the one before, if `failed` says why.
    pub fn end_self_upgrade(&mut self, failed: Option<&str>) {
        let Some(asked) = self.self_upgrade.request.take() else { return };
        self.self_upgrade.count += u64::from(failed.is_none());
        asked.soft_nofile.into_iter().for_each(set_soft_nofile_before);
        let now_ns = monotonic_ns();
        let pause_ns = now_ns.saturating_sub(asked.stopped_ns);
        let version = env!("CARGO_PKG_VERSION");
        let outcome = json!({
            "result": if failed.is_some() { "rolled_back" } else { "committed" },
            "reason": failed.unwrap_or_default(),
            "binary": asked.binary,
            "pid": std::process::id(),
            "version": version,
            "from_version": asked.from_version,
            "pause_ns": pause_ns,
            "total_ns": now_ns.saturating_sub(asked.since_ns),
            "time_ms": now_ms(),
        });
        self.self_upgrade.last = Some(outcome.clone());
        let text = self_upgrade_line(&outcome);
        self.output.say("self_upgrade", &self.name, &text, outcome.clone());
        self.server.answer(asked.client, &asked.id, Ok(outcome));
    }
}

/// The next program works with a duplicate of each descriptor, and so does this one if it must go on.
fn check_room(sealed: &Sealed) -> Result<(), Refused> {
    let needed = sealed.kept.len() as u64 * 2 + RESTORE_ROOM;
    let room = raise_nofile().map_or_else(|_| soft_nofile().unwrap_or(0), |(_, soft)| soft);
    if room < needed {
        let pid = std::process::id();
        return Err(refused(format!(
            "RLIMIT_NOFILE of the supervisor is {room}, and the program that goes on needs {needed} descriptors; raise it: \
             prlimit --pid {pid} --nofile=65536"
        )));
    }
    Ok(())
}

/// It opens as many descriptors as we have.
fn own_nofile() -> Vec<Limit> {
    let limits = Resource::named("nofile").zip(soft_nofile().ok().zip(hard_nofile().ok()));
    let limit = limits.map(|(resource, (soft, hard))| Limit { resource, soft: Some(soft), hard: Some(hard) });
    limit.into_iter().collect()
}

/// What the path of this program leads to now.
fn own_path() -> io::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe")?;
    let text = path.to_string_lossy();
    // As proc(5) shows a file that was replaced by another one.
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}

fn open(binary: &Path) -> Result<(File, Metadata), Refused> {
    let fails = |what: String| refused(format!("cannot execute {}: {what}", binary.display()));
    find_program(binary.as_os_str()).map_err(|error| refused(format!("cannot execute: {error}")))?;
    check_format(binary).map_err(fails)?;
    let file = File::open(binary).map_err(|error| fails(error.to_string()))?;
    let found = file.metadata().map_err(|error| fails(error.to_string()))?;
    Ok((file, found))
}

/// Whether it has said that it can go on.
fn judge(end: &TaskEnd, binary: &Path) -> Result<(), Refused> {
    let binary = binary.display();
    match end.last_lines.lines().last() {
        _ if end.late => {
            let seconds = PREFLIGHT_TIMEOUT.as_secs();
            Err(refused(format!("{binary} has not said within {seconds} s that it can go on: {end}")))
        }
        _ if !end.success() => Err(refused(format!("{binary} can not go on from here: {end}"))),
        Some(PREFLIGHT_PASSED) => Ok(()),
        _ => Err(refused(format!("{binary} does not answer as handoff does: {end}"))),
    }
}

/// A text that names the file by our descriptor.
fn in_its_name(text: &str, file: &File, binary: &Path) -> String {
    let link = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    text.replace(&link, &binary.to_string_lossy())
}

/// Each program takes signals by itself; those that came meanwhile wait, since they stay blocked.
pub(super) mod signals {
    use handoff::service::signals::Signals;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(_: &Signals, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Signals, D::Error> {
        <()>::deserialize(deserializer)?;
        Signals::take(&super::super::SIGNALS).map_err(de::Error::custom)
    }
}
