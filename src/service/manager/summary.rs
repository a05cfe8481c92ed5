//! All services in one line, and whether they are up.

use super::front::Condition;
use crate::service::unit::status::ServiceStatus;

impl Condition {
    /// Of these, which are all that this process runs; and whether all are being stopped.
    pub fn of(services: &[ServiceStatus], is_ending: bool) -> Self {
        let is_coming = |service: &ServiceStatus| match service.state {
            "starting" => true,
            "running" => service.want == "done",
            _ => false,
        };
        // Who waits for another one that fails again and again has shown enough.
        let is_patient = |service: &ServiceStatus| service.state == "waiting" && service.next_start_ms.is_none();
        let fails = services.iter().any(|service| service.next_start_ms.is_some());
        let is_open = services.iter().any(|service| is_coming(service) || is_patient(service) && !fails);
        let moves = services.iter().any(|service| matches!(service.state, "upgrading" | "stopping"));
        Self {
            ready: !is_open,
            stopping: is_ending || matches!(services, [only] if only.want == "stopped" && only.state == "stopping"),
            busy: is_open || moves,
            status: match services {
                [only] => line(only),
                many => lines(many),
            },
        }
    }
}

fn line(service: &ServiceStatus) -> String {
    let name = &service.name;
    let doing = match service.state {
        "upgrading" | "starting" => format!("{} ({})", service.state, service.phase),
        state => state.to_owned(),
    };
    match service.pid {
        Some(pid) => format!("{name}: {doing}, process {pid}, generation {}", service.generation),
        None => format!("{name}: {doing}: {}", service.why),
    }
}

/// Those that are not as they should be by name.
fn lines(services: &[ServiceStatus]) -> String {
    const NAMES_MAX: usize = 8;
    let is_up = |service: &&ServiceStatus| matches!(service.state, "running" | "upgrading" | "done");
    let wanted = services.iter().filter(|service| service.want != "stopped");
    let mut text = format!("{} of {} are up", wanted.clone().filter(is_up).count(), wanted.clone().count());
    let others = wanted.filter(|service| !matches!(service.state, "running" | "done"));
    for service in others.clone().take(NAMES_MAX) {
        text.push_str(&format!("; {}: {}", service.name, service.state));
    }
    if others.count() > NAMES_MAX {
        text.push_str("; …");
    }
    text
}
