//! While a unit is replaced, nobody accepts for a while, and that is no illness.

use crate::daemon::up;
use crate::harness::{Place, pid_of, text};
use crate::support::programs;
use std::fs;

#[test]
fn a_handoff_is_no_illness() {
    let place = Place::new();
    let (data, socket) = (place.path("data"), place.path("socket"));
    fs::create_dir(&data).unwrap();
    // Its drain takes long enough for a dozen of questions.
    let unit = format!(
        "[unit.kv]\nexec = [{:?}]\nenv = {{ KV_FAULT = \"slow-drain=2000\" }}\ndata_dir = {:?}\nlisten = [\"kv=unix:{}\"]\n\
         health = {{ url = \"unix:{}\", interval = \"50ms\", timeout = \"100ms\", retries = 2 }}\n",
        text(&programs().faulty),
        text(&data),
        socket.display(),
        socket.display()
    );
    let up = up(&place, &[unit]);
    up.wait_for_health("kv", "healthy");
    let said = place.output("upgrade", &["kv", "--json"]);
    assert_eq!(said.json()["result"], "committed", "{said:?}");
    assert!(data.join("drained").exists());
    let service =
        up.wait_for("kv", "the successor", |service| service["generation"] == 2 && service["phase"] == "idle");
    assert_eq!((&service["restarts"], &service["health"]["state"]), (&0.into(), &"healthy".into()), "{service}");
}

/// What is found to be ill in its probation is no reason for a restart: its predecessor takes over.
#[test]
fn in_a_probation_the_reserve_takes_over() {
    let place = Place::new();
    let (data, socket, bad) = (place.path("data"), place.path("socket"), place.path("bad"));
    fs::create_dir(&data).unwrap();
    let check = format!("[ \"$MAINPID\" != \"$(cat {} 2>/dev/null)\" ]", bad.display());
    let unit = format!(
        "[unit.kv]\nexec = [{:?}]\ndata_dir = {:?}\nlisten = [\"kv=unix:{}\"]\nprobation = \"1h\"\nshell = true\n\
         health = {{ exec = {check:?}, interval = \"100ms\", retries = 2 }}\n",
        text(&programs().kv_a),
        text(&data),
        socket.display(),
    );
    let up = up(&place, &[unit]);
    let before = pid_of(&up.wait_for_health("kv", "healthy"));
    assert_eq!(place.output("upgrade", &["kv"]).code, 0);
    let successor = up.wait_for("kv", "a probation", |service| service["phase"] == "probation");
    fs::write(&bad, successor["pid"].to_string()).unwrap();
    let after = up.wait_for("kv", "the reserve", |service| service["pid"] == before && service["phase"] == "idle");
    assert_eq!((&after["restarts"], &after["state"]), (&0.into(), &"running".into()), "{after}");
    up.run.wait_for_text("unhealthy: ");
    up.wait_for_health("kv", "healthy");
}
