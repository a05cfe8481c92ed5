//! A short command with a time limit, which nobody waits for.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::pipe2;

use crate::error::{Error, Result};
use crate::limits::{DEATH_AFTER_END, DYING_LOOK, OUTPUT_LAST_READS_MAX, REASON_BYTES_MAX, REASON_LINES_MAX};
use crate::supervisor::{Dying, ExecContext, ExitStatus, Lineage, Tree, environment};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::descendants::claim;
use crate::sys::inherit::is_restoring;
use crate::sys::pidfd::Pidfd;
use crate::sys::session::end_members;
use crate::sys::spawn::{Spawn, find_program, spawn};

/// Bytes that one read takes: as much as a pipe holds.
const READ_BYTES: usize = 64 * 1024;

/// What a task executes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskSpec {
    /// The program, which is searched in `PATH`, and its arguments.
    pub argv: Vec<OsString>,
    /// Variables beside ours, and beside those of `context`. What comes later wins.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory; none: ours.
    pub dir: Option<PathBuf>,
    /// As whom.
    pub context: ExecContext,
}

/// A command that runs, as the leader of a session of its own, with nothing to read. It is ended when it is late, and whatever
/// it has left in its session ends with it. Dropped, it is killed.
///
/// Poll its descriptor for reading, and call [`Self::turn`] then, and at [`Self::due_ns`].
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Task {
    pid: i32,
    pidfd: Pidfd,
    /// What it writes to standard output and error; none when that is over.
    #[serde(with = "crate::sys::inherit::optional_fd")]
    output: Option<File>,
    #[serde(with = "crate::sys::inherit::bytes")]
    tail: Vec<u8>,
    /// In absolute `CLOCK_MONOTONIC` nanoseconds; none when it was killed.
    due_ns: Option<u64>,
    late: bool,
    tree: Option<Tree>,
    /// It has ended, and what it left is ending.
    dying: Option<(TaskEnd, Dying)>,
    ended: bool,
    #[serde(with = "crate::sys::inherit::epoll")]
    epoll: Epoll,
}

/// What a task has done since the last look.
#[derive(Debug, Default)]
pub struct Turn {
    /// What it wrote.
    pub output: Vec<u8>,
    /// It is over. This comes once.
    pub end: Option<TaskEnd>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TaskEnd {
    /// None if the kernel does not tell.
    pub status: Option<ExitStatus>,
    /// It was killed, since its time was over.
    pub late: bool,
    /// The last lines that it wrote.
    pub last_lines: String,
}

impl TaskEnd {
    /// It ended by itself, with status 0.
    pub fn success(&self) -> bool {
        !self.late && self.status.is_some_and(|status| status.code == Some(0))
    }
}

impl std::fmt::Display for TaskEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.late, self.status) {
            (true, _) => f.write_str("killed, since its time was over")?,
            (false, Some(status)) => write!(f, "{status}")?,
            (false, None) => f.write_str("unknown exit status")?,
        }
        match self.last_lines.is_empty() {
            true => Ok(()),
            false => write!(f, "; its last output: {}", self.last_lines),
        }
    }
}

impl Task {
    /// Starts it; it is killed after `limit`.
    ///
    /// # Errors
    /// [`Error::Invalid`]: there is no such user or group, a variable is wrong, or the program can not be executed.
    /// [`Error::System`]: there is no such program, or a file can not be read.
    pub fn start(spec: &TaskSpec, limit: Duration) -> Result<Self> {
        Self::start_of(spec, limit, &Lineage::default())
    }

    /// The same for a service, whose next supervisor ends it if this one can not.
    ///
    /// # Errors
    /// The same.
    pub(super) fn start_of(spec: &TaskSpec, limit: Duration, service: &Lineage) -> Result<Self> {
        let name = spec.argv.first().ok_or_else(|| Error::Invalid("no program: the command is empty".into()))?;
        let program = find_program(name).map_err(Error::system("cannot execute"))?;
        let resolved = spec.context.resolve()?;
        let mut env = environment(resolved.env.iter().chain(&spec.env), |_| false);
        let tree = Tree::of_task(monotonic_ns(), service);
        tree.mark(&mut env);
        let cgroup = tree.cgroup();
        let failed = |what: &'static str| move |errno: nix::Error| Error::system(what)(errno.into());
        let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(failed("cannot make a pipe"))?;
        // Only our end: the command's own reads and writes wait, as programs expect.
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed("cannot make a pipe"))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("cannot make an epoll"))?;
        let request = Spawn {
            env: &env,
            dir: spec.dir.as_deref(),
            stdout: Some(write.as_fd()),
            stderr: Some(write.as_fd()),
            new_session: true,
            attributes: &resolved.attributes,
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            ..Spawn::new(&program, &spec.argv)
        };
        let child = match spawn(&request) {
            Ok(child) => child,
            Err(error) => {
                tree.discard();
                return Err(Error::Invalid(error.to_string()));
            }
        };
        let due_ns = Some(monotonic_ns().saturating_add(nanoseconds(limit)));
        let task = Self {
            pid: child.pid,
            pidfd: child.pidfd,
            output: Some(File::from(read)),
            tail: Vec::new(),
            due_ns,
            late: false,
            tree: Some(tree),
            dying: None,
            ended: false,
            epoll,
        };
        task.watch().map_err(failed("cannot watch a command"))?; // dropped, it is killed
        Ok(task)
    }

    fn watch(&self) -> nix::Result<()> {
        let readable = || EpollEvent::new(EpollFlags::EPOLLIN, 0);
        if !self.ended && self.dying.is_none() {
            self.epoll.add(&self.pidfd, readable())?;
        }
        self.output.iter().try_for_each(|pipe| self.epoll.add(pipe, readable()))
    }

    /// It was read from what another program of this process has left.
    pub(super) fn watch_again(&self) -> Result<()> {
        claim(self.pid);
        self.watch().map_err(|errno| Error::system("cannot watch a command")(errno.into()))
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// When [`Self::turn`] must be called at the latest, in absolute `CLOCK_MONOTONIC` nanoseconds.
    pub fn due_ns(&self) -> Option<u64> {
        self.due_ns.filter(|_| !self.ended)
    }

    /// Ends it at once; what follows is its end.
    pub fn kill(&mut self) {
        self.due_ns = None;
        let _ = self.pidfd.kill(Signal::SIGKILL); // it may just have ended
    }

    /// Deals with what happened, without waiting.
    pub fn turn(&mut self) -> Turn {
        if self.ended {
            return Turn::default();
        }
        if self.dying.is_some() {
            return Turn { output: Vec::new(), end: self.last() };
        }
        if self.due_ns.is_some_and(|due| monotonic_ns() >= due) && !self.pidfd.is_dead() {
            self.late = true;
            self.kill();
        }
        let is_over = self.pidfd.is_dead();
        let mut output = Vec::new();
        // A child that it leaves behind may write for ever.
        let reads = if is_over { OUTPUT_LAST_READS_MAX } else { 1 };
        for _ in 0..reads {
            if !self.read(&mut output) {
                break;
            }
        }
        if is_over {
            self.finish();
        }
        Turn { output, end: self.last() }
    }

    /// Reads what is there; false if that is all.
    fn read(&mut self, bytes: &mut Vec<u8>) -> bool {
        let Some(pipe) = &mut self.output else { return false };
        let mut part = vec![0; READ_BYTES];
        let (len, is_open) = match pipe.read(&mut part) {
            Ok(len) => (len, len > 0),
            Err(error) => (0, error.kind() == std::io::ErrorKind::WouldBlock),
        };
        if !is_open {
            let _ = self.epoll.delete(&*pipe);
            self.output = None;
        }
        let part = &part[..len];
        bytes.extend_from_slice(part);
        self.tail.extend_from_slice(part);
        self.tail.drain(..self.tail.len().saturating_sub(REASON_BYTES_MAX));
        len > 0
    }

    /// Its process is dead.
    fn finish(&mut self) {
        let _ = self.epoll.delete(&self.pidfd);
        if let Some(pipe) = self.output.take() {
            let _ = self.epoll.delete(&pipe);
        }
        // While it is a zombie, the number of its session is its own.
        end_members(self.pid);
        let dying = self.tree.take().map(|tree| tree.end(self.pid, true));
        let status = self.pidfd.wait().ok().flatten();
        let text = String::from_utf8_lossy(&self.tail);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let last_lines = lines[lines.len().saturating_sub(REASON_LINES_MAX)..].join("\n");
        self.due_ns = Some(0);
        self.dying = dying.map(|dying| (TaskEnd { status, late: self.late, last_lines }, dying));
    }

    /// Its end, when what it left is gone.
    fn last(&mut self) -> Option<TaskEnd> {
        let (_, dying) = self.dying.as_mut()?;
        if !dying.is_over() {
            self.due_ns = Some(monotonic_ns() + nanoseconds(DYING_LOOK));
            return None;
        }
        self.ended = true;
        self.dying.take().map(|(end, _)| end)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !is_restoring() && !self.ended && self.dying.is_none() {
            self.kill();
            self.pidfd.await_death(DEATH_AFTER_END);
            self.finish();
        }
    }
}

impl AsFd for Task {
    /// Readable when [`Task::turn`] has work.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

#[cfg(test)]
mod tests;
