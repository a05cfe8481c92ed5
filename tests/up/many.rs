//! Hundreds of units.

use crate::scene::Scene;
use crate::support::{SIGTERM, freeze, open_descriptors, signal, thaw, wait_until};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;

#[test]
fn three_hundred_units_start_and_stop() {
    let mut units = String::new();
    for at in 0..300 {
        let requires = if at % 10 == 0 { String::new() } else { format!("requires = ['u{}']", at - 1) };
        write!(units, "[unit.u{at}]\nexec = ['sleep', '1000']\nmode = 'none'\nready = 'delay=1ms'\n{requires}\n")
            .unwrap();
    }
    let names: Vec<String> = (0..300).map(|at| format!("'u{at}'")).collect();
    writeln!(units, "[target.all]\nunits = [{}]", names.join(", ")).unwrap();
    let mut scene = Scene::up(&units);
    scene.run("start", &["all"]).expect(0, &["u0: running", "u299: running"]);
    assert_eq!(scene.status().len(), 300);
    let pids: Vec<i64> = scene.status().iter().map(|unit| unit["pid"].as_i64().unwrap()).collect();
    assert!(open_descriptors(scene.supervisor()) < 300 * 12, "{}", open_descriptors(scene.supervisor()));
    scene.run("stop", &["u0"]).expect(0, &["u0: stopped"]);
    let left = scene.status().iter().filter(|unit| unit["state"] == "running").count();
    assert_eq!(left, 290);
    assert_eq!(scene.stop(), 0);
    assert!(pids.iter().all(|pid| !crate::support::lives(*pid as i32)));
}

/// A client of the control socket.
struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(scene: &Scene) -> Self {
        Self(BufReader::new(UnixStream::connect(scene.place.path("run/kv.sock")).unwrap()))
    }

    /// All at once: they are read together.
    fn ask(&mut self, requests: &[(&str, Value)]) {
        let line = |(id, (method, params)): (usize, &(&str, Value))| {
            format!("{}\n", json!({ "jsonrpc": "2.0", "handoff": 1, "id": id, "method": method, "params": params }))
        };
        let lines: String = requests.iter().enumerate().map(line).collect();
        self.0.get_mut().write_all(lines.as_bytes()).unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

#[test]
fn commands_are_answered_amidst_the_starts_of_many() {
    let units = (0..200).map(|at| {
        format!("[unit.u{at}]\nexec = ['sleep', '1000']\nmode = 'none'\nready = 'delay=1ms'\nautostart = false\n")
    });
    let names: Vec<String> = (0..200).map(|at| format!("u{at}")).collect();
    let mut scene = Scene::up(&units.collect::<String>());
    let mut client = Client::connect(&scene);
    client.ask(&[("start", json!({ "services": names })), ("status", json!({}))]);
    client.answer();
    let status = client.answer();
    let services = status["result"]["services"].as_array().unwrap();
    let waiting = services.iter().filter(|service| service["pid"].is_null()).count();
    assert!(waiting > 0 && services.len() == 200, "all were started before the second command was heard");
    assert!(services.iter().all(|service| service["want"] == "running" && service["state"] != "stopped"));
    wait_until("all run", || scene.status().iter().all(|service| service["state"] == "running").then_some(()));
    assert_eq!(scene.stop(), 0);
}

/// Their connections wait in the queue when the supervisor ends.
#[test]
fn who_asks_in_the_last_moment_is_answered() {
    let mut scene = Scene::up("[unit.a]\nexec = ['true']\nautostart = false\n");
    let pid = scene.supervisor();
    freeze(pid);
    let requests = [("shutdown", json!({ "wait": true })), ("shutdown", json!({})), ("status", json!({}))];
    let mut clients: Vec<Client> = requests.iter().map(|_| Client::connect(&scene)).collect();
    clients.iter_mut().zip(&requests).for_each(|(client, request)| client.ask(std::slice::from_ref(request)));
    signal(pid, SIGTERM);
    thaw(pid);
    let answers: Vec<Value> = clients.iter_mut().map(Client::answer).collect();
    assert_eq!(scene.end(), 0);
    assert_eq!(answers[0]["result"]["stopped"], true, "{answers:?}");
    assert_eq!(answers[1]["result"]["stopped"], true, "{answers:?}");
    assert_eq!(answers[2]["error"]["message"], "the supervisor has ended", "{answers:?}");
}
