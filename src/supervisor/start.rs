//! Starting processes.

use super::attempt::Attempt;
use super::engine::Engine;
use super::executable::Executable;
use super::journal::{Entry, Identity, OpenHandoff, Retired};
use super::leaving::Leaving;
use super::process::Process;
use super::rendezvous::Rendezvous;
use super::spec::{Resolved, SpawnSpec, environment};
#[cfg(feature = "program")]
use super::tree::Tree;
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::protocol::message::{Mode, Terms};
use crate::protocol::supervisor::{Input, Peer, Phase, Plan};
use crate::protocol::{Decide, Decision, HandoffId};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::crash;
use crate::sys::env::LISTEN_FDS_START;
use crate::sys::fork::Withheld;
use crate::sys::limits::open_descriptors_of;
use crate::sys::page::Word;
use crate::sys::seqpacket::Seqpacket;
use crate::sys::spawn::{Spawn, SpawnError, spawn};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

impl Engine {
    /// Begins a handoff, or a cold start if no process runs.
    pub(super) fn begin(&mut self, spec: Arc<SpawnSpec>) -> Result<()> {
        match self.machine.phase() {
            Phase::Idle => {}
            Phase::Probation => return Err(Error::Busy("the probation of the last handoff is not over")),
            Phase::Retiring | Phase::Confirming => {
                return Err(Error::Busy("the incumbent of the last handoff has not retired yet"));
            }
            _ => return Err(Error::Busy("a handoff or a start of this service is under way; try again")),
        }
        if self.processes.incumbent.is_none() && !self.waits_for_readiness() {
            return self.begin_cold(spec);
        }
        if spec.ready_sign().is_some() && spec.mode == Mode::Overlap && !self.machine.incumbent_said_hello() {
            return self.begin_unlinked(spec);
        }
        let id = self.new_id();
        let attempt = Attempt::new(id, spec, monotonic_ns());
        // Its listeners the successor has already.
        let listeners = u32::try_from(self.listeners.len()).unwrap_or(u32::MAX);
        let open = |process: &Process| open_descriptors_of(process.pid).saturating_sub(listeners);
        let terms = Terms {
            id: HandoffId(id),
            mode: Mode::Exclusive,
            deadline_ns: attempt.deadline_ns(),
            park_ns: nanoseconds(attempt.spec.park_time()),
            open_descriptors: self.processes.incumbent.as_ref().map_or(0, open),
        };
        let drain_grace_ns = nanoseconds(attempt.spec.drain_grace);
        let on_incumbent_death = attempt.spec.on_incumbent_death;
        self.attempt = Some(attempt);
        self.feed(Input::StartHandoff(Plan { terms, drain_grace_ns, on_incumbent_death }));
        self.wake();
        Ok(())
    }

    pub(super) fn begin_cold(&mut self, spec: Arc<SpawnSpec>) -> Result<()> {
        if self.machine.phase() != Phase::Idle {
            return Err(Error::Busy("a handoff or a start of this service is under way; try again"));
        }
        self.attempt = Some(Attempt::new(0, spec, monotonic_ns()));
        self.feed(Input::StartCold);
        self.wake();
        Ok(())
    }

    /// Later than every id before it.
    pub(super) fn new_id(&mut self) -> u64 {
        self.last_id = monotonic_ns().max(self.last_id + 1);
        self.last_id
    }

    /// Answers `SpawnSuccessor`.
    pub(super) fn spawn_successor(&mut self) -> Input {
        match self.try_successor() {
            Ok(()) => Input::Spawned,
            Err(error) => {
                self.discard_successor();
                Input::SpawnFailed(error.to_string())
            }
        }
    }

    fn try_successor(&mut self) -> Result<()> {
        let (Some(attempt), Some(incumbent)) = (&mut self.attempt, &self.processes.incumbent) else {
            return Err(Error::State("nothing to replace".into()));
        };
        attempt.spawn_ns = monotonic_ns();
        let (id, spec) = (attempt.id, attempt.spec.clone());
        self.service = self.name_for(&spec);
        let page = self.journal.as_ref().map(|journal| journal.dir().join(format!("{}.{id}.page", self.service)));
        self.replaced = incumbent.way_back(&spec);
        let incumbent = &incumbent.pidfd;
        let rendezvous = crash::around('S', format_args!("create page"), || Rendezvous::new(id, page, incumbent))?;
        self.rendezvous = Some(rendezvous);
        let successor = self.launch(&spec, Role::Successor, id)?;
        let generation = self.machine.generation() + 1;
        let successor = self.processes.successor.insert(Process { generation, ..successor });
        successor.watch(&self.epoll).map_err(|errno| Error::system("cannot watch the successor")(errno.into()))?;
        // This while the successor starts.
        if self.journal.is_some() {
            successor.identity = Identity::of(successor.pid);
        }
        let identity = successor.identity;
        self.write_journal(identity)
    }

    /// The successor can not be used, before it was told anything.
    pub(super) fn discard_successor(&mut self) {
        let Some(mut successor) = self.processes.successor.take() else { return };
        if let Some(rendezvous) = &self.rendezvous {
            rendezvous.page.decide(Word::Revoked);
        }
        self.discard(&mut successor);
    }

    /// Nobody will need this process.
    pub(super) fn discard(&mut self, process: &mut Process) {
        process.unwatch(&self.epoll);
        process.kill_and_reap();
        #[cfg(feature = "program")]
        self.end_tree_of_killed(process);
        self.remove_output(process);
    }

    /// Answers `SpawnCold`, if it fails.
    pub(super) fn spawn_cold(&mut self) -> Option<Input> {
        if self.resuming {
            return Some(Input::ColdSpawnFailed("none of its processes is left".into()));
        }
        if self.closing {
            return Some(Input::ColdSpawnFailed("the service is being stopped".into()));
        }
        let error = self.try_cold().err()?;
        if let Some(mut process) = self.processes.incumbent.take() {
            self.discard(&mut process);
        }
        Some(Input::ColdSpawnFailed(error.to_string()))
    }

    fn try_cold(&mut self) -> Result<()> {
        let Some(spec) = self.cold_spec() else { return Err(Error::State("no program to start".into())) };
        self.service = self.name_for(&spec);
        // A journal that can not be written is found before there is a process. It is no reason to leave the clients of a
        // service that has run without one, if there is one that tells of the process before: the lock keeps a second daemon out, too.
        let first = self.serving_spec.is_none() || self.journal.as_ref().is_some_and(|journal| !journal.exists());
        self.write_journal(None).or_else(|error| self.without_journal(first, error))?;
        let id = self.new_id();
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.spawn_ns == 0) {
            attempt.spawn_ns = monotonic_ns();
        }
        let process = self.launch(&spec, Role::Cold, id)?;
        let generation = self.machine.generation();
        let process = self.processes.incumbent.insert(Process { generation, ..process });
        process.watch(&self.epoll).map_err(|errno| Error::system("cannot watch the daemon")(errno.into()))?;
        self.serving_spec = Some(spec);
        if self.journal.is_some() {
            process.identity = Identity::of(process.pid);
        }
        let key = process.key;
        self.write_journal(None).or_else(|error| self.without_journal(first, error))?;
        self.watch_readiness(key)
    }

    fn without_journal(&self, first: bool, error: Error) -> Result<()> {
        if first {
            return Err(error);
        }
        super::trace::trouble(&self.service, None, &error.to_string());
        Ok(())
    }

    /// Which program is started when nobody is left: the incumbent's, unless the data is in the successor's format.
    fn cold_spec(&self) -> Option<Arc<SpawnSpec>> {
        let attempt = self.attempt.as_ref()?;
        let revoke = |rendezvous: &Rendezvous| {
            let swap = || crate::channel::decide(&rendezvous.page, Decide::Revoke);
            crash::around('S', format_args!("revoke before a cold start"), swap)
        };
        match self.rendezvous.as_ref().map(revoke) {
            None | Some(Decision::CommittedIncompatible) => Some(attempt.spec.clone()),
            Some(_) => self.serving_spec.clone(),
        }
    }

    pub(super) fn name_for(&self, spec: &SpawnSpec) -> String {
        let of_journal = || self.journal.as_ref().and_then(|journal| journal.service());
        self.name.clone().or_else(of_journal).unwrap_or_else(|| spec.service())
    }

    /// The same for a handoff of daemons that do not link the library.
    pub(super) fn launch_successor(&mut self, spec: &Arc<SpawnSpec>, id: u64) -> Result<Process> {
        self.launch(spec, Role::Successor, id)
    }

    /// For the journal.
    pub(super) fn identify(&mut self, peer: Peer) {
        if let (Some(process), true) = (self.processes.peer(peer), self.journal.is_some()) {
            process.identity = Identity::of(process.pid);
        }
    }

    /// Starts a process; its generation is for the caller to say.
    fn launch(&mut self, spec: &Arc<SpawnSpec>, role: Role, id: u64) -> Result<Process> {
        let program = spec.check()?;
        let resolved = spec.resolve()?;
        let account = &resolved.attributes.account;
        #[cfg(feature = "program")]
        if let Some(dir) = &spec.own_dir {
            super::context::make_own_dir(dir, account, self.processes.iter().next().is_some())?;
        }
        let executable = spec.executable.clone().or_else(|| Executable::open(&program));
        let (mut output, sinks) = self.create_output(spec, id, account.uid)?;
        let (ours, theirs) = Seqpacket::pair().map_err(Error::system("cannot make a session"))?;
        let (ours, theirs) = (Withheld::new(Channel::new(ours)), Withheld::new(theirs));
        self.bind_notify(account.uid)?;
        self.unlinked.notify.forget_dead();
        let ready = self.pipe_for(spec)?;
        let (given, mut environment) = (self.given(), self.environment(spec, &resolved, role));
        let mut fds: Vec<BorrowedFd<'_>> = given.iter().map(|(_, fd)| fd.as_fd()).collect();
        let ready = ready.as_ref().zip(spec.ready_descriptor());
        let extra = place_ready(&mut fds, ready.map(|(ready, number)| (ready.as_fd(), number)))?;
        #[cfg(feature = "program")]
        let tree = spec.ends_tree.then(|| Tree::new(&format!("{}.{id}", self.service), &self.trees.lineage));
        #[cfg(feature = "program")]
        tree.iter().for_each(|tree| tree.mark(&mut environment));
        #[cfg(feature = "program")]
        let cgroup = tree.as_ref().and_then(Tree::cgroup);
        #[cfg(not(feature = "program"))]
        let cgroup: Option<std::fs::File> = None;
        environment.push(("HANDOFF_SOCK_FD".into(), next_number(&fds).to_string().into()));
        fds.push(theirs.as_fd());
        let request = Spawn {
            program: &program,
            argv: &spec.argv,
            env: &environment,
            dir: spec.dir.as_deref(),
            fds: &fds,
            extra,
            stdin_null: true,
            stdout: sinks.stdout.as_ref().map(AsFd::as_fd),
            stderr: sinks.stderr.as_ref().map(AsFd::as_fd),
            listen_pid: !given.is_empty(),
            new_session: true,
            attributes: &resolved.attributes,
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            // /proc/PID/fd of ours is closed to another user.
            file: spec
                .executable
                .as_ref()
                .filter(|executable| account.uid.is_some() && executable.link() == program)
                .map(|executable| executable.file().as_fd()),
        };
        match crash::around('S', format_args!("spawn {role:?}"), || spawn(&request)) {
            Ok(child) => {
                let key = self.next_key;
                self.next_key += 1;
                // From here on a supervisor that comes after this one finds it.
                output.iter_mut().for_each(|output| output.keep(child.pid, 0));
                Ok(Process {
                    session: Some(ours),
                    output,
                    executable,
                    #[cfg(feature = "program")]
                    tree,
                    ..Process::new(key, child.pid, child.pidfd, spec.clone())
                })
            }
            Err(error) => {
                output.into_iter().for_each(|output| output.remove(self.output_watch.as_ref()));
                #[cfg(feature = "program")]
                tree.into_iter().for_each(Tree::discard);
                Err(self.spawn_failed(error))
            }
        }
    }

    fn spawn_failed(&mut self, error: SpawnError) -> Error {
        if let Some(attempt) = &mut self.attempt {
            attempt.errno = Some(error.errno);
        }
        Error::Invalid(error.to_string())
    }

    /// The descriptors that a process gets by name: the listeners, and what those before it have left here.
    fn given(&self) -> Vec<(&str, BorrowedFd<'_>)> {
        self.listeners.iter().chain(self.unlinked.notify.stored()).collect()
    }

    fn environment(&self, spec: &SpawnSpec, resolved: &Resolved, role: Role) -> Vec<(OsString, OsString)> {
        let notifies = self.unlinked.notify.path().is_some();
        let mut env = environment(resolved.env.iter().chain(&spec.env), |name| notifies && name == "NOTIFY_SOCKET");
        let mut set = |name: &str, value: OsString| env.push((name.into(), value));
        let names: Vec<&str> = self.given().iter().map(|(name, _)| *name).collect();
        if !names.is_empty() {
            set("LISTEN_FDS", names.len().to_string().into());
            set("LISTEN_FDNAMES", names.join(":").into());
        }
        if let Some(path) = self.unlinked.notify.path() {
            set("NOTIFY_SOCKET", path.into());
        }
        if let Some(path) = &spec.control_path {
            set("HANDOFF_CONTROL", path.into());
        }
        if let Some(dir) = &spec.data_dir {
            set("HANDOFF_DATA_DIR", dir.into());
        }
        if role == Role::Successor {
            set("HANDOFF_ROLE", "successor".into());
        }
        env
    }

    /// Writes down what runs; with a successor, that a handoff is open.
    pub(super) fn write_journal(&mut self, successor: Option<Identity>) -> Result<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let incumbent = self.processes.incumbent.as_ref().and_then(|process| process.identity);
        let rendezvous = self.rendezvous.as_mut().zip(successor);
        let handoff = rendezvous.and_then(|(rendezvous, successor)| {
            rendezvous.in_journal = true;
            let page = rendezvous.path.clone()?;
            Some(OpenHandoff {
                id: rendezvous.page.id(),
                page,
                successor,
                program: program_of(&self.processes.successor),
                park_ns: self.machine.park_ns(),
            })
        });
        let program = program_of(&self.processes.incumbent);
        let retired = |Leaving { process, term, .. }: &Leaving| {
            Some(Retired { identity: process.identity?, generation: process.generation, term: *term })
        };
        let leaving = self.processes.leaving.iter().filter_map(retired).collect();
        let former = self.processes.incumbent.iter().flat_map(|process| &process.former);
        let joining = self.processes.successor.as_ref().filter(|_| self.rendezvous.is_none());
        let entry = Entry {
            generation: self.machine.generation(),
            incumbent,
            former: former.filter_map(|former| former.identity).collect(),
            program,
            handoff,
            leaving,
            unlinked: self.unlinked.serves && !self.awaits_sign(),
            joining: joining.and_then(|process| process.identity),
            listeners: match self.resuming {
                true => self.last_entry().listeners, // they are not here yet
                false => self.listeners.inodes(),
            },
            #[cfg(feature = "program")]
            ready_pipe: self.unlinked.ready_pipe(),
            #[cfg(feature = "program")]
            lineage: Some(self.trees.lineage.clone()),
        };
        let write = || journal.write(&self.service, &self.build_id, &entry);
        crash::around('S', format_args!("write {} journal", entry.kind()), write)?;
        if self.resuming {
            self.adoption.entry = Some(Box::new(entry));
        }
        Ok(())
    }
}

/// What the next one of these becomes.
fn next_number(fds: &[BorrowedFd<'_>]) -> RawFd {
    LISTEN_FDS_START + fds.len() as RawFd
}

/// The pipe for readiness comes behind the listeners, or is what has a number beyond them.
fn place_ready<'a>(
    fds: &mut Vec<BorrowedFd<'a>>,
    ready: Option<(BorrowedFd<'a>, RawFd)>,
) -> Result<Option<(BorrowedFd<'a>, RawFd)>> {
    let next = next_number(fds);
    match ready {
        Some((_, number)) if number < next => Err(Error::Invalid(format!(
            "--ready fd={number}: that is a listener's number; the first one that is free is {next}"
        ))),
        Some((ready, number)) if number == next => {
            fds.push(ready);
            Ok(None)
        }
        ready => Ok(ready),
    }
}

/// For a journal: what is executed, if that is not what the service's command says.
fn program_of(process: &Option<Process>) -> Option<PathBuf> {
    process.as_ref().and_then(|process| process.spec.binary.as_deref()).and_then(|path| std::path::absolute(path).ok())
}

/// What a process is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Cold,
    Successor,
}
