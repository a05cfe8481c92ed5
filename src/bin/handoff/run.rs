//! `handoff run`: one daemon, in the foreground.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use handoff::Error;
use handoff::limits::MAX_DRAINING;
use handoff::service::address::{ListenSpec, check_all};
use handoff::service::instance::{Instance, daemon_of};
use handoff::service::paths::{RuntimeDir, check_data_dir, check_name, name_of};
use handoff::service::signals::Signals;
use handoff::service::{Service, Settings};
use handoff::supervisor::Mode;
use serde_json::json;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::adopting::Adopting;
use crate::args::{Restart, RunArgs};
use crate::control::server::Server;
use crate::exit::{CANNOT_EXECUTE, Failure, ITSELF_FAILED, NOT_FOUND, USAGE, of_daemon};
use crate::host::{Host, SIGNALS};
use crate::output::Output;

const HEALTH_UNASKED: &str = "--health: nothing is asked without a probation: --probation TIME gives one to every upgrade, \
     upgrade --probation TIME to one";
/// How long the last words wait for a reader.
const LAST_WORDS: Duration = Duration::from_secs(2);

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
fn log_to(output: &Output) {
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
    let settings = settings(args)?;
    let name = settings.name.clone();
    // First: from here on a signal stops the daemon, and never leaves it alone.
    let signals = Signals::take(&SIGNALS).map_err(|error| itself(format!("cannot take signals: {error}")))?;
    let runtime = RuntimeDir::locate(args.place.runtime_dir.as_deref()).map_err(itself)?;
    runtime.create().map_err(itself)?;
    // Held until the end.
    let _instance = Instance::acquire(&runtime.lock(&name), &name).map_err(itself)?;
    let socket = args.place.socket.clone().unwrap_or_else(|| runtime.socket(&name));
    let server = Server::bind(&socket).map_err(itself)?;
    let (early, calls, said) = (Vec::new(), Vec::new(), String::new());
    let mut adopting = Adopting { name: name.clone(), server, signals, output: output.clone(), early, calls, said };
    let place = runtime.clone();
    let service = Service::new(settings, runtime, &args.listen, &mut |status| adopting.attend(status));
    let Adopting { server, signals, early, calls, .. } = adopting;
    let mut service = match service {
        Ok(service) => service,
        Err(error) => {
            // By its name `status` finds the service of a daemon that lives on.
            if daemon_of(&place, &name).is_none() {
                server.close();
            }
            return Err(itself(error));
        }
    };
    for listener in service.status().listeners {
        let text = format!("{} is {}", listener.name, listener.address);
        output.say("listening", &name, &text, json!({ "name": listener.name, "address": listener.address }));
    }
    let unasked = args.health.is_some() && args.times.probation.is_none();
    let unasked = unasked.then(|| HEALTH_UNASKED.to_owned());
    for text in args.listen.iter().filter_map(ListenSpec::backlog_warning).chain(unasked) {
        output.say("warning", &name, &text, json!({}));
    }
    service.start();
    let mut host = Host {
        name: name.clone(),
        services: BTreeMap::from([(name.clone(), service)]),
        server,
        signals,
        output: output.clone(),
        waiters: Vec::new(),
    };
    early.into_iter().for_each(|arrived| host.on_arrival(arrived));
    calls.into_iter().for_each(|call| host.on_call(call));
    let outcome = host.run();
    host.server.close();
    outcome.map_err(itself)?;
    host.services.values_mut().for_each(Service::remove_files);
    let ended = host.services.get(&name).and_then(Service::ended);
    Ok(ended.map_or(ITSELF_FAILED, of_daemon))
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
        restart: Restart::policy(args.restart),
        times: args.times.into(),
        mode: args.mode.map_or(Mode::Exclusive, Mode::from),
        readiness: args.ready.clone(),
        health: args.health.clone(),
        stop_signal: args.stop_signal,
        max_draining: args.max_draining.unwrap_or(MAX_DRAINING),
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

fn itself(error: impl ToString) -> Failure {
    Failure::new(ITSELF_FAILED, error.to_string())
}
