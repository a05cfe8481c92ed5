//! What is so: read from proc(5), cgroups(7), statfs(2), and what the supervisor says. What can not be read is left out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::geteuid;
use serde_json::Value;

use super::manager::{self, Properties};
use crate::service::bad::BadPrograms;
use crate::service::config::{self, Unit};
use crate::service::paths::{RuntimeDir, check_data_dir};
use crate::sys::lock::is_network_fs;
use crate::sys::proc::descriptors;
use crate::sys::program::{check_format, find_program};

/// For how long connections are counted.
const COUNT_TIME: Duration = Duration::from_millis(300);
/// `CAP_SYS_PTRACE` (capabilities(7)).
const CAP_SYS_PTRACE: u32 = 19;
/// Bytes of a file of proc(5) that are read at most: a server may have a million connections.
const TABLE_BYTES_MAX: u64 = 64 << 20;

/// `Seccomp:` of a process that has a filter (proc_pid_status(5)).
pub(super) const SECCOMP_FILTER: u32 = 2;

/// Everything that is looked at.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "named by what they are")]
pub struct Facts {
    pub machine: Machine,
    pub supervisor: Option<Process>,
    /// The unit of systemd that the supervisor, or this command, runs in.
    pub manager: Option<BTreeMap<String, String>>,
    pub services: Vec<ServiceFacts>,
}

/// Of the machine.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "named by what they are")]
pub struct Machine {
    pub kernel: (u32, u32),
    pub runtime: Runtime,
    pub somaxconn: Option<u64>,
    /// `TcpExt: ListenOverflows`, of the supervisor's network namespace.
    pub listen_overflows: Option<u64>,
    /// Bytes.
    pub memory_available: Option<u64>,
}

/// The runtime directory.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "named by what they are")]
pub struct Runtime {
    pub path: PathBuf,
    /// Who asks.
    pub user: u32,
    /// None: it is not there.
    pub found: Option<RuntimeFound>,
}

/// The same, as it was found.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "named by what they are")]
pub struct RuntimeFound {
    pub mode: u32,
    pub owner: u32,
    pub tmpfs: bool,
    pub network: Option<&'static str>,
    pub free_bytes: u64,
    /// None: the file system does not count them.
    pub free_inodes: Option<u64>,
}

/// A process.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "named by what they are")]
pub struct Process {
    pub pid: i32,
    /// How many are open.
    pub descriptors: u64,
    pub nofile_hard: u64,
    /// Bytes.
    pub rss: u64,
    /// 2: it has a filter (proc_pid_status(5)).
    pub seccomp: u32,
    pub no_new_privs: bool,
    /// It has `CAP_SYS_PTRACE`.
    pub may_trace: bool,
    pub ptrace_scope: Option<u32>,
    /// Of the cgroup with the least room: bytes used, and the limit.
    pub memory: Option<(u64, u64)>,
    pub exe: Option<String>,
    pub exe_deleted: bool,
}

/// A service.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "named by what they are")]
pub struct ServiceFacts {
    pub name: String,
    pub pid: Option<i32>,
    pub linked: bool,
    /// A file that it needs to be replaced, and that somebody has removed.
    pub lost_lock: Option<String>,
    pub mode: Option<String>,
    /// It tells otherwise that it is ready.
    pub has_sign: bool,
    /// What the next start would execute.
    pub program: PathBuf,
    pub program_fault: Option<String>,
    /// Why it should not be started: it has failed a probation.
    pub bad: Option<String>,
    pub listeners: usize,
    pub last_pause_ns: u64,
    pub data: Option<DataDir>,
    pub process: Option<Process>,
    pub queues: Vec<Queue>,
}

/// A data directory.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "named by what they are")]
pub struct DataDir {
    pub path: PathBuf,
    pub network: Option<&'static str>,
    pub fault: Option<String>,
}

/// The queue of a TCP listener.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "named by what they are")]
pub struct Queue {
    pub name: String,
    /// Clients that nobody has accepted yet.
    pub waiting: u64,
    pub limit: u64,
    /// All that the network namespace takes.
    pub connections_per_s: Option<u64>,
}

/// Of a supervisor that runs: `status` is its answer.
pub fn of_running(runtime: &RuntimeDir, status: &Value) -> Facts {
    let pid = status["supervisor"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let net = pid.map_or("/proc/self/net".to_owned(), |pid| format!("/proc/{pid}/net"));
    let machine = machine(runtime, &net);
    let rate = connections_per_s(&net);
    let tables: Vec<String> = ["tcp", "tcp6"].map(|table| read(&format!("{net}/{table}"))).to_vec();
    let of = |status: &Value| {
        let mut facts = service(runtime, status, pid);
        facts.queues = queues(status, &tables, machine.somaxconn, rate);
        facts
    };
    let services = status["services"].as_array().into_iter().flatten().map(of).collect();
    Facts { supervisor: pid.and_then(process), manager: systemd_unit(pid), services, machine }
}

/// Of units that do not run.
pub fn of_units<'a>(runtime: &RuntimeDir, units: impl Iterator<Item = (&'a String, &'a Unit)>) -> Facts {
    let of = |(name, unit): (&String, &Unit)| {
        let program = match &unit.exec {
            config::Command::Argv(argv) => argv.first().map(PathBuf::from).unwrap_or_default(),
            config::Command::Shell(_) => "/bin/sh".into(),
        };
        let (program_fault, bad) = look_at_program(runtime, name, &program);
        let data = unit.data_dir.as_deref().map(data_dir);
        ServiceFacts { name: name.clone(), program, program_fault, bad, data, ..ServiceFacts::default() }
    };
    let services = units.map(of).collect();
    Facts { machine: machine(runtime, "/proc/self/net"), supervisor: None, manager: None, services }
}

/// Of the machine alone.
pub fn of_machine(runtime: &RuntimeDir) -> Facts {
    Facts { machine: machine(runtime, "/proc/self/net"), ..Facts::default() }
}

fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    let _ = File::open(path).and_then(|file| file.take(TABLE_BYTES_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn number(path: &str) -> Option<u64> {
    read(path).trim().parse().ok()
}

fn machine(runtime: &RuntimeDir, net: &str) -> Machine {
    let meminfo = read("/proc/meminfo");
    Machine {
        kernel: version(&read("/proc/sys/kernel/osrelease")),
        runtime: look_at_runtime(runtime.path()),
        somaxconn: number("/proc/sys/net/core/somaxconn"),
        listen_overflows: counter(&read(&format!("{net}/netstat")), "TcpExt:", "ListenOverflows"),
        memory_available: field(&meminfo, "MemAvailable:").map(|kib| kib << 10),
    }
}

fn version(release: &str) -> (u32, u32) {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The first number of a line that begins with this word.
fn field(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(word))?.split_whitespace().next()?.parse().ok()
}

/// A counter of a file like `/proc/net/snmp`: a line of names, and one of numbers.
fn counter(text: &str, family: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(family));
    let names = lines.next()?.split_whitespace();
    let numbers = lines.next()?.split_whitespace();
    names.zip(numbers).find(|(found, _)| *found == name)?.1.parse().ok()
}

fn connections_per_s(net: &str) -> Option<u64> {
    let count = || counter(&read(&format!("{net}/snmp")), "Tcp:", "PassiveOpens");
    let before = count()?;
    thread::sleep(COUNT_TIME);
    Some(count()?.saturating_sub(before) * 1000 / COUNT_TIME.as_millis() as u64)
}

fn look_at_runtime(path: &Path) -> Runtime {
    let found = fs::symlink_metadata(path).ok().zip(statfs(path).ok()).map(|(found, system)| RuntimeFound {
        mode: found.mode() & 0o7777,
        owner: found.uid(),
        tmpfs: system.filesystem_type() == TMPFS_MAGIC,
        network: is_network_fs(path).ok().flatten(),
        free_bytes: system.blocks_available() * system.block_size() as u64,
        free_inodes: (system.files() > 0).then(|| system.files_free()),
    });
    Runtime { path: path.to_owned(), user: geteuid().as_raw(), found }
}

fn process(pid: i32) -> Option<Process> {
    let status = read(&format!("/proc/{pid}/status"));
    let limits = read(&format!("/proc/{pid}/limits"));
    let nofile = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    let capabilities = u64::from_str_radix(capabilities.trim(), 16).unwrap_or(0);
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok().map(|exe| exe.to_string_lossy().into_owned());
    Some(Process {
        pid,
        descriptors: descriptors(pid).count() as u64,
        nofile_hard: nofile.split_whitespace().nth(1)?.parse().unwrap_or(u64::MAX),
        rss: field(&status, "VmRSS:").unwrap_or(0) << 10,
        seccomp: field(&status, "Seccomp:").unwrap_or(0) as u32,
        no_new_privs: field(&status, "NoNewPrivs:") == Some(1),
        may_trace: capabilities & (1 << CAP_SYS_PTRACE) != 0,
        ptrace_scope: number("/proc/sys/kernel/yama/ptrace_scope").map(|scope| scope as u32),
        memory: memory(&read(&format!("/proc/{pid}/cgroup"))),
        exe_deleted: exe.as_ref().is_some_and(|exe| exe.ends_with(" (deleted)")),
        exe,
    })
}

/// Of the cgroup and those above it, the one with the least room.
fn memory(cgroups: &str) -> Option<(u64, u64)> {
    let line = |ours: fn(&str) -> bool| cgroups.lines().find(|line| ours(line))?.splitn(3, ':').nth(2);
    let (root, path, names) = match line(|line| line.contains(":memory:")) {
        Some(path) => ("/sys/fs/cgroup/memory", path, ["memory.usage_in_bytes", "memory.limit_in_bytes"]),
        None => ("/sys/fs/cgroup", line(|line| line.starts_with("0::"))?, ["memory.current", "memory.max"]),
    };
    let above = Path::new(path).ancestors().filter_map(|path| path.to_str());
    let found = above.filter_map(|path| {
        let [used, limit] = names.map(|name| number(&format!("{root}{path}/{name}")));
        // The old kind says a number that no machine has if there is no limit.
        used.zip(limit.filter(|limit| *limit < 1 << 60))
    });
    found.min_by_key(|(used, limit)| limit.saturating_sub(*used))
}

fn service(runtime: &RuntimeDir, status: &Value, supervisor: Option<i32>) -> ServiceFacts {
    let word = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    let pid = status["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let mut program = PathBuf::from(word("program"));
    if program.components().count() > 1 && program.is_relative() {
        // The supervisor would look for it from where it is.
        let here = supervisor.and_then(|pid| fs::read_link(format!("/proc/{pid}/cwd")).ok());
        program = here.map_or(program.clone(), |here| here.join(program));
    }
    let name = word("name");
    let (program_fault, bad) = look_at_program(runtime, &name, &program);
    let sockets = status["listeners"].as_array().into_iter().flatten().filter_map(|one| one["sockets"].as_u64());
    ServiceFacts {
        name,
        pid,
        linked: status["linked"] == true,
        lost_lock: status["lost_lock"].as_str().map(str::to_owned),
        mode: status["mode"].as_str().map(str::to_owned),
        has_sign: !status["ready"].is_null(),
        program,
        program_fault,
        bad,
        listeners: sockets.sum::<u64>() as usize,
        last_pause_ns: status["last_handoff"]["pause_ns"].as_u64().unwrap_or(0),
        data: pid.and_then(data_dir_of).as_deref().map(data_dir),
        process: pid.and_then(process),
        queues: Vec::new(),
    }
}

/// Why it can not be executed, and why it should not.
fn look_at_program(runtime: &RuntimeDir, name: &str, program: &Path) -> (Option<String>, Option<String>) {
    let program = match find_program(program.as_os_str()) {
        Ok(program) => program,
        Err(error) => return (Some(error.to_string()), None),
    };
    let bad = BadPrograms::new(runtime.bad(name));
    let bad = File::open(&program).ok().and_then(|file| bad.verdict(&file).ok()).flatten();
    (check_format(&program).err(), bad)
}

/// The variable that the supervisor gives it.
fn data_dir_of(pid: i32) -> Option<PathBuf> {
    let environ = read(&format!("/proc/{pid}/environ"));
    environ.split('\0').find_map(|entry| entry.strip_prefix("HANDOFF_DATA_DIR=")).map(PathBuf::from)
}

fn data_dir(path: &Path) -> DataDir {
    let fault = check_data_dir(path).err().map(|error| error.to_string());
    DataDir { path: path.to_owned(), network: is_network_fs(path).ok().flatten(), fault }
}

/// Of the TCP listeners in a service's status.
fn queues(status: &Value, tables: &[String], limit: Option<u64>, rate: Option<u64>) -> Vec<Queue> {
    let listeners = status["listeners"].as_array().into_iter().flatten();
    let tcp = listeners.filter_map(|listener| {
        let address = listener["address"].as_str()?;
        let port: u16 = address.parse::<std::net::SocketAddr>().ok()?.port();
        let waiting = tables.iter().flat_map(|table| waiting(table, port)).max()?;
        let name = listener["name"].as_str().unwrap_or_default().to_owned();
        Some(Queue { name, waiting, limit: limit?, connections_per_s: rate })
    });
    tcp.collect()
}

/// The queues of the listeners at this port in a table like `/proc/net/tcp`.
fn waiting(table: &str, port: u16) -> impl Iterator<Item = u64> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    table.lines().filter_map(move |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, LISTEN, queues, ..] = words.as_slice() else { return None };
        local.ends_with(&suffix).then(|| u64::from_str_radix(queues.split_once(':')?.1, 16).ok()).flatten()
    })
}

/// What systemd knows of the unit that this process runs in.
fn systemd_unit(pid: Option<i32>) -> Option<Properties> {
    let cgroups = read(&format!("/proc/{}/cgroup", pid?));
    let unit = manager::unit_of(&cgroups)?;
    let user = if cgroups.contains("/user@") { ["--user"].as_slice() } else { &[] };
    let mut systemctl = Command::new("systemctl");
    systemctl.args(user).arg("show").arg(unit).args(manager::NAMES.map(|name| format!("-p{name}")));
    let output = systemctl.output().ok().filter(|output| output.status.success())?;
    Some(manager::parse(&String::from_utf8_lossy(&output.stdout)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("6.18.44-fc\n"), (6, 18));
        assert_eq!(version("5.10"), (5, 10));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn tables_of_the_kernel() {
        let snmp = "Ip: A\nIp: 1\nTcp: RtoMin PassiveOpens X\nTcp: 200 17 3\n";
        assert_eq!(counter(snmp, "Tcp:", "PassiveOpens"), Some(17));
        assert_eq!(counter(snmp, "Udp:", "PassiveOpens"), None);
        assert_eq!(counter("Tcp: A\n", "Tcp:", "A"), None);
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
                   0: 0100007F:1F90 00000000:0000 0A 00000000:00000007 00:0 0 0 0\n   \
                   1: 0100007F:1F90 0100007F:C350 01 00000000:00000009 00:0 0 0 0\n";
        assert_eq!(waiting(tcp, 8080).collect::<Vec<_>>(), [7]);
        assert_eq!(waiting(tcp, 80).count(), 0);
    }

    #[test]
    fn this_process_is_seen() {
        let own = process(std::process::id() as i32).unwrap();
        assert!(own.descriptors > 2 && own.nofile_hard > 2 && own.rss > 0 && !own.exe_deleted, "{own:?}");
        assert!(process(i32::MAX).is_none());
    }
}
