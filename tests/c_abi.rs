//! The C ABI as a C programmer meets it: the file, the header, and what every function does with what it should not get.

mod compiled;

use compiled::{expect_success, library, program, root};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

#[test]
fn the_library_exports_exactly_the_committed_symbols() {
    let listed = expect_success(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(library()));
    let exported: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    let committed = fs::read_to_string(root().join("ffi-tests/symbols.txt")).unwrap();
    let committed: BTreeSet<&str> = committed.lines().collect();
    let (new, gone): (Vec<_>, Vec<_>) =
        (exported.difference(&committed).collect(), committed.difference(&exported).collect());
    assert!(new.is_empty() && gone.is_empty(), "not in ffi-tests/symbols.txt: {new:?}; only there: {gone:?}");
    let header = fs::read_to_string(root().join("include/handoff.h")).unwrap();
    let undeclared: Vec<_> = committed.iter().filter(|name| !header.contains(&format!("{name}("))).collect();
    assert!(undeclared.is_empty(), "exported, but not declared: {undeclared:?}");
}

#[test]
fn the_file_has_its_name_stays_loaded_and_needs_nothing_unusual() {
    let dynamic = expect_success(Command::new("readelf").args(["-d", "-W"]).arg(library()));
    assert!(dynamic.contains("Library soname: [libhandoff.so.0]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
    let usual = ["libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libm.so.6"];
    for line in dynamic.lines().filter(|line| line.contains("(NEEDED)")) {
        assert!(usual.iter().any(|name| line.contains(&format!("[{name}]"))), "{line}");
    }
}

#[test]
fn no_input_and_no_order_of_calls_is_worse_than_an_error_code() {
    let data = tempfile::tempdir().unwrap();
    let abuse = program("abuse", "ffi-tests/c/abuse.c", &["-std=c11"]);
    expect_success(Command::new("timeout").arg("120").arg(abuse).arg(data.path()));
}

/// An example that runs without a supervisor, until SIGTERM.
struct Example(Child);

impl Example {
    fn ask(address: &str, lines: &[(&str, &str)]) {
        let socket = TcpStream::connect(address).unwrap();
        let mut answers = BufReader::new(socket.try_clone().unwrap()).lines();
        for (request, answer) in lines {
            writeln!(&socket, "{request}").unwrap();
            assert_eq!(answers.next().unwrap().unwrap(), *answer);
        }
    }

    fn stop(mut self) {
        expect_success(Command::new("kill").arg(self.0.id().to_string()));
        assert!(self.0.wait().unwrap().success(), "SIGTERM is a good end");
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill(); // gone already, if all went well
        let _ = self.0.wait();
    }
}

#[test]
fn the_store_runs_by_itself_and_keeps_its_data() {
    let data = tempfile::tempdir().unwrap();
    let kv = program("kv", "examples-c/kv.c", &["-std=c11"]);
    for exchange in [[("SET a 1", "OK 1"), ("GET a", "VALUE 1")], [("GET a", "VALUE 1"), ("SET b 2", "OK 2")]] {
        let mut example =
            Example(Command::new(&kv).arg(data.path()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
        let mut said = String::new();
        BufReader::new(example.0.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
        let address = said.trim().strip_prefix("kv: listening on ").unwrap_or_else(|| panic!("{said}"));
        Example::ask(address, &exchange);
        example.stop();
    }
}

#[test]
fn the_smallest_daemon_runs_on_a_listener_that_anybody_gives_it() {
    let echo = program("echo", "examples-c/echo.c", &["-std=c11"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let give = "exec 3<&0; LISTEN_FDS=1 LISTEN_FDNAMES=echo.socket LISTEN_PID=$$ exec \"$0\"";
    let mut command = Command::new("sh");
    let example = Example(command.args(["-c", give]).arg(echo).stdin(OwnedFd::from(listener)).spawn().unwrap());
    Example::ask(&address, &[("hello", "hello"), ("again", "again")]);
    example.stop();
}
