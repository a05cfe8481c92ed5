//! The supervisor raises its soft limit on descriptors. Its children have the one that it was started with.

use super::copy::copy_program;
use super::harness::{Place, Run, text};
use super::{shut_down, written};
use std::fs;
use std::process::{Command, Stdio};

const SOFT: &str = "24";

/// The same as `up`, with another soft limit.
fn up_with_limit<'a>(place: &'a Place, units: &str) -> Run<'a> {
    let file = place.file("units.toml", units, 0o644);
    let handoff = place.handoff("up");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("ulimit -Sn {SOFT}; exec \"$0\" \"$@\"")]).arg(handoff.get_program());
    command.args(handoff.get_args()).arg("-c").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
    command.envs(handoff.get_envs().filter_map(|(name, value)| Some((name, value?))));
    place.spawn(command)
}

/// A unit whose processes tell their own limits.
fn teller(place: &Place, name: &str, keys: &str) -> String {
    let tell = |file: &str, then: &str| {
        let file = place.path(file);
        format!("['/bin/sh', '-c', 'echo $(ulimit -Sn):$(ulimit -Hn) >> {}{then}']", text(&file))
    };
    let (exec, before) = (tell(name, "; exec sleep 1000"), tell(&format!("{name}.before"), ""));
    format!("[unit.{name}]\nexec = {exec}\npre_start = {before}\nmode = 'none'\nready = 'delay=1ms'\n{keys}\n")
}

#[test]
fn children_have_the_limit_of_before_also_from_the_next_program() {
    let place = Place::new();
    let listen: Vec<String> = (0..12).map(|at| format!("'l{at}=127.0.0.1:0'")).collect();
    let units = [
        teller(&place, "plain", ""),
        teller(&place, "own", "rlimits = { nofile = '64:128' }"),
        teller(&place, "many", &format!("listen = [{}]", listen.join(", "))),
    ];
    let mut run = up_with_limit(&place, &units.concat());
    let hard = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().1;
    let other = place.path("other-handoff");
    copy_program(env!("CARGO_BIN_EXE_handoff"), &other);
    let programs = [text(&other), env!("CARGO_BIN_EXE_handoff")];
    for starts in 1..=3 {
        let last = |name: &str| written(&place.path(name), starts)[starts - 1].clone();
        assert_eq!(last("plain"), format!("{SOFT}:{hard}"), "start {starts}");
        assert_eq!(last("plain.before"), format!("{SOFT}:{hard}"), "a command; start {starts}");
        assert_eq!(last("own"), "64:128", "start {starts}");
        assert_eq!(last("many"), format!("{hard}:{hard}"), "with so many listeners it could open nothing");
        let limits = fs::read_to_string(format!("/proc/{}/limits", run.pid())).unwrap();
        let own = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        assert_eq!(own.split_whitespace().next(), Some(hard.to_string().as_str()), "that of the supervisor");
        if let Some(program) = programs.get(starts - 1) {
            place.output("self-upgrade", &[program]).expect(0, &[]);
            place.output("restart", &["plain", "own", "many"]).expect(0, &[]);
        }
    }
    shut_down(&mut run);
}
