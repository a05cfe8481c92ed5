//! While a daemon is replaced, the manager gives it time.

use crate::fake::Fake;
use crate::harness::Place;
use crate::support::{Service, programs};

#[test]
fn a_handoff_extends_the_timeouts() {
    let place = Place::new();
    let mut fake = Fake::new(&place);
    let mut service = Service::place();
    service.environment.push(("NOTIFY_SOCKET", fake.path()));
    service.launch(&programs().kv_a, &[]);
    let ready = fake.wait_for_field("READY", "1", 0);
    assert_eq!(service.upgrade(&programs().kv_b, &[]).code, 0);
    let upgrading = fake.wait_for("an upgrade", ready + 1, |message| {
        message.get("STATUS").is_some_and(|status| status.contains("upgrading"))
    });
    assert!(fake.messages[upgrading].get("EXTEND_TIMEOUT_USEC").is_some(), "{:?}", fake.messages[upgrading]);
    fake.wait_for("the next generation", upgrading, |message| {
        message.get("STATUS").is_some_and(|status| status.contains("running") && status.contains("generation 2"))
    });
    assert_eq!(fake.count("READY"), 1, "it was ready all the time");
}
