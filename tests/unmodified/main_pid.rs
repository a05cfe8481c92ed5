//! MAINPID: a daemon says which of its processes it is.

use crate::clients::{Load, replace, request, run, serving, upgrade};
use crate::harness::{Place, lives, pid_of, signal, text, wait_until};
use crate::small::small;
use crate::support::{children, programs};
use nix::sys::signal::Signal;

const NOTIFY: &str = "--listen web=127.0.0.1:0 --mode overlap --ready notify";

/// The parent of a process.
fn parent(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// Whoever it was before exits, in the same session or in another one; the service goes on with the one it has named.
#[test]
fn the_process_that_it_names_is_the_daemon() {
    for how in ["exit", "away"] {
        let place = Place::new();
        let (program, plain) =
            (small(&place, "moves", &format!("notify main={how}")), small(&place, "plain", "notify"));
        let mut run = run(&place, &format!("{NOTIFY} --restart always"), &[text(&program)]);
        let (first, address) = serving(&run);
        // Whoever loses its parent becomes a child of the supervisor.
        wait_until("the end of the one before", || (children(run.pid()) == [first]).then_some(()));
        assert_eq!(parent(first), run.pid(), "{how}");
        assert_eq!(request(address).unwrap(), first, "{how}");
        // It gets the stop signal, and its end is the end.
        let load = Load::start(address);
        let second = replace(&place, first, None);
        let third = replace(&place, second, Some(&plain));
        let fourth = replace(&place, third, Some(&program));
        wait_until("its answer", || (request(address).ok()? == fourth).then_some(()));
        load.expect_good(&[]);
        // Its death is seen, and how it died.
        signal(fourth, Signal::SIGKILL);
        let service = run.wait_for("the next", |service| service["restarts"] == 1 && service["state"] == "running");
        let fifth = pid_of(&service);
        assert_ne!(fifth, fourth, "{service}");
        assert!(service["cause"].as_str().unwrap().contains("killed by signal 9"), "{service}");
        assert_eq!(request(address).unwrap(), fifth, "{how}");
        signal(run.pid(), Signal::SIGTERM);
        run.end();
        assert!(!lives(fifth), "{how}");
    }
}

/// A main process that stays beside the one it has started is no daemon of its own: it ends with that one.
#[test]
fn who_was_the_daemon_before_ends_with_it() {
    let place = Place::new();
    let program = small(&place, "stays", "notify main=stay");
    let run = run(&place, NOTIFY, &[text(&program)]);
    let (daemon, address) = serving(&run);
    let before = parent(daemon);
    assert_eq!(children(run.pid()), [before]);
    assert_eq!(request(address).unwrap(), daemon);
    signal(daemon, Signal::SIGKILL);
    let service = run.wait_for("the next", |service| service["restarts"] == 1 && service["state"] == "running");
    assert!(!lives(before), "{service}");
    assert_eq!(children(run.pid()), [parent(pid_of(&service))]);
    assert_eq!(request(address).unwrap(), pid_of(&service));
    // And if that one dies alone, nobody hears of it.
    let (daemon, before) = (pid_of(&service), parent(pid_of(&service)));
    signal(before, Signal::SIGKILL);
    wait_until("it is reaped", || (children(run.pid()) == [daemon]).then_some(()));
    let service = run.wait_for("an answer", |_| true);
    assert_eq!((pid_of(&service), &service["restarts"]), (daemon, &serde_json::json!(1)), "{service}");
    assert_eq!(request(address).unwrap(), daemon);
}

/// Also when it exits by itself, and the service with it: in the same session or in another one, and under the next supervisor.
#[test]
fn who_was_the_daemon_before_ends_with_the_service() {
    for (how, restarted) in [("stay", false), ("stay-away", false), ("stay", true), ("stay-away", true)] {
        let place = Place::new();
        let program = small(&place, "stays", &format!("notify main={how}"));
        let mut first_run = run(&place, NOTIFY, &[text(&program)]);
        let (daemon, address) = serving(&first_run);
        let before = parent(daemon);
        assert_eq!(children(first_run.pid()), [before]);
        let again = restarted.then(|| {
            signal(first_run.pid(), Signal::SIGKILL);
            first_run.end();
            run(&place, NOTIFY, &[text(&program)])
        });
        let mut run = again.unwrap_or(first_run);
        assert_eq!(serving(&run), (daemon, address));
        signal(daemon, Signal::SIGTERM);
        let code = run.end();
        assert!(!lives(before), "{how}, restarted: {restarted}: its end was {code}; {}", run.stderr());
    }
}

#[test]
fn the_next_supervisor_takes_over_the_one_that_was_named() {
    let place = Place::new();
    let program = small(&place, "moves", "notify main=exit");
    let mut first_run = run(&place, NOTIFY, &[text(&program)]);
    let (daemon, address) = serving(&first_run);
    signal(first_run.pid(), Signal::SIGKILL);
    first_run.end();
    let run = run(&place, NOTIFY, &[text(&program)]);
    assert_eq!(serving(&run), (daemon, address));
    let next = replace(&place, daemon, None);
    assert_eq!(request(address).unwrap(), next);
}

#[test]
fn a_process_that_is_not_its_own_is_not_believed() {
    let place = Place::new();
    let (good, own) = (small(&place, "good", "notify"), std::process::id());
    let run = run(&place, NOTIFY, &[text(&good)]);
    let (incumbent, address) = serving(&run);
    // Init, the supervisor, this test, the daemon beside it, nobody, and such that are no numbers of processes.
    let lies = format!("1,{},{own},{incumbent},999999999,0,-1,x", run.pid());
    let liar = small(&place, "liar", &format!("notify lies={lies}"));
    let (code, outcome) = upgrade(&place, Some(&liar), "");
    assert_eq!((code, outcome["result"].as_str()), (0, Some("committed")), "{outcome}");
    let successor = pid_of(&outcome);
    wait_until("the incumbent's end", || (!lives(incumbent)).then_some(()));
    for lie in [1, run.pid(), own as i32, incumbent, 999_999_999, 0] {
        run.wait_for_text(&format!("MAINPID={lie} is left out: "));
    }
    assert!(children(run.pid()).contains(&successor) && lives(run.pid()));
    let service = run.wait_for("an answer", |service| service["state"] == "running");
    assert_eq!((pid_of(&service), request(address).unwrap()), (successor, successor));
}

/// A daemon that links the library has said by its Hello who it is.
#[test]
fn of_a_daemon_that_links_the_library_it_is_not_believed() {
    let place = Place::new();
    let (kv, data, go) = (&programs().kv_a, place.path("data"), place.path("go"));
    std::fs::create_dir(&data).unwrap();
    let helper = place.file(
        "helper.py",
        format!(
            "import os, socket, time\nwhile not os.path.exists({:?}): time.sleep(0.02)\n\
             s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.connect(os.environ['NOTIFY_SOCKET'])\n\
             s.send(b'MAINPID=%d' % os.getpid())\ntime.sleep(1000)\n",
            text(&go)
        ),
        0o644,
    );
    let script = format!("#!/bin/sh\npython3 {} &\nexec {} \"$@\"\n", text(&helper), text(kv));
    let program = place.file("kv-with-a-helper", script, 0o755);
    let arguments = format!("--listen kv=127.0.0.1:0 --data-dir {}", text(&data));
    let run = run(&place, &arguments, &[text(&program)]);
    let (daemon, _) = run.running();
    std::fs::write(&go, "").unwrap();
    run.wait_for_text("is left out: this daemon links libhandoff");
    let service = run.wait_for("an answer", |service| service["state"] == "running");
    assert_eq!(pid_of(&service), daemon, "{service}");
}
