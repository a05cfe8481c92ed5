//! `handoff run`: one daemon, in the foreground.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use handoff::Error;
use handoff::limits::MAX_DRAINING;
use handoff::service::address::{Address, check_all};
use handoff::service::config::{LogBudget, StopStep};
use handoff::service::fleet::Fleet;
use handoff::service::instance::{Instance, daemon_of};
use handoff::service::manager::Manager;
use handoff::service::paths::{RuntimeDir, check_data_dir, check_name, name_of};
use handoff::service::restart::Rules;
use handoff::service::signals::Signals;
use handoff::service::{ProcessSettings, Service, Settings};
use handoff::supervisor::Mode;
use handoff::sys::descendants::{adopt_orphans, remove_stale_groups};
use serde_json::json;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::args::{Restart, RunArgs};
use crate::control::server::Server;
use crate::exit::{CANNOT_EXECUTE, Failure, ITSELF_FAILED, NOT_FOUND, USAGE, of_daemon};
use crate::exporter::Exporter;
use crate::host::{Host, Purpose, SIGNALS};
use crate::output::Output;

const HEALTH_UNASKED: &str = "--health: nothing is asked without a probation: --probation TIME gives one to every upgrade, \
     upgrade --probation TIME to one";
/// How long the last words wait for a reader.
pub const LAST_WORDS: Duration = Duration::from_secs(2);

pub fn run(args: &RunArgs) -> u8 {
    let output = Output::new(args.json);
    log_to(&output);
    let code = supervise(args, &output).unwrap_or_else(|failure| {
        let name = service_name(args).unwrap_or_else(|_| "run".to_owned());
        output.say("error", &name, &failure.text, json!({ "exit": failure.code }));
        failure.code
    });
    output.finish(LAST_WORDS);
    code
}

/// The library's log; `HANDOFF_LOG` chooses how much of it. By default it is what no line of ours says.
pub fn log_to(output: &Output) {
    const IN_OUTCOMES: [&str; 2] = ["abort", "reject"];
    let news = |event: &Metadata<'_>| *event.level() <= Level::WARN && !IN_OUTCOMES.contains(&event.name());
    let filter: Box<dyn Filter<Registry> + Send + Sync> = match EnvFilter::try_from_env("HANDOFF_LOG") {
        Ok(filter) => Box::new(filter),
        Err(_) => Box::new(filter_fn(news)),
    };
    let log = tracing_subscriber::fmt::layer().with_writer(output.clone()).with_ansi(false).with_filter(filter);
    let _ = tracing_subscriber::registry().with(log).try_init();
}

/// The exit code of `run`, when the daemon ended for good.
fn supervise(args: &RunArgs, output: &Output) -> Result<u8, Failure> {
    // Before anything else has descriptors, and before anything reads the environment.
    let manager = Manager::take();
    let settings = settings(args)?;
    let name = settings.name.clone();
    // First: from here on a signal stops the daemon, and never leaves it alone.
    let signals = Signals::take(&SIGNALS).map_err(|error| itself(format!("cannot take signals: {error}")))?;
    // What its daemon leaves behind becomes ours, and can be found.
    adopt_orphans().map_err(|error| itself(format!("cannot become a subreaper: {error}")))?;
    remove_stale_groups();
    let runtime = RuntimeDir::locate(args.place.runtime_dir.as_deref()).map_err(itself)?;
    runtime.create().map_err(itself)?;
    let socket = args.place.socket.clone().unwrap_or_else(|| runtime.socket(&name));
    let instance = Instance::succeed(&runtime.lock(&name), &name, &socket).map_err(itself)?;
    let server = Server::bind(&socket).map_err(itself)?;
    let exporter = exporter(args.metrics.as_ref(), &name, output)?;
    let place = runtime.clone();
    let fleet = match Fleet::of_one(runtime, settings, &args.listen) {
        Ok(fleet) => fleet,
        Err(error) => return Err(gone(&place, &name, server, &error.to_string())),
    };
    if args.health.is_some() && args.times.probation.is_none() {
        output.say("warning", &name, HEALTH_UNASKED, json!({}));
    }
    let mut host = Host::new(&name, Purpose::One, fleet, server, signals, output.clone(), manager);
    host.exporter = exporter;
    host.instance = Some(instance);
    host_one(host)
}

/// From here on, also in the next program of this process.
pub fn host_one(mut host: Host) -> Result<u8, Failure> {
    let outcome = host.run();
    let Host { name, fleet, server, .. } = host;
    if let Some(trouble) = fleet.trouble(&name) {
        return Err(gone(fleet.runtime(), &name, server, trouble));
    }
    server.close();
    outcome.map_err(itself)?;
    if let Some(left) = fleet.left().first() {
        return Err(itself(left));
    }
    let ended = fleet.service(&name).and_then(Service::ended);
    Ok(ended.map_or(ITSELF_FAILED, of_daemon))
}

/// The service can not be supervised. By its name `status` finds the service of a daemon that lives on.
fn gone(runtime: &RuntimeDir, name: &str, server: Server, why: &str) -> Failure {
    if daemon_of(runtime, name).is_none() {
        server.close();
    }
    itself(why)
}

/// Says where metrics can be read.
pub fn exporter(address: Option<&Address>, name: &str, output: &Output) -> Result<Option<Exporter>, Failure> {
    let exporter = address.map(Exporter::bind).transpose().map_err(itself)?;
    if let Some(exporter) = &exporter {
        output.say("metrics", name, &format!("metrics are at {}", exporter.url), json!({ "url": exporter.url }));
    }
    Ok(exporter)
}

fn service_name(args: &RunArgs) -> handoff::Result<String> {
    match (&args.place.name, args.command.first()) {
        (Some(name), _) => check_name(name).map(|()| name.clone()),
        (None, program) => name_of(program.map(AsRef::as_ref).unwrap_or_default()),
    }
}

/// Everything that can be seen to be wrong before anything is changed.
fn settings(args: &RunArgs) -> Result<Settings, Failure> {
    let usage = |error: Error| Failure::new(USAGE, error.to_string());
    args.check_together().map_err(|text| Failure::new(USAGE, text))?;
    check_all(&args.listen).map_err(usage)?;
    let data_dir: Option<PathBuf> = args.data_dir.as_deref().map(check_data_dir).transpose().map_err(itself)?;
    let settings = Settings {
        name: service_name(args).map_err(usage)?,
        argv: args.command.clone(),
        data_dir,
        process: ProcessSettings::default(),
        restart: Rules { policy: Restart::policy(args.restart), ..Rules::default() },
        start_timeout: None,
        oneshot: false,
        times: args.times.into(),
        mode: args.mode.map_or(Mode::Exclusive, Mode::from),
        handoff: true,
        readiness: args.ready.clone(),
        health: args.health.clone(),
        check: None,
        watchdog: None,
        stop: StopStep::usual(args.stop_signal),
        max_draining: args.max_draining.unwrap_or(MAX_DRAINING),
        capture_stdout: false,
        log: LogBudget::default(),
    };
    settings.check_readiness().map_err(usage)?;
    settings.check_program().map_err(|error| match &error {
        Error::System { source, .. } if source.kind() == ErrorKind::NotFound => {
            Failure::new(NOT_FOUND, error.to_string())
        }
        _ => Failure::new(CANNOT_EXECUTE, error.to_string()),
    })?;
    Ok(settings)
}

pub fn itself(error: impl ToString) -> Failure {
    Failure::new(ITSELF_FAILED, error.to_string())
}
