//! `handoff up`: many daemons, in the foreground.

use handoff::service::config::load;
use handoff::service::fleet::Fleet;
use handoff::service::instance::{Instance, check_removed};
use handoff::service::manager::Manager;
use handoff::service::paths::{RuntimeDir, check_name};
use handoff::service::signals::Signals;
use handoff::sys::descendants::{adopt_orphans, remove_stale_groups};
use serde_json::json;

use crate::args::UpArgs;
use crate::check;
use crate::control::server::Server;
use crate::exit::{ERROR, Failure, USAGE};
use crate::host::{Host, Purpose, SIGNALS};
use crate::output::Output;
use crate::run::{LAST_WORDS, exporter, itself, log_to};

pub fn up(args: &UpArgs) -> u8 {
    let output = Output::new(args.json);
    log_to(&output);
    let code = match supervise(args, &output) {
        Ok(()) => 0,
        Err(failure) => {
            output.say("error", &args.name, &failure.text, json!({ "exit": failure.code }));
            failure.code
        }
    };
    output.finish(LAST_WORDS);
    code
}

fn supervise(args: &UpArgs, output: &Output) -> Result<(), Failure> {
    // Before anything else has descriptors, and before anything reads the environment.
    let manager = Manager::take();
    check_name(&args.name).map_err(|error| Failure::new(USAGE, error.to_string()))?;
    // What is read again later is the same file, wherever this process is by then.
    let path = std::path::absolute(&args.config).map_err(|error| Failure::new(USAGE, format!("--config: {error}")))?;
    let config = load(&path)?;
    // From here on a signal stops the daemons, and never leaves them alone.
    let signals = Signals::take(&SIGNALS).map_err(|error| itself(format!("cannot take signals: {error}")))?;
    // What daemons leave behind becomes ours, and can be found.
    adopt_orphans().map_err(|error| itself(format!("cannot become a subreaper: {error}")))?;
    remove_stale_groups();
    let runtime = RuntimeDir::locate(args.runtime_dir.as_deref()).map_err(itself)?;
    runtime.create().map_err(itself)?;
    let socket = args.socket.clone().unwrap_or_else(|| runtime.socket(&args.name));
    let instance = Instance::succeed(&runtime.lock(&args.name), &args.name, &socket).map_err(itself)?;
    check_removed(&runtime, config.units.keys()).map_err(itself)?;
    let server = Server::bind(&socket).map_err(itself)?;
    let exporter = exporter(args.metrics.as_ref(), &args.name, output)?;
    let mut fleet = Fleet::new(&args.name, runtime, config).map_err(itself)?;
    fleet.set_shutdown_timeout(args.shutdown_timeout);
    for fault in fleet.faults() {
        output.say("fault", &args.name, &fault.to_string(), check::fault(fault));
    }
    let mut host = Host::new(&args.name, Purpose::Units(path), fleet, server, signals, output.clone(), manager);
    host.exporter = exporter;
    host.instance = Some(instance);
    host_units(host)
}

/// From here on, also in the next program of this process.
pub fn host_units(mut host: Host) -> Result<(), Failure> {
    let outcome = host.run();
    let Host { mut fleet, server, .. } = host;
    server.close();
    outcome.map_err(itself)?;
    let left: Vec<String> = fleet.left().iter().map(ToString::to_string).collect();
    fleet.forget();
    if left.is_empty() { Ok(()) } else { Err(Failure::new(ERROR, left.join("; "))) }
}
