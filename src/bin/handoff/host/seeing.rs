//! Commands that show what is and what was.

use serde_json::{Value, json};

use super::Host;
use crate::control::server::Client;
use crate::control::{RpcError, UpgradeParams};
use crate::exporter;

impl Host {
    /// From now on it hears of everything, of one service or of all.
    pub(super) fn follow(&mut self, client: Client, id: &Value, service: Option<&str>) {
        let begun = service.map(|name| self.find(Some(name))).transpose();
        let begun = begun.and_then(|service| self.seen.follow(client, service, &self.server));
        let keep = begun.is_ok();
        self.server.answer(client, id, begun.map(|()| json!({ "following": true })));
        if keep {
            self.server.keep(client);
        }
    }

    pub(super) fn history(&self, service: Option<&str>) -> Result<Value, RpcError> {
        let names = match service {
            Some(_) => vec![self.find(service)?],
            None => self.fleet.names().map(str::to_owned).collect(),
        };
        Ok(self.seen.history(&names))
    }

    pub(super) fn preview(&mut self, params: &UpgradeParams) -> Result<Value, RpcError> {
        let name = self.find(params.service.as_deref())?;
        let preview = self.fleet.preview(&name, &params.upgrade());
        Ok(json!({ "service": name, "preview": preview }))
    }

    pub(super) fn export(&mut self, source: exporter::Source) {
        let Self { exporter, fleet, seen, .. } = self;
        let metrics = || seen.metrics(&fleet.status());
        exporter.iter_mut().for_each(|exporter| exporter.on_ready(source, metrics));
    }
}
