//! What runs before a process of a service, and after it.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::ending::Late;
use super::event::{Event, RestartCause};
use super::{Service, State};
use crate::error::Result;
use crate::limits::{DYING_LOOK, START_TIMEOUT};
use crate::service::task::{Task, TaskEnd, TaskSpec};
use crate::supervisor::{ExitStatus, Lineage};
use crate::sys::clock::{monotonic_ns, nanoseconds};

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Moment {
    PreStart,
    PostStop,
}

impl Moment {
    /// The key of its command.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PreStart => "pre_start",
            Self::PostStop => "post_stop",
        }
    }
}

/// The commands around a process, none or one of them under way.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Hooks {
    running: Option<(Moment, Task)>,
}

/// A hook has ended, or could not be started.
#[derive(Debug)]
pub(super) struct HookEnd {
    pub(super) moment: Moment,
    /// Why it has not done what it should.
    pub(super) failure: Option<String>,
}

impl Hooks {
    fn begin(&mut self, moment: Moment, spec: &TaskSpec, limit: Duration, service: &Lineage) -> Result<&Task> {
        let task = Task::start_of(spec, limit, service)?;
        Ok(&self.running.insert((moment, task)).1)
    }

    pub(super) fn running(&self) -> Option<Moment> {
        self.running.as_ref().map(|(moment, _)| *moment)
    }

    /// When [`Self::turn`] must be called at the latest, in `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.running.as_ref().and_then(|(_, task)| task.due_ns())
    }

    /// Ends the one that is under way.
    pub(super) fn kill(&mut self) {
        if let Some((_, task)) = &mut self.running {
            task.kill();
        }
    }

    /// Ends what runs before a process that will not be started.
    pub(super) fn kill_pre_start(&mut self) {
        if self.running() == Some(Moment::PreStart) {
            self.kill();
        }
    }

    /// Its pid, what it wrote, and its end.
    fn turn(&mut self) -> Option<(i32, Vec<u8>, Option<HookEnd>)> {
        let (moment, task) = self.running.as_mut()?;
        let (moment, pid) = (*moment, task.pid());
        let turn = task.turn();
        let failure = |end: &TaskEnd| (!end.success()).then(|| format!("{}: {end}", moment.name()));
        let end = turn.end.map(|end| HookEnd { moment, failure: failure(&end) });
        if end.is_some() {
            self.running = None;
        }
        Some((pid, turn.output, end))
    }
}

impl Service {
    /// Starts its process, when nothing of the one before is left, and `pre_start` has ended well.
    pub(super) fn launch(&mut self) {
        let Some(argv) = self.settings.process.pre_start.clone() else { return self.launch_process() };
        self.enter_starting();
        if let Err(error) = self.begin_hook(Moment::PreStart, &argv, Vec::new()) {
            self.on_end(None, None, RestartCause::Start, format!("pre_start: {error}"));
        }
    }

    /// The same, as soon as it may be.
    pub(super) fn launch_when_clear(&mut self) {
        match self.is_clear() {
            true => self.launch(),
            // The end of a hook is told by its descriptor.
            false => self.state = State::Waiting(monotonic_ns() + nanoseconds(DYING_LOOK)),
        }
    }

    /// Nothing of the process before is left: neither what ends after it, nor what it has left behind, which would be beside the next
    /// one.
    pub(super) fn is_clear(&mut self) -> bool {
        self.hooks.running().is_none() && !self.is_dying()
    }

    /// A process has ended.
    pub(super) fn begin_post_stop(&mut self, pid: i32, status: Option<ExitStatus>) {
        let Some(argv) = self.settings.process.post_stop.clone() else { return };
        let told = cause(pid, status, self.late.as_ref().map(Late::result));
        if let Err(error) = self.begin_hook(Moment::PostStop, &argv, told) {
            self.events.push(Event::Warning(format!("post_stop: {error}")));
        }
    }

    fn begin_hook(&mut self, moment: Moment, argv: &[OsString], more: Vec<(OsString, OsString)>) -> Result<()> {
        let spec = self.settings.process.task(argv, more);
        let limit = self.settings.start_timeout.unwrap_or(START_TIMEOUT);
        self.supervisor.record(); // by what is in the journal its end can be seen to
        let task = self.hooks.begin(moment, &spec, limit, self.supervisor.lineage())?;
        self.supervisor.watch(task.as_fd())
    }

    /// It was read from what another program of this process has left.
    pub(super) fn watch_hook_again(&self) -> Result<()> {
        let Some((_, task)) = &self.hooks.running else { return Ok(()) };
        task.watch_again()?;
        self.supervisor.watch(task.as_fd())
    }

    /// Deals with what a hook has done.
    pub(super) fn turn_hooks(&mut self) {
        let Some((pid, output, end)) = self.hooks.turn() else { return };
        if !output.is_empty() || end.is_some() {
            self.take_hook_output(pid, output, end.is_some());
        }
        match end {
            Some(HookEnd { moment: Moment::PreStart, failure }) if matches!(self.state, State::Starting) => {
                match failure {
                    None => self.launch_process(),
                    Some(text) => self.on_end(None, None, RestartCause::Start, text),
                }
            }
            Some(HookEnd { moment: Moment::PostStop, failure: Some(text) }) => self.events.push(Event::Warning(text)),
            _ => {}
        }
    }
}

/// What `post_stop` is told of an end: the variables that systemd.exec(5) has for this.
fn cause(pid: i32, status: Option<ExitStatus>, late: Option<&str>) -> Vec<(OsString, OsString)> {
    let number = |number: i32| number.to_string();
    let signal = |number: i32| match Signal::try_from(number) {
        Ok(signal) => signal.as_str().trim_start_matches("SIG").to_owned(),
        Err(_) => number.to_string(),
    };
    let (result, code, status) = match status.map(|status| (status.code, status.signal, status.core)) {
        Some((Some(0), ..)) => ("success", "exited", number(0)),
        Some((Some(code), ..)) => ("exit-code", "exited", number(code)),
        Some((None, Some(by), true)) => ("core-dump", "dumped", signal(by)),
        Some((None, Some(by), false)) => ("signal", "killed", signal(by)),
        Some((None, None, _)) | None => ("unknown", "unknown", String::new()),
    };
    let result = late.unwrap_or(result);
    let variables =
        [("SERVICE_RESULT", result), ("EXIT_CODE", code), ("EXIT_STATUS", &status), ("MAINPID", &number(pid))];
    variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_as_systemd_does() {
        let told = |code, signal, core, late: Option<&str>| {
            let variables = cause(7, Some(ExitStatus { code, signal, core }), late);
            variables.iter().map(|(_, value)| value.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(Some(0), None, false, None), "success exited 0 7");
        assert_eq!(told(Some(7), None, false, None), "exit-code exited 7 7");
        assert_eq!(told(None, Some(9), false, None), "signal killed KILL 7");
        assert_eq!(told(None, Some(15), false, Some("timeout")), "timeout killed TERM 7");
        assert_eq!(told(None, Some(11), true, None), "core-dump dumped SEGV 7");
        assert_eq!(told(None, Some(40), false, None), "signal killed 40 7");
        assert_eq!(cause(7, None, None)[0].1, "unknown");
    }
}
