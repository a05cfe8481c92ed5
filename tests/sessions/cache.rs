//! The cache: memory that is handed over as it lies, by its descriptor.

use crate::support::{KeptAlive, PATIENCE, SIGKILL, Service, faulty_script, signal, wait_until, waits};
use crate::{Programs, commit, hang, launch, roll_back, write_until_stalled};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

const MIB: u64 = 1 << 20;

fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| Programs::of("cache"))
}

/// The cache as a service, and its builds as scripts that tell them the size of the table.
struct Cache {
    service: Service,
    a: PathBuf,
    b: PathBuf,
    faulty: PathBuf,
}

impl Cache {
    fn start(mib: u64) -> Self {
        let mut service = Service::place();
        let sized = |name: &str, program: &Path| {
            let script = service.path(name);
            fs::write(&script, format!("#!/bin/sh\nexec {} {mib}\n", program.display())).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            script
        };
        let (a, b) = (sized("a", &programs().a), sized("b", &programs().b));
        let faulty = sized("faulty", &programs().faulty);
        launch(&mut service, "cache", &a);
        Self { service, a, b, faulty }
    }

    fn with_fault(&self, fault: &str) -> PathBuf {
        faulty_script(self.service.dir.path(), &self.faulty, fault)
    }

    fn roll_back(&self) {
        roll_back(&self.service, || self.service.upgrade(&self.with_fault("unhealthy"), &[]));
    }

    fn connect(&self) -> KeptAlive {
        KeptAlive::connect(self.service.address)
    }
}

/// A field of the answer to STAT.
fn stat(client: &mut KeptAlive, field: &str) -> String {
    let answer = client.ask("STAT");
    let mut words = answer.split(' ').skip_while(|word| *word != field).skip(1);
    words.next().unwrap_or_else(|| panic!("no {field}: {answer}")).to_owned()
}

fn number(client: &mut KeptAlive, field: &str) -> u64 {
    stat(client, field).parse().unwrap()
}

/// Sends all requests at once, on a connection of its own; their replies.
fn ask_all(address: SocketAddr, requests: impl Iterator<Item = String>) -> Vec<String> {
    let requests: Vec<String> = requests.collect();
    let (stream, count) = (TcpStream::connect(address).unwrap(), requests.len());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || writer.write_all((requests.join("\n") + "\n").as_bytes()).unwrap());
    let replies = BufReader::new(stream).lines().take(count).map(Result::unwrap).collect();
    writing.join().unwrap();
    replies
}

/// What is there of the keys below `count`.
fn read_all(cache: &Cache, count: u64) -> Vec<String> {
    ask_all(cache.service.address, (0..count).map(|i| format!("GET key{i}")))
}

/// The memfd of a process, through which a test can look at it, and write.
fn memfd(pid: i32) -> PathBuf {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path());
    let is_table =
        |path: &PathBuf| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:cache"));
    let found: Vec<PathBuf> = entries.filter(is_table).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// The table's magic, number of sets, entries, and clock, which goes on with every request.
fn header(pid: i32) -> [u8; 32] {
    let mut header = [0; 32];
    fs::File::open(memfd(pid)).unwrap().read_exact_at(&mut header, 0).unwrap();
    header
}

/// What a process has in memory, in KiB; what is shared is counted by halves, where two share it.
fn proportional_kib(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A table that is as good as full in memory goes through a kill, a commit, a rollback and a commit.
fn the_table_stays(mib: u64) {
    let cache = Cache::start(mib);
    let (service, bytes) = (&cache.service, mib * MIB);
    let mut client = cache.connect();
    assert_eq!(number(&mut client, "bytes"), bytes);

    // A quarter of the slots, which are everywhere.
    let entries = bytes / 256 / 4;
    let value = "v".repeat(150);
    let stored = ask_all(service.address, (0..entries).map(|i| format!("SET key{i} {value}{i}")));
    assert!(stored.iter().all(|reply| reply == "STORED"));
    let before = read_all(&cache, entries);
    let there = before.iter().filter(|reply| *reply != "NONE").count() as u64;
    assert!(there > entries * 99 / 100, "{there} of {entries}");
    assert_eq!(number(&mut client, "entries"), there);

    let incumbent = service.daemon_pid();
    let inode = fs::metadata(memfd(incumbent)).unwrap().ino();
    assert_eq!(number(&mut client, "inode"), inode);
    let allocated_kib = fs::metadata(memfd(incumbent)).unwrap().blocks() / 2;
    assert!(allocated_kib > bytes / 1024 * 9 / 10, "{allocated_kib} KiB");

    // While both are there, the memory is there once.
    let mut early = TcpStream::connect(service.address).unwrap();
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    cache.connect().ask("STAT"); // a later one is served: it is accepted
    let (upgrading, successor) = hang(service, &cache.with_fault("hang"));
    assert_eq!(fs::metadata(memfd(successor)).unwrap().ino(), inode);
    let both_kib = proportional_kib(incumbent) + proportional_kib(successor);
    assert!(both_kib < allocated_kib * 5 / 4, "{both_kib} KiB in both, of a table of {allocated_kib}");
    // Nor is it written, until it is known whose it is.
    let head = header(incumbent);
    early.write_all(b"SET early 1\n").unwrap();
    wait_until("the incumbent does nothing", || waits(incumbent).then_some(()));
    assert_eq!(header(incumbent), head);
    roll_back(service, || {
        signal(successor, SIGKILL);
        upgrading.wait()
    });
    assert_eq!(BufReader::new(early).lines().next().unwrap().unwrap(), "STORED");
    assert!(read_all(&cache, entries) == before, "after the kill");
    assert_eq!(client.ask("SET killed 1"), "STORED");

    for (build, program) in [("b", &cache.b), ("a", &cache.a)] {
        commit(service, program);
        assert_eq!(fs::metadata(memfd(service.daemon_pid())).unwrap().ino(), inode);
        assert_eq!((stat(&mut client, "build").as_str(), number(&mut client, "inode")), (build, inode));
        let touched = number(&mut client, "touched");
        assert!(touched <= 1024, "{touched} KiB of the table were touched before it served");
        assert!(read_all(&cache, entries) == before, "after a commit");
        assert_eq!(client.ask("GET killed"), "VALUE 1");
        assert_eq!(client.ask(&format!("SET by-{build} {build}")), "STORED");

        cache.roll_back();
        assert_eq!(stat(&mut client, "build"), build);
        assert!(read_all(&cache, entries) == before, "after a rollback");
        assert_eq!(client.ask(&format!("SET again-{build} {build}")), "STORED");
    }
    for key in ["by-b", "again-b", "by-a", "again-a"] {
        assert_eq!(client.ask(&format!("GET {key}")), format!("VALUE {}", &key[key.len() - 1..]));
    }
    assert_eq!(number(&mut client, "entries"), there + 6);
    assert_eq!(number(&mut client, "damaged"), 0);
}

#[test]
fn a_table_of_64_mib_is_there_after_commits_and_rollbacks_and_is_never_copied() {
    the_table_stays(64);
}

#[test]
#[ignore = "a GiB of memory, and half a minute"]
fn a_table_of_one_gib_is_there_after_commits_and_rollbacks_and_is_never_copied() {
    the_table_stays(1024);
}

#[test]
fn an_entry_that_was_half_written_is_not_served() {
    let cache = Cache::start(1);
    let mut client = cache.connect();
    for key in ["whole", "half"] {
        assert_eq!(client.ask(&format!("SET {key} value-of-{key}")), "STORED");
    }
    // As if its writer had been killed in the middle.
    let path = memfd(cache.service.daemon_pid());
    let table = fs::read(&path).unwrap();
    let at = table.windows(13).position(|text| text == b"value-of-half").unwrap();
    fs::File::options().write(true).open(path).unwrap().write_all_at(b"VALUE", at as u64).unwrap();
    commit(&cache.service, &cache.b);
    assert_eq!([client.ask("GET half"), client.ask("GET whole")], ["NONE", "VALUE value-of-whole"]);
    assert_eq!((number(&mut client, "damaged"), number(&mut client, "entries")), (1, 1));
    assert_eq!([client.ask("SET half 2"), client.ask("GET half")], ["STORED", "VALUE 2"]);
    assert_eq!((number(&mut client, "damaged"), number(&mut client, "entries")), (1, 2));
}

#[test]
fn clients_move_with_half_of_a_line_and_with_replies_that_they_have_not_read() {
    let cache = Cache::start(1);
    let value = "v".repeat(200);
    assert_eq!(cache.connect().ask(&format!("SET key {value}")), "STORED");
    let line = "GET key\n";
    let halves: Vec<TcpStream> = (0..=line.len())
        .map(|cut| {
            let mut stream = TcpStream::connect(cache.service.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&line.as_bytes()[..cut]).unwrap();
            stream
        })
        .collect();
    let mut slow = TcpStream::connect(cache.service.address).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    let written = write_until_stalled(&cache.service, &slow, line.repeat(2_000_000).as_bytes());
    println!("stalled after {written} bytes");

    commit(&cache.service, &cache.b);
    cache.roll_back();
    commit(&cache.service, &cache.a);
    let reply = format!("VALUE {value}");
    for (cut, mut stream) in halves.into_iter().enumerate() {
        stream.write_all(&line.as_bytes()[cut..]).unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next().unwrap().unwrap(), reply);
    }
    let requests = written.div_ceil(line.len());
    let replies = BufReader::new(slow.try_clone().unwrap()).lines().take(requests);
    let rest = thread::spawn(move || slow.write_all(&line.repeat(requests).as_bytes()[written..]).unwrap());
    assert_eq!(replies.map(Result::unwrap).filter(|line| *line == reply).count(), requests);
    rest.join().unwrap();
}

#[test]
fn a_client_sees_that_the_successor_hangs_up_while_its_incumbent_is_parked() {
    let cache = Cache::start(1);
    let mut client = cache.connect();
    assert_eq!(client.ask("SET key value"), "STORED");
    let upgrade = cache.service.upgrade(&cache.b, &["--probation", "10m"]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    assert_eq!(client.ask("GET key"), "VALUE value");
    client.say(&"x".repeat(512)); // the line is too long
    assert_eq!(client.hear(), "");
}
