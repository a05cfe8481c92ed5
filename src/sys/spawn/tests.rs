use std::fs;
use std::io::{Write, stderr, stdout};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::unistd::pipe2;

use super::child::{place_descriptors, write_decimal};
use super::*;
use crate::sys::pidfd::ExitStatus;
use crate::sys::testing::{read_all, wait_for};

fn strings(args: &[&str]) -> Vec<OsString> {
    args.iter().map(OsString::from).collect()
}

fn request<'a>(program: &'a Path, argv: &'a [OsString]) -> Spawn<'a> {
    Spawn::new(program, argv)
}

/// A request to which only the program is missing.
fn plain() -> Spawn<'static> {
    request("".as_ref(), &[])
}

fn end(child: &Child) -> ExitStatus {
    wait_for(child.pidfd.as_fd(), PollFlags::POLLIN);
    child.pidfd.wait().unwrap().unwrap()
}

/// Runs a program from `PATH` to its end; its pid and output.
fn run(args: &[&str], with: Spawn<'_>) -> (i32, String) {
    let argv = strings(args);
    let program = find_program(&argv[0]).unwrap();
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let child = spawn(&Spawn { program: &program, argv: &argv, stdout: Some(write.as_fd()), ..with });
    let child = child.unwrap();
    drop(write);
    let output = read_all(&read);
    assert_eq!(end(&child).to_string(), "exit status 0", "{output}");
    (child.pid, output)
}

/// Files that hold their own index.
fn numbered(count: usize) -> Vec<OwnedFd> {
    (0..count)
        .map(|i| {
            let mut file = tempfile::tempfile().unwrap();
            write!(file, "{i}").unwrap();
            file.into()
        })
        .collect()
}

#[test]
fn the_environment_is_complete_and_has_the_childs_pid() {
    let env = [("A", "1"), ("LISTEN_PID", "1"), ("B", "two words")];
    let env = env.map(|(name, value)| (name.into(), value.into()));
    let with = Spawn { env: &env, ..plain() };
    assert_eq!(run(&["env"], with).1, "A=1\nLISTEN_PID=1\nB=two words\n");
    let (pid, output) = run(&["env"], Spawn { listen_pid: true, ..with });
    assert_eq!(output, format!("LISTEN_PID={pid}\nA=1\nB=two words\n"));
}

#[test]
fn directory_and_session() {
    let with = Spawn { dir: Some("/usr".as_ref()), new_session: true, ..plain() };
    assert_eq!(run(&["pwd"], with).1, "/usr\n");
    let (pid, stat) = run(&["cat", "/proc/self/stat"], with);
    let session = |stat: &str| stat.split(' ').nth(5).unwrap().to_owned();
    assert_eq!(session(&stat), pid.to_string());
    let ours = session(&fs::read_to_string("/proc/self/stat").unwrap());
    assert_eq!(session(&run(&["cat", "/proc/self/stat"], plain()).1), ours);
}

#[test]
fn descriptors_are_in_order_and_all_others_closed() {
    let files = numbered(200);
    // In several orders, some twice, so that places and sources cross.
    for step in [1, 7, 199] {
        let order: Vec<usize> = (0..250).map(|i| (i * step + 13) % files.len()).collect();
        let fds: Vec<_> = order.iter().map(|i| files[*i].as_fd()).collect();
        let with = Spawn { fds: &fds, ..plain() };
        let output = run(&["ls", "/proc/self/fd"], with).1;
        let mut open: Vec<i32> = output.lines().map(|line| line.parse().unwrap()).collect();
        open.sort_unstable();
        // The last is the one with which ls reads the directory.
        assert_eq!(open, (0..=253).collect::<Vec<_>>());
        let paths: Vec<_> = (3..253).map(|fd| format!("/proc/self/fd/{fd}")).collect();
        let mut args = vec!["cat"];
        args.extend(paths.iter().map(String::as_str));
        let expected: String = order.iter().map(usize::to_string).collect();
        assert_eq!(run(&args, with).1, expected);
    }
}

#[test]
fn a_descriptor_that_is_in_its_place_already_loses_cloexec() {
    let files = numbered(3);
    let highest = files.iter().map(|fd| fd.as_raw_fd()).max().unwrap();
    let index = files.iter().position(|fd| fd.as_raw_fd() == highest).unwrap();
    let mut fds: Vec<_> = (LISTEN_FDS_START..highest).map(|_| files[0].as_fd()).collect();
    fds.push(files[index].as_fd());
    let output = run(&["cat", &format!("/proc/self/fd/{highest}")], Spawn { fds: &fds, ..plain() });
    assert_eq!(output.1, index.to_string());
}

#[test]
fn signals_are_neither_blocked_nor_ignored() {
    // Rust's runtime ignores SIGPIPE in this process, so there is something to reset.
    let usr1 = 1 << (libc::SIGUSR1 - 1);
    let before = set_signal_mask(usr1).unwrap();
    let output = run(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"], plain()).1;
    assert_eq!(set_signal_mask(before).unwrap(), usr1, "the caller's mask is as before");
    assert_eq!(output.lines().count(), 2);
    for line in output.lines() {
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
}

#[test]
fn stdin_is_null_and_stderr_is_given() {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let with = Spawn { stderr: Some(write.as_fd()), fds: &[write.as_fd()], ..plain() };
    let script = "readlink /proc/self/fd/0; echo oops >&2; echo three >&3";
    assert_eq!(run(&["sh", "-c", script], with).1, "/dev/null\n");
    drop(write);
    assert_eq!(read_all(&read), "oops\nthree\n");
}

#[test]
fn output_may_be_the_other_way_round() {
    // Our own 1 and 2, exchanged: in a child, whose 1 and 2 nobody else needs.
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let prepared = Prepared::new(&Spawn { stdout: Some(stderr().as_fd()), stderr: Some(stdout().as_fd()), ..plain() });
    let mut prepared = prepared.unwrap_or_else(|failure| panic!("{failure:?}"));
    let child = crate::sys::testing::Forked::that_runs(|| {
        // SAFETY: async-signal-safe calls in a child that ends at once.
        unsafe {
            libc::dup2(write.as_raw_fd(), 2);
            let placed = place_descriptors(&mut prepared).is_ok();
            libc::write(1, c"x".as_ptr().cast(), 1);
            !placed as u8
        }
    });
    drop(write);
    assert_eq!(child.exit_code(), 0);
    assert_eq!(read_all(&read), "x");
}

#[test]
fn every_failure_says_what_to_do_and_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let argv = strings(&["x"]);
    let error = |path: &Path| {
        let error = spawn(&request(path, &argv)).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        (error.step, error.errno, error.to_string())
    };
    let (step, errno, text) = error(&dir.path().join("none"));
    assert_eq!((step, errno), ("execve", libc::ENOENT));
    assert!(text.ends_with("no such file"), "{text}");
    let (_, errno, text) = error(&file("script", "#! /no/such/shell -e\n", 0o755));
    assert_eq!(errno, libc::ENOENT);
    assert!(text.contains("interpreter is missing: /no/such/shell"), "{text}");
    let (_, errno, text) = error(&file("text", "echo hello\n", 0o755));
    assert_eq!(errno, libc::ENOEXEC);
    assert!(text.contains("wrong architecture"), "{text}");
    let (_, errno, text) = error(&file("plain", "#!/bin/sh\n", 0o644));
    assert_eq!(errno, libc::EACCES);
    assert!(text.contains("not executable"), "{text}");
    let (_, errno, text) = error(dir.path());
    assert_eq!(errno, libc::EACCES);
    assert!(text.contains("is a directory"), "{text}");

    let argv = strings(&["sh"]);
    let mut lost = request("/bin/sh".as_ref(), &argv);
    lost.dir = Some("/no/such/dir".as_ref());
    let error = spawn(&lost).unwrap_err();
    assert_eq!(error.to_string(), "cannot start /bin/sh: chdir: /no/such/dir: No such file or directory");
    let nul = [OsString::from("a\0b")];
    let error = spawn(&request("/bin/sh".as_ref(), &nul)).unwrap_err();
    assert_eq!(error.errno, libc::EINVAL);
    let mut bad = request("/bin/sh".as_ref(), &argv);
    let env = [("A=B".into(), "".into())];
    bad.env = &env;
    assert_eq!(spawn(&bad).unwrap_err().errno, libc::EINVAL);
}

#[test]
fn pids_are_written_in_decimal() {
    for number in [0, 7, 10, 4_194_304, 2_147_483_647] {
        let mut text = [b'x'; PID_BYTES_MAX];
        // SAFETY: the buffer has PID_BYTES_MAX bytes.
        unsafe { write_decimal(number, text.as_mut_ptr()) };
        let text = std::ffi::CStr::from_bytes_until_nul(&text).unwrap();
        assert_eq!(text.to_str().unwrap(), number.to_string());
    }
}
