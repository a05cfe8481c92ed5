//! Taking over what another supervisor has left, and a daemon whose session was cut.

use super::attempt::Attempt;
use super::engine::{Due, Engine};
use super::executable::Executable;
use super::journal::{Entry, Identity, OpenHandoff, Retired};
use super::output::Output;
use super::process::Process;
use super::rendezvous::Rendezvous;
use super::spec::SpawnSpec;
use super::trace;
use super::unlinked::UNLINKED;
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::limits::{
    ADOPT_RETRY_FIRST, ADOPT_RETRY_MAX, DEATH_AFTER_END, RESUME_LOOK, RESUME_TIMEOUT, RESUME_UNREACHED,
    RESUME_WITHOUT_PATH,
};
use crate::protocol::HandoffId;
use crate::protocol::message::AdoptAck;
use crate::protocol::supervisor::{Input, Past, PastHandoff, Peer, Phase};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::fork::Withheld;
use crate::sys::lock::{holders, read_record};
use crate::sys::page::DecisionPage;
use crate::sys::pidfd::Pidfd;
use crate::sys::seqpacket::{Credentials, Seqpacket};
use crate::sys::session::{end_some_members, session_of};
use nix::fcntl::OFlag;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What is known of an adoption that is under way.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Adoption {
    /// Attempts to connect that failed, one after the other.
    failures: u32,
    /// Why the last one did.
    pub(super) trouble: String,
    /// It was found in the midst of a handoff that no journal tells of.
    may_leave: bool,
    /// How the daemon was found.
    pub(super) found: Found,
    /// The listeners of the daemon, until they are all there; None if nobody wants them.
    #[serde(skip)]
    pub(super) gathered: Option<Gathered>,
    /// Those that leave have listeners that can not be taken from them.
    pub(super) occupied: bool,
    /// What the journal says, as it was read or has been written since. None: there was none.
    #[serde(skip)]
    pub(super) entry: Option<Box<Entry>>,
    /// The daemon is a reserve whose successor has committed and died.
    pub(super) reserve: bool,
    /// It was killed.
    pub(super) ended: bool,
    /// The daemon has given a sign that it is ready, although it has no session.
    #[serde(default)]
    pub(super) ready: bool,
}

/// What says that a process is a daemon of this service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Found {
    /// The journal.
    #[default]
    Journal,
    /// It listens at the control path.
    ControlPath,
    /// It holds the gate of the data.
    Gate,
}

#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// How many there are, once the daemon has said so.
    pub(super) count: Option<usize>,
    pub(super) listeners: Vec<(String, OwnedFd)>,
}

/// How far a supervisor is that goes on where another one stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resumption {
    /// The open handoff is being ended, or the daemon does not answer yet.
    Waiting,
    /// The daemon has a session, and its listeners are here.
    Adopted,
    /// No process of the service is left.
    Nobody,
    /// A daemon lives, and will not be adopted.
    Estranged,
}

impl Gathered {
    fn is_complete(&self) -> bool {
        self.count.is_some_and(|count| count <= self.listeners.len())
    }
}

impl Engine {
    // ---- a living incumbent gets a new session

    /// Carries out `Adopt`. One that fails is tried again.
    pub(super) fn adopt(&mut self) {
        let Err(why) = self.try_adopt() else {
            self.adoption.failures = 0;
            return;
        };
        let delay = ADOPT_RETRY_FIRST.saturating_mul(1 << self.adoption.failures.min(10)).min(ADOPT_RETRY_MAX);
        self.adoption.failures += 1;
        self.adoption.trouble = why;
        self.timers.arm(Due::Adopt, monotonic_ns() + nanoseconds(delay));
    }

    fn try_adopt(&mut self) -> std::result::Result<(), String> {
        let seeks = self.machine.seeks();
        let Some(process) = self.processes.incumbent.as_mut().filter(|process| seeks && process.session.is_none())
        else {
            return Ok(()); // it is over
        };
        let Some(path) = process.spec.control_path.clone() else { return Ok(()) };
        let socket = Seqpacket::connect(&path).map_err(|error| error.to_string())?;
        let peer = socket.peer_credentials().map_err(|error| error.to_string())?;
        if peer.pid != process.pid {
            return Err(format!("process {} listens at {}", peer.pid, path.display()));
        }
        process.session = Some(Withheld::new(Channel::new(socket)));
        process.end_is_news = false;
        process.watch_session(&self.epoll).map_err(|errno| format!("cannot watch the session: {errno}"))
    }

    /// An incumbent that is being adopted has answered. What comes with it is for the driver.
    pub(super) fn take_over(&mut self, ack: &AdoptAck, sender: Option<Credentials>) -> std::result::Result<(), String> {
        let Some(process) = &mut self.processes.incumbent else { return Ok(()) };
        // It said this after its pidfd was opened, so that is its own.
        if sender.is_none_or(|sender| sender.pid != process.pid) {
            return Err(format!("AdoptAck came from another process than {}", process.pid));
        }
        if process.generation == 0 {
            process.generation = ack.generation;
        }
        if let Some(gathered) = &mut self.adoption.gathered {
            *gathered = Gathered { count: Some(usize::from(ack.listeners)), listeners: Vec::new() };
        }
        // No journal tells of its handoff, which it ends alone: by serving again, or by leaving the service to another.
        self.adoption.may_leave = ack.phase != AdoptAck::SERVING && self.rendezvous.is_none();
        Ok(())
    }

    /// An incumbent that was adopted in the midst of a handoff has died: its successor serves, if it committed.
    pub(super) fn search_again(&mut self) {
        let (true, Some(spec)) = (std::mem::take(&mut self.adoption.may_leave), self.serving_spec.clone()) else {
            return;
        };
        let Some((pid, pidfd)) = self.search(&spec) else { return };
        match self.admit_incumbent(pid, pidfd, spec, 0) {
            Ok(()) => self.feed(Input::Resume(Past { generation: 0, incumbent_lives: true, handoff: None })),
            Err(error) => trace::trouble(&self.service, Some(pid), &error.to_string()),
        }
    }

    /// Listeners of an incumbent that is being adopted.
    pub(super) fn gather(&mut self, names: &[String], fds: Vec<OwnedFd>) -> std::result::Result<(), String> {
        if names.len() != fds.len() {
            return Err(Error::no_room("its listeners", "this process").to_string());
        }
        if let Some(gathered) = &mut self.adoption.gathered {
            gathered.listeners.extend(names.iter().cloned().zip(fds));
        }
        Ok(())
    }

    // ---- another supervisor is gone

    /// Begins to go on where it stopped.
    pub(super) fn begin_resume(&mut self, spec: &SpawnSpec, last: u64) -> Result<()> {
        if self.machine.generation() != 0 || self.processes.incumbent.is_some() {
            return Err(Error::State("resuming is the first thing that a supervisor does".into()));
        }
        self.service = self.name_for(spec);
        self.adoption.entry = self.read_journal().map(Box::new);
        let entry = self.last_entry();
        #[cfg(feature = "program")]
        self.trees.inherit(&entry);
        if UNLINKED && entry.unlinked && self.resume_unlinked(&entry, spec)? {
            return Ok(());
        }
        let page = entry.handoff.as_ref().and_then(|open| self.find_page(open));
        let successor = entry.handoff.as_ref().and_then(|open| open.successor.open());
        // Without the page nobody can tell whether N has committed: if so, it is found where an incumbent is.
        let incumbent = self.find_incumbent(&entry, successor.is_some() && page.is_some(), spec);
        let is_incumbent = |open: &&OpenHandoff| incumbent.as_ref().is_some_and(|(pid, _)| *pid == open.successor.pid);
        let heir = entry.handoff.as_ref().filter(is_incumbent);
        let generation = entry.generation + u64::from(heir.is_some());
        self.adoption.gathered = Some(Gathered::default());
        self.resuming = true;
        let spec = Arc::new(spec.clone());
        let id = entry.handoff.as_ref().filter(|_| page.is_some()).map_or(0, |open| open.id);
        self.attempt = Some(Attempt::new(id, spec.clone(), monotonic_ns()));
        let incumbent_lives = incumbent.is_some();
        if let Some((pid, pidfd)) = incumbent {
            let program = heir.map_or_else(|| entry.program_of(&spec), |open| open.program_of(&spec));
            self.admit_incumbent(pid, pidfd, program, generation)?;
            if UNLINKED && entry.handoff.is_none() && self.adoption.found == Found::Journal {
                self.await_sign_again(&entry);
            }
        }
        for retired in &entry.leaving {
            match UNLINKED && entry.unlinked {
                true => self.admit_drained(*retired, &spec),
                false => self.admit_leaving(*retired, &spec),
            }
        }
        if !incumbent_lives && successor.is_none() {
            let pids: Vec<i32> = self.processes.leaving.iter().map(|leaving| leaving.process.pid).collect();
            self.take_from(&pids, &entry.listeners);
        }
        self.note_reserve(&entry, page.as_ref());
        let handoff = entry.handoff.zip(page).map(|(open, page)| {
            let incumbent = self.processes.incumbent.as_ref().and_then(|process| process.pidfd.try_clone().ok());
            self.rendezvous = Some(Rendezvous::found(page, Some(open.page.clone()), incumbent));
            let successor_lives = successor.is_some();
            if let Some(pidfd) = successor {
                self.admit_successor(open.successor.pid, pidfd, open.program_of(&spec), entry.generation + 1);
            }
            PastHandoff { id: HandoffId(open.id), successor_lives, park_ns: open.park_ns }
        });
        self.last_id = id;
        let generation = if incumbent_lives || handoff.is_some() { generation } else { generation.max(last) };
        self.feed(Input::Resume(Past { generation, incumbent_lives, handoff }));
        Ok(())
    }

    /// The daemon of this journal, if it lives; or else whoever serves instead. What the dead have left is cleaned up before
    /// the search, or it would be found in their place.
    fn find_incumbent(&mut self, entry: &Entry, successor: bool, spec: &SpawnSpec) -> Option<(i32, Pidfd)> {
        let incumbent = entry.incumbent.and_then(Identity::open);
        let named = entry.handoff.as_ref().map(|open| open.successor);
        let dead = [entry.incumbent.filter(|_| incumbent.is_none()), named.filter(|named| named.open().is_none())];
        dead.into_iter().flatten().for_each(|dead| clean_up_after(dead.pid, spec));
        match (entry.incumbent, incumbent) {
            (Some(Identity { pid, .. }), Some(pidfd)) => Some((pid, pidfd)),
            _ if successor => None,
            // Whoever has retired may still hold the gate.
            _ => self.search(spec).filter(|(pid, _)| entry.leaving.iter().all(|retired| retired.identity.pid != *pid)),
        }
    }

    /// Without a journal, whoever listens at the control path tells what there is; or will soon: a daemon makes a path anew
    /// that was removed.
    fn search(&mut self, spec: &SpawnSpec) -> Option<(i32, Pidfd)> {
        let (found, pid) = match living_owner(spec) {
            Some(pid) => (Found::ControlPath, pid),
            None => (Found::Gate, holder(spec)?),
        };
        self.adoption.found = found;
        Some((pid, Pidfd::open(pid).ok()?))
    }

    /// For how much longer to wait for the daemon, as it stands; None: not at all.
    pub(super) fn patience(&self, waited: Duration) -> Option<Duration> {
        if self.is_kept_out() {
            return Some(RESUME_LOOK); // their ends are seen to
        }
        let hello_timeout = self.attempt.as_ref().map_or(RESUME_UNREACHED, |attempt| attempt.spec.hello_timeout);
        let first = match self.adoption.found {
            Found::Journal => hello_timeout, // it may still be on its way to its Hello
            Found::ControlPath => RESUME_UNREACHED,
            Found::Gate => RESUME_WITHOUT_PATH,
        };
        if self.adoption.ready && !self.is_linked() {
            return None;
        }
        let left = first.checked_sub(waited);
        // Only now: who holds the gate is a search through all processes.
        let more = || self.adoption.found == Found::Journal && self.is_linked();
        left.or_else(|| RESUME_TIMEOUT.checked_sub(waited).filter(|_| more()))
    }

    /// What is being adopted is a daemon that links the library, or a handoff that is being ended, or a reserve that was killed.
    pub(super) fn is_linked(&self) -> bool {
        let linked = |process: &Process| process.session.is_some() || holder(&process.spec) == Some(process.pid);
        let ends = self.machine.phase() != Phase::Idle || self.adoption.ended;
        ends || self.processes.incumbent.as_ref().is_some_and(linked)
    }

    /// It is no daemon of this service, or can not be told from one that is not: the gate keeps a second one out.
    pub(super) fn forget_incumbent(&mut self) {
        if let Some(mut process) = self.processes.incumbent.take() {
            process.unwatch(&self.epoll);
            self.feed(Input::Died(Peer::Incumbent, String::new()));
        }
    }

    /// A journal that can not be read is as good as none: the control path is still there.
    fn read_journal(&self) -> Option<Entry> {
        let read = self.journal.as_ref().map_or(Ok(None), |journal| journal.read());
        read.unwrap_or_else(|error| {
            trace::trouble(&self.service, None, &format!("{error}; going on without it"));
            None
        })
    }

    /// What it says, also if somebody has removed it since it was read.
    pub(super) fn last_entry(&self) -> Entry {
        self.adoption.entry.as_deref().cloned().unwrap_or_default()
    }

    /// None if the page is gone, or another file is in its place: whoever still has it decides alone.
    fn find_page(&self, open: &OpenHandoff) -> Option<DecisionPage> {
        match map_page(&open.page) {
            Ok(page) => Some(page).filter(|page| page.id() == open.id),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let text = format!("{}: {error}; going on without it", open.page.display());
                    trace::trouble(&self.service, None, &text);
                }
                None
            }
        }
    }

    pub(super) fn admit_incumbent(
        &mut self,
        pid: i32,
        pidfd: Pidfd,
        spec: Arc<SpawnSpec>,
        generation: u64,
    ) -> Result<()> {
        let output = self.output_of(pid, &spec);
        let process = self.found(pid, pidfd, spec.clone(), generation, output);
        let process = self.processes.incumbent.insert(process);
        process.watch(&self.epoll).map_err(|errno| Error::system("cannot watch the daemon")(errno.into()))?;
        self.serving_spec = Some(spec);
        Ok(())
    }

    /// It has retired, but has not exited.
    fn admit_leaving(&mut self, retired: Retired, spec: &Arc<SpawnSpec>) {
        let Retired { identity, generation, term } = retired;
        let Some(pidfd) = identity.open() else { return };
        let output = self.output_of(identity.pid, spec);
        let process = self.found(identity.pid, pidfd, spec.clone(), generation, output);
        match process.watch(&self.epoll) {
            Ok(()) => self.leave(process, term),
            Err(errno) => trace::trouble(&self.service, Some(identity.pid), &format!("cannot watch it: {errno}")),
        }
    }

    pub(super) fn admit_successor(&mut self, pid: i32, pidfd: Pidfd, spec: Arc<SpawnSpec>, generation: u64) {
        let output = self.output_of(pid, &spec);
        let process = self.found(pid, pidfd, spec, generation, output);
        let process = self.processes.successor.insert(process);
        if let Err(errno) = process.watch(&self.epoll) {
            trace::trouble(&self.service, Some(pid), &format!("cannot watch the successor: {errno}"));
        }
    }

    pub(super) fn found(
        &mut self,
        pid: i32,
        pidfd: Pidfd,
        spec: Arc<SpawnSpec>,
        generation: u64,
        output: Option<Output>,
    ) -> Process {
        let key = self.next_key;
        self.next_key += 1;
        let identity = Identity::of(pid);
        let leader = session_of(pid).unwrap_or(pid);
        let executable = executable_of(pid, &spec);
        #[cfg(feature = "program")]
        let tree = super::tree::Tree::of_adopted(pid, &pidfd, &spec);
        Process {
            generation,
            identity,
            output,
            leader,
            executable,
            #[cfg(feature = "program")]
            tree,
            ..Process::new(key, pid, pidfd, spec)
        }
    }

    pub(super) fn resumption(&self) -> Resumption {
        let Some(gathered) = self.adoption.gathered.as_ref().filter(|_| self.resuming) else {
            return Resumption::Nobody;
        };
        let incumbent = self.processes.incumbent.as_ref();
        let unreachable = incumbent.is_some_and(|process| process.spec.control_path.is_none());
        let nobody = self.processes.incumbent.is_none() && self.processes.successor.is_none();
        match self.machine.phase() {
            _ if self.unlinked.serves => Resumption::Adopted,
            Phase::Idle if self.is_kept_out() => Resumption::Waiting,
            Phase::Idle if nobody => Resumption::Nobody,
            _ if self.machine.incumbent_is_estranged() || unreachable => Resumption::Estranged,
            _ if self.machine.incumbent_is_linked() && gathered.is_complete() => Resumption::Adopted,
            _ => Resumption::Waiting,
        }
    }

    /// From here on this supervisor is as any other, with the listeners of the daemon that it adopted.
    pub(super) fn end_resume(&mut self) -> Result<()> {
        self.resuming = false;
        self.adoption.entry = None;
        let gathered = self.adoption.gathered.take().map(|gathered| gathered.listeners).unwrap_or_default();
        self.listeners.add_groups(gathered)?; // before the journal, which tells of them
        self.sweep();
        // Else the first start does.
        match self.processes.incumbent.as_ref().map(|process| process.pid) {
            Some(pid) => {
                if let Err(error) = self.bind_notify(uid_of(pid)) {
                    trace::trouble(&self.service, None, &error.to_string());
                }
            }
            None => self.unlinked.notify.remove_left(),
        }
        if self.rendezvous.is_none()
            && self.processes.incumbent.is_some()
            && let Err(error) = self.write_journal(None)
        {
            trace::trouble(&self.service, None, &error.to_string());
        }
        Ok(())
    }

    /// Whether somebody has removed the journal of what is being taken over.
    #[cfg(feature = "program")]
    pub(super) fn has_lost_entry(&self) -> bool {
        self.adoption.entry.is_some() && self.journal.as_ref().is_some_and(|journal| !journal.exists())
    }

    /// Puts it back.
    #[cfg(feature = "program")]
    pub(super) fn renew_entry(&self) {
        if let (Some(entry), Some(journal)) = (&self.adoption.entry, &self.journal)
            && let Err(error) = journal.write(&self.service, &self.build_id, entry)
        {
            trace::trouble(&self.service, None, &error.to_string());
        }
    }
}

/// Helpers of a process that died and was reaped, by whomever: they keep the lock from everybody.
pub(super) fn clean_up_after(dead: i32, spec: &SpawnSpec) {
    if let Some(paths) = spec.lock_paths() {
        let holders = [&paths.lock, &paths.gate].into_iter().flat_map(|path| holders(path));
        // The number of the session may be a stranger's by now, but not together with our lock.
        let ended = end_some_members(dead, holders.map(|holder| holder.pid));
        ended.iter().for_each(|process| process.await_death(DEATH_AFTER_END));
    }
}

/// The file of a daemon of another supervisor, if its path still leads to it. Of a script only the interpreter is known.
fn executable_of(pid: i32, spec: &SpawnSpec) -> Option<Executable> {
    let own = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    let executable = Executable::open(&spec.check().ok()?)?;
    let found = executable.file().metadata().ok()?;
    ((own.dev(), own.ino()) == (found.dev(), found.ino())).then_some(executable)
}

fn map_page(path: &Path) -> io::Result<DecisionPage> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    DecisionPage::map(file.into())
}

/// As which user a process runs, if it may be looked at.
pub(super) fn uid_of(pid: i32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|found| found.uid())
}

/// Who listens at the control path. That it is the process of its number shows when it answers, see `take_over`.
fn living_owner(spec: &SpawnSpec) -> Option<i32> {
    let owner = Seqpacket::connect(spec.control_path.as_ref()?).ok()?.peer_credentials().ok()?;
    Some(owner.pid)
}

/// Who holds the gate of the data: rather the daemon that wrote the record than a child of it.
fn holder(spec: &SpawnSpec) -> Option<i32> {
    let paths = spec.lock_paths()?;
    let holders = holders(&paths.gate);
    // In overlap mode the record is in the gate.
    let recorded = [&paths.lock, &paths.gate].map(|path| read_record(path).ok().flatten().map(|record| record.pid));
    let recorded = holders.iter().find(|holder| recorded.contains(&Some(holder.pid)));
    recorded.or(holders.first()).map(|holder| holder.pid)
}
