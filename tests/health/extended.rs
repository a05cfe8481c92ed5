//! `EXTEND_TIMEOUT_USEC=`: a process that needs longer to start or to stop says so.

use crate::daemon::{Daemon, up};
use crate::harness::Place;

#[test]
fn a_start_and_a_stop_that_ask_for_more_time_get_it() {
    let place = Place::new();
    let daemon = Daemon::new(&place, "web");
    let lines = ["ready = \"notify\"", "start_timeout = \"1s\"", "stop = [\"TERM 500ms\", \"KILL\"]"];
    let up = up(&place, &[daemon.unit(&["slow-start", "slow-stop"], &lines)]);
    let service = up.wait_for("web", "running", |service| service["state"] == "running");
    assert_eq!((&service["restarts"], &service["cause"]), (&0.into(), &serde_json::Value::Null));
    assert_eq!(place.output("stop", &["web"]).code, 0);
    assert_eq!(daemon.read("finished"), Some(service["pid"].to_string()), "it was not killed");
}
