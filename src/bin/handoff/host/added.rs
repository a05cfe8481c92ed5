//! Units that are in no file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use handoff::service::fleet::{Goal, NotDone};
use serde_json::{Value, json};

use super::Host;
use super::waiters::Awaited;
use crate::check;
use crate::control::server::Client;
use crate::control::{AddParams, RemoveParams, RpcError};

impl Host {
    /// Those that are to be started, and whatever they need, are waited for.
    pub(super) fn add(&mut self, client: Client, id: Value, params: AddParams) {
        let AddParams { from, text, wait } = params;
        let added = self.many().map(|(_, fleet)| fleet.add_units(Path::new(&from).into(), text));
        let goal = |host: &Self, name: &str| match host.fleet.status_of(name) {
            Some(status) if status.want == "stopped" => Goal::Down,
            _ => Goal::Up,
        };
        self.follow_change(client, id, wait, added, goal);
    }

    pub(super) fn remove(&mut self, client: Client, id: Value, params: RemoveParams) {
        let removed = self.many().map(|(_, fleet)| fleet.remove_units(&params.services));
        self.follow_change(client, id, params.wait, removed, |_, _| Goal::Down);
    }

    fn follow_change(
        &mut self,
        client: Client,
        id: Value,
        wait: bool,
        changed: Result<Result<BTreeSet<String>, NotDone>, RpcError>,
        goal: fn(&Self, &str) -> Goal,
    ) {
        let answer = match changed {
            Ok(Ok(names)) => {
                let units = names.into_iter().map(|name| (name.clone(), Awaited::Goal(goal(self, &name))));
                let units = BTreeMap::from_iter(units);
                return self.wait_for(client, id, units, wait);
            }
            Ok(Err(NotDone::Faults(faults))) => Ok(json!({ "units": [], "faults": check::faults(&faults) })),
            Ok(Err(error)) => Err(self.not_done(error)),
            Err(error) => Err(error),
        };
        self.server.answer(client, &id, answer);
    }
}
