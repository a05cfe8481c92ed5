//! What a service executes, and how.

use std::path::PathBuf;
use std::time::Duration;

use super::event::RestartCause;
use super::settings::{Settings, Times};
use super::{Service, State};
use crate::error::Result;
use crate::limits::READY_TIMEOUT;
use crate::service::paths::RuntimeDir;
use crate::supervisor::SpawnSpec;
use crate::sys::clock::monotonic_ns;

impl Service {
    /// What would be executed.
    pub(super) fn spec(&self, binary: Option<&PathBuf>, times: Times) -> SpawnSpec {
        spawn_spec(&self.settings, &self.runtime, binary.or(self.program.as_ref()), times)
    }

    pub(super) fn launch_process(&mut self) {
        let spec = self.spec(None, start_times(&self.settings));
        let spec = match self.supervisor.pinned().filter(|_| !self.command_is_new) {
            Some(executable) => spec.executable(executable),
            None => spec,
        };
        if let Err(error) = self.start_cold(&spec) {
            self.on_end(None, None, RestartCause::Start, error.to_string());
        }
    }

    pub(super) fn start_cold(&mut self, spec: &SpawnSpec) -> Result<()> {
        self.again = true;
        let _ = self.runtime.create(); // somebody may have wiped it; what can not be written there says why
        self.supervisor.start(spec)?;
        self.enter_starting();
        Ok(())
    }

    pub(super) fn enter_starting(&mut self) {
        self.state = State::Starting;
        self.given_up = false;
        self.started_ns = monotonic_ns();
        self.served = false;
        self.unready = false;
        self.said_hello = false;
    }
}

/// A start timeout is told by ourselves: its process is stopped before there is another one.
fn start_times(settings: &Settings) -> Times {
    let ready = settings.start_timeout.map(|time| time.saturating_add(READY_TIMEOUT));
    Times { ready, ..Times::default() }
}

/// One that gives a sign and is never replaced need not be asked whether it links the library.
pub(super) fn resume_times(settings: &Settings) -> Times {
    let is_unlinked = !settings.handoff && settings.readiness.is_some();
    Times { hello: is_unlinked.then_some(Duration::ZERO), ..start_times(settings) }
}

/// The process of a service with these settings.
pub(super) fn spawn_spec(
    settings: &Settings,
    runtime: &RuntimeDir,
    binary: Option<&PathBuf>,
    times: Times,
) -> SpawnSpec {
    let mut spec = settings.process.apply(SpawnSpec::new(&settings.argv), &settings.name, runtime);
    spec = match settings.capture_stdout {
        true => spec.capture_output(runtime.path()),
        false => spec.capture_stderr(runtime.path()),
    };
    spec = spec.mode(settings.mode).stop_signal(settings.stop_signal());
    if let Some(readiness) = &settings.readiness {
        spec = spec.readiness(readiness.clone());
    }
    if let Some(health) = &settings.health {
        spec = spec.health(health.clone());
    }
    if let Some(time) = settings.watchdog {
        // The second one is filled in by whoever starts it.
        spec = spec.env("WATCHDOG_USEC", time.as_micros().to_string()).env("WATCHDOG_PID", "");
    }
    if let Some(binary) = binary {
        spec = spec.binary(binary);
    }
    if let Some(dir) = &settings.data_dir {
        spec = spec.data_dir(dir);
    }
    times.or(settings.times).apply(spec)
}
