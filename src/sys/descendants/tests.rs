use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

#[test]
fn ends_a_child_with_all_that_descend_from_it() {
    // Three generations, each in a session of its own.
    let line = "setsid sh -c 'echo $$; setsid sh -c \"echo \\$\\$; sleep 1000\" & sleep 1000' & echo $$; sleep 1000";
    let mut child = Command::new("sh").args(["-c", line]).stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let pids: Vec<i32> = output.lines().take(3).map(|line| line.unwrap().parse().unwrap()).collect();
    assert!(orphans(&mut Look::default()).contains(&child.id().cast_signed()), "the library did not start it");
    let ended = end_with_descendants(&[child.id().cast_signed()], &mut Look::default());
    assert!(ended.len() >= 3, "{ended:?}");
    child.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while pids.iter().any(|pid| Look::default().living(*pid).is_some()) {
        assert!(Instant::now() < until, "one lives on");
    }
}

#[test]
fn a_stranger_is_not_ended() {
    // Not a child of this process.
    assert!(end_with_descendants(&[1], &mut Look::default()).is_empty());
}

#[test]
fn a_variable_is_that_of_the_start() {
    let mut child = Command::new("sleep").arg("1000").env("MARK", "one=two").env("MARKER", "").spawn().unwrap();
    let pid = child.id().cast_signed();
    let until = Instant::now() + Duration::from_secs(60);
    while variable_of(pid, "MARK", &mut Look::patient()).is_none() {
        assert!(Instant::now() < until, "its environment can not be read");
    }
    assert_eq!(variable_of(pid, "MARK", &mut Look::patient()).unwrap(), b"one=two");
    assert_eq!(variable_of(pid, "MARKER", &mut Look::patient()).unwrap(), b"");
    assert_eq!(variable_of(pid, "MAR", &mut Look::patient()), None);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(variable_of(i32::MAX, "MARK", &mut Look::patient()), None);
}

#[test]
fn an_environment_that_is_empty_is_one() {
    let mut child = Command::new("sleep").arg("1000").env_clear().spawn().unwrap();
    let pid = child.id().cast_signed();
    let until = Instant::now() + Duration::from_secs(60);
    while environment_size(pid, &mut Look::default()) != Some(Some(0)) {
        assert!(Instant::now() < until, "it never comes to its program");
    }
    assert_eq!(variable_of(pid, "PATH", &mut Look::patient()), None);
    child.kill().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while Look::default().living(pid).is_some() {
        assert!(Instant::now() < until, "it never dies");
    }
    assert_eq!(environment_size(pid, &mut Look::default()), None, "a zombie");
    child.wait().unwrap();
    assert!(
        environment_size(pid, &mut Look::default()).is_none()
            && environment_size(i32::MAX, &mut Look::default()).is_none()
    );
    let threads = proc::pids().filter(|pid| proc::command(*pid).starts_with("[kworker"));
    assert!(threads.take(10).all(|pid| environment_size(pid, &mut Look::default()).is_none()));
}

#[test]
fn a_variable_is_seen_while_its_process_goes_from_program_to_program() {
    const PROGRAMS: usize = 300;
    let line = "n=$1; [ $n = 0 ] && exec sleep 1000; exec sh -c \"$0\" \"$0\" $((n - 1))";
    let mut command = Command::new("sh");
    let mut child = command.args(["-c", line, line, &PROGRAMS.to_string()]).env("MARK", "one").spawn().unwrap();
    let pid = child.id().cast_signed();
    let until = Instant::now() + Duration::from_secs(60);
    while proc::command(pid) != "sleep 1000" {
        assert_eq!(variable_of(pid, "MARK", &mut Look::patient()).as_deref(), Some(&b"one"[..]));
        assert!(Instant::now() < until, "it never comes to its end");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn one_that_has_given_its_environment_away_keeps_nobody_waiting() {
    // prctl(2), PR_SET_MM_ENV_END, would need a capability: the part of the stack is unmapped, as anybody can.
    let line = "import ctypes,os,sys\n\
        start, end = (int(field) for field in open('/proc/self/stat').read().rsplit(')', 1)[1].split()[47:49])\n\
        first = (start + 4095) // 4096 * 4096\n\
        ctypes.CDLL(None).munmap(ctypes.c_void_p(first), ctypes.c_size_t((end + 4095) // 4096 * 4096 - first))\n\
        print(flush=True)\n\
        sys.stdin.read()\n";
    let mut command = Command::new("python3");
    command.args(["-c", line]).env_clear().env("MARK", "one").env("Z", "z".repeat(20_000));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let pid = child.id().cast_signed();
    let size = environment_size(pid, &mut Look::default()).unwrap().unwrap();
    assert!(size > fs::read(format!("/proc/{pid}/environ")).unwrap().len() as u64, "a part of it is gone");
    let mut look = Look::patient();
    variable_of(pid, "OTHER", &mut look);
    assert_eq!(look.pauses(), Look::patient().pauses(), "it was not waited for");
    child.kill().unwrap();
    child.wait().unwrap();
}
