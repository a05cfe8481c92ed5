//! Our own manager, and the listeners that it keeps.

use handoff::service::given;
use handoff::service::manager::{Condition, Manager};
use serde_json::json;

use super::{Host, Purpose};

/// What the manager is told, and what there is to tell.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Front {
    pub(super) manager: Manager,
    condition: Condition,
    /// Something has happened since.
    pub(super) news: bool,
    /// Sockets that this process was started with may still be wanted.
    pub(super) given: bool,
}

impl Front {
    pub(super) fn new(manager: Manager) -> Self {
        Self { manager, condition: Condition::default(), news: true, given: true }
    }
}

impl Host {
    /// Tells it what is new, and that this loop turns.
    pub(super) fn tell_manager(&mut self) {
        let is_new = std::mem::take(&mut self.front.news);
        if is_new {
            self.keep_listeners();
        }
        // One service is looked at each time: it may be taken to be up although nothing has happened.
        if self.front.manager.is_there() && (is_new || matches!(self.purpose, Purpose::One)) {
            self.front.condition = Condition::of(&self.fleet.status(), self.fleet.is_ending());
        }
        self.front.manager.turn(&self.front.condition);
        for text in self.front.manager.troubles() {
            self.output.say("warning", &self.name, &text, json!({}));
        }
    }

    /// It keeps the listeners. What this process was given, and is not one of them, is closed when every service has what it needs.
    fn keep_listeners(&mut self) {
        let services = || self.fleet.names().filter_map(|name| self.fleet.service(name));
        let is_open = || self.fleet.is_preparing() || services().any(|service| service.is_adopting());
        if self.front.given && !is_open() {
            self.front.given = false;
            for name in given::close_unused() {
                let text = format!(
                    "the socket '{name}' that this process was started with is no listener of a service: closed"
                );
                self.output.say("warning", &self.name, &text, json!({ "socket": name }));
                self.front.manager.forget(&name);
            }
        }
        self.front.manager.keep(services().flat_map(|service| service.listeners()));
    }
}
