//! Checks of the machine, and of the supervisor's process.

use super::facts::{Machine, Process, Runtime, SECCOMP_FILTER};
use super::{Check, Finding, mebibytes, show};
use crate::limits::BACKLOG_EXPECTED;
use crate::service::words::counted;

/// Linux 5.10 is the floor of the library.
const KERNEL_MIN: (u32, u32) = (5, 10);
/// The exit status of a process that somebody else has reaped can be read since then.
const KERNEL_EXIT_INFO: (u32, u32) = (6, 15);
/// What files in the runtime directory need: an output file that is read has two MiB at most.
const RUNTIME_BYTES: u64 = 16 << 20;
const RUNTIME_INODES: u64 = 64;
/// Of the supervisor's descriptors: what a handoff takes for a moment.
const SPARE_DESCRIPTORS: u64 = 64;

const MACHINE: &str = "machine";
const SUPERVISOR: &str = "supervisor";

pub(super) fn examine(machine: &Machine) -> Vec<Finding> {
    let mut findings = vec![kernel(machine.kernel)];
    findings.extend(runtime(&machine.runtime));
    findings.extend(machine.somaxconn.map(somaxconn));
    findings.extend(machine.listen_overflows.map(overflows));
    findings.extend(machine.memory_available.map(memory));
    findings
}

fn kernel(version: (u32, u32)) -> Finding {
    let (check, name) = (Check::new("kernel", MACHINE), format!("Linux {}.{}", version.0, version.1));
    if version < KERNEL_MIN {
        let advice = "use a kernel of 5.10 or newer";
        return check.error(format!("{name} is too old: pidfds and epoll of 5.10 are needed"), advice);
    }
    check.ok(match version < KERNEL_EXIT_INFO {
        true => format!("{name}; how a daemon ended while no supervisor ran is not known before 6.15"),
        false => name,
    })
}

fn runtime(runtime: &Runtime) -> Vec<Finding> {
    let check = |what| Check::new(what, MACHINE);
    let name = format!("runtime directory {}", show(&runtime.path));
    let Some(found) = &runtime.found else {
        return vec![check("runtime-dir").ok(format!("{name} is made by the first supervisor"))];
    };
    let mut findings = Vec::new();
    if found.owner != runtime.user {
        let advice = "remove it, or give another by --runtime-dir";
        let text = format!("{name} belongs to user {}, not to user {}", found.owner, runtime.user);
        findings.push(check("runtime-dir").error(text, advice));
    } else if found.mode & 0o022 != 0 {
        let text = format!("{name} can be written by others (mode {:o}): no supervisor starts there", found.mode);
        findings.push(check("runtime-dir").error(text, "chmod 700 it"));
    } else if found.mode & 0o077 != 0 {
        let text = format!("{name} can be read by others (mode {:o})", found.mode);
        findings.push(check("runtime-dir").warning(text, "chmod 700 it"));
    } else {
        findings.push(check("runtime-dir").ok(format!("{name} is private")));
    }
    if let Some(network) = found.network {
        let text = format!("{name} is on {network}, where locks and sockets do not do what is needed");
        findings.push(check("runtime-fs").error(text, "give one on a tmpfs by --runtime-dir, like /run/handoff"));
    } else if !found.tmpfs {
        let text = format!("{name} is not on a tmpfs: each write may wait for a disk, and old files outlive a boot");
        findings.push(check("runtime-fs").warning(text, "use one on a tmpfs, like /run/handoff"));
    }
    if found.free_bytes < RUNTIME_BYTES || found.free_inodes.is_some_and(|inodes| inodes < RUNTIME_INODES) {
        let left = found.free_inodes.map_or(String::new(), |inodes| format!(" and {}", counted(inodes, "inode")));
        let text =
            format!("{name} has {}{left} left; an upgrade is refused when it is full", mebibytes(found.free_bytes));
        findings.push(check("runtime-space").error(text, "make room there"));
    }
    findings
}

fn somaxconn(allowed: u64) -> Finding {
    let check = Check::new("somaxconn", MACHINE);
    if allowed < u64::from(BACKLOG_EXPECTED) {
        let text = format!(
            "net.core.somaxconn is {allowed}: during a pause so many clients of a listener wait, and others run into timeouts"
        );
        return check.warning(text, "sysctl -w net.core.somaxconn=4096, or more, and start the supervisor again");
    }
    check.ok(format!("{} may wait at a listener (net.core.somaxconn)", counted(allowed, "client")))
}

fn overflows(count: u64) -> Finding {
    let check = Check::new("listen-overflows", MACHINE);
    match count {
        0 => check.ok("no queue of a listener has ever been full"),
        _ => check.warning(
            format!(
                "queues of listeners were full, and {} dropped, since this network namespace began",
                counted(count, "connection")
            ),
            "raise net.core.somaxconn, and see that daemons accept fast enough (nstat TcpExtListenOverflows)",
        ),
    }
}

fn memory(available: u64) -> Finding {
    Check::new("memory", MACHINE).ok(format!("{} of memory are available", mebibytes(available)))
}

pub(super) fn supervisor(process: &Process) -> Vec<Finding> {
    let mut findings = vec![descriptors(process)];
    findings.extend(tracing(process));
    findings.extend(filter(process));
    if process.exe_deleted {
        let text = format!("process {} runs a program that was replaced or deleted on disk", process.pid);
        let advice = "its services go on; start the supervisor again when that suits, to run the new one";
        findings.push(Check::new("program", SUPERVISOR).warning(text, advice));
    }
    findings
}

fn descriptors(process: &Process) -> Finding {
    let check = Check::new("descriptors", SUPERVISOR);
    let (open, limit) = (process.descriptors, process.nofile_hard);
    let text = format!("process {} has {open} of {limit} descriptors", process.pid);
    if limit.saturating_sub(open) < SPARE_DESCRIPTORS {
        return check.error(text, "raise its hard RLIMIT_NOFILE (ulimit -Hn, LimitNOFILE=)");
    }
    check.ok(text)
}

/// Whatever it starts has it, too.
fn filter(process: &Process) -> Option<Finding> {
    (process.seccomp == SECCOMP_FILTER).then(|| {
        Check::new("seccomp", SUPERVISOR).warning(
            format!("process {} has a seccomp filter, and so have its services", process.pid),
            "see that it allows what systemd calls @system-service; SystemCallFilter= of its unit",
        )
    })
}

/// A supervisor that comes after one that was killed takes the listeners of a daemon that does not link the library by
/// pidfd_getfd(2), which asks as ptrace(2) does.
fn tracing(process: &Process) -> Option<Finding> {
    let check = Check::new("ptrace", SUPERVISOR);
    let scope = process.ptrace_scope.filter(|scope| *scope > 0 && !process.may_trace)?;
    Some(check.warning(
        format!("kernel.yama.ptrace_scope is {scope}, and the supervisor may not trace others"),
        "after a kill -9 of the supervisor, daemons that do not link libhandoff can not be taken over; run it as root or \
         with CAP_SYS_PTRACE, or set kernel.yama.ptrace_scope=0",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::facts::RuntimeFound;
    use super::*;

    fn runtime_of(change: impl FnOnce(&mut RuntimeFound)) -> Vec<(&'static str, Severity)> {
        let mut found = RuntimeFound {
            mode: 0o700,
            owner: 5,
            tmpfs: true,
            network: None,
            free_bytes: 1 << 30,
            free_inodes: Some(1 << 20),
        };
        change(&mut found);
        let findings = runtime(&Runtime { path: "/run/x".into(), user: 5, found: Some(found) });
        findings.into_iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn kernels() {
        assert_eq!(kernel((5, 9)).severity, Severity::Error);
        assert_eq!(kernel((5, 10)).severity, Severity::Ok);
        assert!(kernel((6, 14)).text.contains("6.15") && !kernel((6, 15)).text.contains("not known"));
    }

    #[test]
    fn runtime_directories() {
        use Severity::{Error, Ok, Warning};
        assert_eq!(runtime_of(|_| {}), [("runtime-dir", Ok)]);
        assert_eq!(runtime_of(|found| found.mode = 0o770), [("runtime-dir", Error)]);
        assert_eq!(runtime_of(|found| found.mode = 0o750), [("runtime-dir", Warning)]);
        assert_eq!(runtime_of(|found| found.owner = 6), [("runtime-dir", Error)]);
        assert_eq!(runtime_of(|found| found.tmpfs = false), [("runtime-dir", Ok), ("runtime-fs", Warning)]);
        assert_eq!(runtime_of(|found| found.network = Some("NFS")), [("runtime-dir", Ok), ("runtime-fs", Error)]);
        assert_eq!(runtime_of(|found| found.free_bytes = 1 << 20), [("runtime-dir", Ok), ("runtime-space", Error)]);
        assert_eq!(runtime_of(|found| found.free_inodes = Some(3)), [("runtime-dir", Ok), ("runtime-space", Error)]);
        assert_eq!(runtime_of(|found| found.free_inodes = None), [("runtime-dir", Ok)], "btrfs counts none");
        assert_eq!(runtime(&Runtime { path: "/x".into(), user: 1, found: None })[0].severity, Ok);
    }

    #[test]
    fn queues() {
        assert_eq!((somaxconn(128).severity, somaxconn(4096).severity), (Severity::Warning, Severity::Ok));
        assert_eq!((overflows(0).severity, overflows(1).severity), (Severity::Ok, Severity::Warning));
    }

    #[test]
    fn the_supervisors_rights() {
        let process = Process { descriptors: 100, nofile_hard: 1024, ..Process::default() };
        assert_eq!(descriptors(&process).severity, Severity::Ok);
        assert_eq!(descriptors(&Process { nofile_hard: 120, ..process.clone() }).severity, Severity::Error);
        assert!(tracing(&process).is_none());
        let scoped = Process { ptrace_scope: Some(1), ..process.clone() };
        assert_eq!(tracing(&scoped).map(|finding| finding.severity), Some(Severity::Warning));
        assert!(tracing(&Process { may_trace: true, ..scoped }).is_none());
        let old = Process { exe_deleted: true, ..process };
        assert!(supervisor(&old).iter().any(|finding| finding.check == "program"));
    }
}
