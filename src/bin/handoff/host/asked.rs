//! What commands ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use handoff::service::WayBack;
use handoff::service::config::load;
use handoff::service::fleet::{Fleet, Goal, NotDone, Way};
use handoff::service::parse;
use serde_json::{Value, json};

use super::waiters::{Awaited, Awaits, COMMITTED, REVERTED, Waiter};
use super::{Host, Purpose};
use crate::control::server::{Call, Client};
use crate::control::{ErrorCode, KillParams, LogsParams, ReloadParams, Request, RpcError, UnitsParams};
use crate::{check, text};

type Answer = Result<Value, RpcError>;

impl Host {
    pub fn on_call(&mut self, call: Call) {
        let Call { client, id, request } = call;
        let answer = match request {
            Request::Status(param) => self.status(param.service.as_deref()),
            Request::Events(param) => return self.follow(client, &id, param.service.as_deref()),
            Request::History(param) => self.history(param.service.as_deref()),
            Request::Preview(params) => self.preview(&params),
            Request::Upgrade(_) | Request::Rollback(_) => return self.begin(Call { client, id, request }),
            Request::Start(params) => return self.set(client, id, &params, Goal::Up),
            Request::Stop(params) => return self.set(client, id, &params, Goal::Down),
            Request::Restart(params) => return self.restart(Call { client, id, request: Request::Restart(params) }),
            Request::Logs(params) => return self.read(client, id, params),
            Request::Kill(params) => self.kill(&params),
            Request::Reload(params) => self.reload(&params),
            Request::Add(params) => return self.add(client, id, params),
            Request::Remove(params) => return self.remove(client, id, params),
            Request::Why(param) => {
                self.find_to_see(param.service.as_deref()).map(|name| json!({ "links": self.fleet.why(&name) }))
            }
            Request::Tree(params) => {
                self.resolve(&params.services).map(|names| json!({ "tree": self.fleet.tree(&names) }))
            }
            Request::SelfUpgrade(params) => return self.begin_self_upgrade(client, id, &params),
            Request::Shutdown(params) => {
                self.shut_down("shutdown by an operator", false);
                match params.wait {
                    true => return self.waiters.push(Waiter { client, id, awaits: Awaits::End }),
                    false => Ok(json!({ "stopped": false })),
                }
            }
        };
        self.server.answer(client, &id, answer);
    }

    // ---- upgrade, rollback

    /// What has begun has an outcome some time, for which this client waits.
    fn begin(&mut self, call: Call) {
        let Call { client, id, request } = call;
        let service = match &request {
            Request::Upgrade(params) => params.service.as_deref(),
            Request::Rollback(params) => params.service.as_deref(),
            _ => None,
        };
        let name = match self.find(service) {
            Ok(name) => name,
            Err(error) => return self.server.answer(client, &id, Err(error)),
        };
        if self.is_adopting(&name) {
            return self.held.push(Call { client, id, request });
        }
        let begun = match &request {
            Request::Upgrade(params) => self.fleet.upgrade(&name, params.upgrade()).map(|()| COMMITTED),
            Request::Rollback(params) => {
                let way = self.fleet.rollback(&name, params.when_draining);
                way.map(|way| if way == WayBack::Verdict { REVERTED } else { COMMITTED })
            }
            _ => return,
        };
        let waiting = self.fleet.service(&name).and_then(|service| service.waiting());
        let mut waiter = Waiter { client, id, awaits: Awaits::End };
        match begun {
            Err(NotDone::Outcome(outcome)) => return self.answer_outcome(&waiter, &name, COMMITTED, json!(&*outcome)),
            Err(error) => return self.server.answer(client, &waiter.id, Err(self.not_done(error))),
            Ok(wanted) => waiter.awaits = Awaits::Outcome { service: name.clone(), wanted, waiting },
        }
        self.say_wait(client, &name);
        self.waiters.push(waiter);
    }

    /// If it has to wait before it begins.
    fn say_wait(&mut self, client: Client, name: &str) {
        let waits = self.fleet.status_of(name).and_then(|status| status.waits);
        let Some(waits) = waits.filter(|waits| !waits.pids.is_empty()) else { return };
        let waits = json!(waits);
        let phase = format!("waits {}", text::waits_for(&waits));
        let word = waits["what"].as_str().unwrap_or_default();
        self.output.say("waiting", name, &format!("{word} {phase}"), waits.clone());
        self.server.notify(client, "phase", json!({ "service": name, "phase": phase, "waits": waits }));
    }

    /// What waited until a daemon is adopted.
    pub(super) fn take_held(&mut self) {
        for call in std::mem::take(&mut self.held) {
            self.on_call(call);
        }
    }

    // ---- start, stop, restart, kill

    fn set(&mut self, client: Client, id: Value, params: &UnitsParams, goal: Goal) {
        let names = match self.named(&params.services) {
            Ok(names) => names,
            Err(error) => return self.server.answer(client, &id, Err(error)),
        };
        match goal {
            Goal::Up => self.fleet.start(&names),
            Goal::Down => self.fleet.stop(&names),
        }
        let units = names.into_iter().map(|name| (name, Awaited::Goal(goal))).collect();
        self.wait_for(client, id, units, params.wait);
    }

    pub(super) fn wait_for(&mut self, client: Client, id: Value, units: BTreeMap<String, Awaited>, wait: bool) {
        match wait {
            true => self.waiters.push(Waiter { client, id, awaits: Awaits::Units(units) }),
            false => {
                let answer = self.units_answer(&units);
                self.server.answer(client, &id, Ok(answer));
            }
        }
    }

    fn restart(&mut self, call: Call) {
        let Request::Restart(params) = &call.request else { return };
        let names = match self.named(&params.services) {
            Ok(names) => names,
            Err(error) => return self.server.answer(call.client, &call.id, Err(error)),
        };
        if names.iter().any(|name| self.is_adopting(name)) {
            return self.held.push(call);
        }
        let mut units = BTreeMap::new();
        for name in names {
            let awaited = match self.fleet.restart(&name) {
                Ok(Way::Handoff) => Awaited::Outcome,
                Ok(Way::Stop) => Awaited::Goal(Goal::Up),
                Err(NotDone::Outcome(outcome)) => Awaited::Told(json!(&*outcome)),
                Err(error) => {
                    let error = self.not_done(error);
                    return self.server.answer(call.client, &call.id, Err(error));
                }
            };
            units.insert(name, awaited);
        }
        self.wait_for(call.client, call.id, units, params.wait);
    }

    fn kill(&mut self, params: &KillParams) -> Answer {
        let bad = |text: String| RpcError::new(ErrorCode::InvalidParams, text);
        let signal = parse::any_signal(&params.signal).map_err(bad)?;
        let names = self.named(&params.services)?;
        let refused = |error: handoff::Error| RpcError::new(ErrorCode::Refused, error.to_string());
        let (mut told, mut idle) = (Vec::new(), None);
        for name in names {
            match self.fleet.signal(&name, signal) {
                Ok(pid) => told.push(json!({ "unit": name, "pid": pid })),
                Err(error @ handoff::Error::State(_)) => idle = idle.or(Some(error)),
                Err(error) => return Err(refused(error)),
            }
        }
        match idle {
            Some(error) if told.is_empty() => Err(refused(error)),
            _ => Ok(json!({ "signal": signal.as_str(), "signalled": told })),
        }
    }

    // ---- reload

    /// Our manager hears of it, unless nothing is to change.
    fn reload(&mut self, params: &ReloadParams) -> Answer {
        if params.dry_run {
            return self.read_again(params);
        }
        self.front.manager.reloading();
        let answer = self.read_again(params);
        self.front.manager.reloaded();
        self.front.news = true;
        answer
    }

    fn read_again(&mut self, params: &ReloadParams) -> Answer {
        let (path, fleet) = self.many()?;
        let keeps = |error: handoff::Error| {
            RpcError::new(ErrorCode::Refused, format!("{error}; nothing was changed, the units of before stay"))
        };
        let config = load(path).map_err(keeps)?;
        let changes = match fleet.plan(&config) {
            Ok(changes) => changes,
            Err(faults) => return Ok(json!({ "applied": false, "changes": [], "faults": check::faults(&faults) })),
        };
        if !params.dry_run {
            fleet.reload(config);
        }
        Ok(json!({ "applied": !params.dry_run, "changes": changes, "faults": [] }))
    }

    /// Where the files of its units are, and the units.
    pub(super) fn many(&mut self) -> Result<(&Path, &mut Fleet), RpcError> {
        match &self.purpose {
            Purpose::Units(path) => Ok((path, &mut self.fleet)),
            Purpose::One => {
                let text = "this is 'handoff run', which has no other units: that is for handoff up";
                Err(RpcError::new(ErrorCode::Refused, text))
            }
        }
    }

    /// SIGHUP: what comes of it is said in the log.
    pub(super) fn reload_for_signal(&mut self) {
        let text = match self.reload(&ReloadParams::default()) {
            Err(error) => error.message,
            Ok(answer) => text::reloaded(&answer).join("; "),
        };
        self.output.say("reload", &self.name, &text, json!({}));
    }

    /// A client that reads output: of units, and of those of targets.
    fn read(&mut self, client: Client, id: Value, mut params: LogsParams) {
        match self.resolve(&params.services) {
            Ok(names) => {
                // Without a name it is all; a target without units is none.
                if !names.is_empty() {
                    params.services = names.into_iter().collect();
                }
                let logs = self.fleet.logs_mut().collect();
                self.readers.add(client, id, params, &logs, &mut self.server);
            }
            Err(error) => self.server.answer(client, &id, Err(error)),
        }
    }

    // ---- who is meant

    fn status(&self, service: Option<&str>) -> Answer {
        let services = match service {
            None => self.fleet.status(),
            Some(_) => self.fleet.status_of(&self.find_to_see(service)?).into_iter().collect(),
        };
        let supervisor = json!({ "name": self.name, "pid": std::process::id(), "version": env!("CARGO_PKG_VERSION"),
            "self_upgrades": self.self_upgrade.count,
            "last_self_upgrade": self.self_upgrade.last,
        });
        Ok(json!({ "supervisor": supervisor, "services": services }))
    }

    /// The service that is meant: by its name, or because it is the only one.
    pub(super) fn find(&self, service: Option<&str>) -> Result<String, RpcError> {
        let mut names = self.fleet.names();
        match (service, names.next(), names.next()) {
            (Some(name), ..) if self.fleet.names().any(|known| known == name) => Ok(name.to_owned()),
            (Some(name), ..) => Err(self.no_such(name)),
            (None, Some(only), None) => Ok(only.to_owned()),
            (None, ..) => {
                let text = format!("which service? There are: {}", self.listed());
                Err(RpcError::new(ErrorCode::WhichService, text))
            }
        }
    }

    /// The same, or one that is at fault, of which there is nothing but that.
    fn find_to_see(&self, service: Option<&str>) -> Result<String, RpcError> {
        match service.filter(|name| self.fleet.fault_of(name).is_some()) {
            Some(name) => Ok(name.to_owned()),
            None => self.find(service),
        }
    }

    /// The units of these names and targets; without a name the only one.
    fn named(&self, names: &[String]) -> Result<BTreeSet<String>, RpcError> {
        match names.is_empty() {
            true => self.find(None).map(|name| BTreeSet::from([name])),
            false => self.resolve(names),
        }
    }

    fn resolve(&self, names: &[String]) -> Result<BTreeSet<String>, RpcError> {
        self.fleet.resolve(names).map_err(|error| self.not_done(error))
    }

    pub(super) fn not_done(&self, error: NotDone) -> RpcError {
        match error {
            NotDone::NoSuch(name) => self.no_such(&name),
            NotDone::Refused(text) => RpcError::new(ErrorCode::Refused, text),
            NotDone::Faults(faults) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                RpcError::new(ErrorCode::Refused, faults.join("; "))
            }
            NotDone::Outcome(outcome) => RpcError::new(ErrorCode::Refused, outcome.reason.clone()),
        }
    }

    fn no_such(&self, name: &str) -> RpcError {
        if let Some(fault) = self.fleet.fault_of(name) {
            let text = format!("{name} is at fault: {fault}; correct that, and say handoff reload");
            return RpcError::new(ErrorCode::Refused, text);
        }
        let text = match self.fleet.resolve(&[name.to_owned()]) {
            Ok(units) => {
                let units: Vec<String> = units.into_iter().collect();
                format!("'{name}' is a target, and this is for one unit: {}", units.join(", "))
            }
            Err(_) => format!("there is no service '{name}'; there is: {}", self.listed()),
        };
        RpcError::new(ErrorCode::NoSuchService, text)
    }

    fn listed(&self) -> String {
        self.fleet.names().collect::<Vec<_>>().join(", ")
    }
}
