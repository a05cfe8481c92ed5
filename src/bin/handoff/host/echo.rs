//! What services write, on our own standard error.

use handoff::service::words::counted;
use std::collections::BTreeMap;

use serde_json::json;

use super::{Host, Purpose};

/// Of each unit: the number of the line that is next to be said.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Echo(BTreeMap<String, u64>);

impl Host {
    /// As it is, if there is one service only; of many by lines, each with its name.
    pub(super) fn echo(&mut self, name: &str, bytes: &[u8], dropped: u64) {
        match self.purpose {
            Purpose::One => {
                if dropped > 0 {
                    let text =
                        format!("{} of its output dropped: more came than could be read", counted(dropped, "byte"));
                    self.output.say("dropped", name, &text, json!({ "bytes": dropped }));
                }
                self.output.copy(bytes);
            }
            Purpose::Units(_) => self.echo_lines(name),
        }
    }

    fn echo_lines(&mut self, name: &str) {
        let Some(ring) = self.fleet.service(name).map(|service| service.log().ring()) else { return };
        let next = self.echo.0.entry(name.to_owned()).or_default();
        if *next < ring.first() || *next > ring.next() {
            // The lines came faster than they are kept, or the unit has begun anew.
            *next = ring.first();
        }
        self.output.lines_of(name, (*next..ring.next()).filter_map(|number| ring.bytes_of(number)));
        *next = ring.next();
    }
}
