//! What the processes of a service write.

use super::Service;
use super::event::Event;
use crate::service::log::{Log, Origin, Part, Source};

/// No process of the supervisor has it.
const HOOKS: u64 = 0;

impl Service {
    /// What its processes have written.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The same, to tell it of slow readers.
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    pub(super) fn take_output(&mut self, key: u64, source: Source, bytes: Vec<u8>, dropped: u64, last: bool) {
        self.log.take(&Part { key, source, bytes: &bytes, dropped, last });
        self.events.push(Event::Output { bytes, dropped });
        self.events.extend(self.log.news().map(Event::Log));
    }

    /// Of a hook, which is the only one at that time.
    pub(super) fn take_hook_output(&mut self, pid: i32, bytes: Vec<u8>, last: bool) {
        let source = Source { pid, generation: self.supervisor.status().generation, origin: Origin::Hook };
        self.take_output(HOOKS, source, bytes, 0, last);
    }
}
