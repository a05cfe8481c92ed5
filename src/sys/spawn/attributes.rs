//! What a process has beside its program: a place in a control group, limits, a user. The child sets it between clone
//! and exec, by raw calls: those of the C library would take locks, and change every thread of the parent.

use std::ffi::{CStr, c_int, c_void};

use nix::errno::Errno;

use super::Failure;
use super::child::{attempt, set_limit};
use crate::sys::inherit::Word;

/// Only the program changes anything: the library that daemons link need not carry it.
pub(super) const CHANGES: bool = cfg!(feature = "program");

/// What is changed before exec; None, or nothing in a list, leaves what this process has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// user and groups (credentials(7)).
    pub account: Account,
    /// The bits that new files do not get (umask(2)).
    pub umask: Option<u32>,
    /// Limits (setrlimit(2)).
    pub limits: Vec<Limit>,
    /// How much sooner it is killed for want of memory: -1000 to 1000 (proc_pid_oom_score_adj(5)).
    pub oom_score_adj: Option<i32>,
    /// No program that is executed gives it more rights (`PR_SET_NO_NEW_PRIVS`, prctl(2)).
    pub no_new_privs: bool,
}

impl Attributes {
    /// Those of this process.
    pub const UNCHANGED: &'static Self = &Self {
        account: Account { uid: None, gid: None, groups: None },
        umask: None,
        limits: Vec::new(),
        oom_score_adj: None,
        no_new_privs: false,
    };
}

/// A user, looked up before: nothing can be asked between clone and exec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The user: real, effective and saved (setresuid(2)).
    pub uid: Option<u32>,
    /// The group, in the same way.
    pub gid: Option<u32>,
    /// The supplementary groups (setgroups(2)).
    pub groups: Option<Vec<u32>>,
}

/// A limit of setrlimit(2), in the kernel's unit; None is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limit {
    /// What is limited.
    pub resource: Resource,
    /// The soft limit.
    pub soft: Option<u64>,
    /// The hard one. Only a privileged process may raise it.
    pub hard: Option<u64>,
}

/// What setrlimit(2) can limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resource {
    #[serde(with = "crate::sys::inherit::word")]
    name: Word,
    number: u32,
}

impl Resource {
    /// The one that has this name behind `RLIMIT_`, in small letters.
    #[cfg(feature = "program")]
    pub fn named(name: &str) -> Option<Self> {
        let is = |resource: &&Self| resource.name["RLIMIT_".len()..].eq_ignore_ascii_case(name);
        RESOURCES.iter().find(is).copied()
    }
}

#[cfg(feature = "program")]
const RESOURCES: &[Resource] = {
    const fn of(name: &'static str, number: libc::__rlimit_resource_t) -> Resource {
        Resource { name, number }
    }
    &[
        of("RLIMIT_AS", libc::RLIMIT_AS),
        of("RLIMIT_CORE", libc::RLIMIT_CORE),
        of("RLIMIT_CPU", libc::RLIMIT_CPU),
        of("RLIMIT_DATA", libc::RLIMIT_DATA),
        of("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
        of("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
        of("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
        of("RLIMIT_NICE", libc::RLIMIT_NICE),
        of("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
        of("RLIMIT_NPROC", libc::RLIMIT_NPROC),
        of("RLIMIT_RSS", libc::RLIMIT_RSS),
        of("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
        of("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
        of("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
        of("RLIMIT_STACK", libc::RLIMIT_STACK),
    ]
};

/// The same for the child: what its system calls read.
pub(super) struct Ready {
    /// The digits of the score.
    oom_score_adj: Option<Vec<u8>>,
    limits: Vec<(Resource, libc::rlimit64)>,
    umask: Option<u32>,
    pub(super) account: Account,
    no_new_privs: bool,
}

const OOM_PATH: &CStr = c"/proc/self/oom_score_adj";
pub(super) const OOM: &str = "oom_score_adj";
pub(super) const GROUPS: &str = "setgroups";
pub(super) const GID: &str = "setresgid";
pub(super) const UID: &str = "setresuid";

impl Ready {
    pub(super) fn new(attributes: &Attributes) -> Self {
        let number = |limit: Option<u64>| limit.unwrap_or(libc::RLIM64_INFINITY);
        let limit = |limit: &Limit| {
            let value = libc::rlimit64 { rlim_cur: number(limit.soft), rlim_max: number(limit.hard) };
            (limit.resource, value)
        };
        Self {
            oom_score_adj: attributes.oom_score_adj.map(|score| score.to_string().into_bytes()),
            limits: attributes.limits.iter().map(limit).collect(),
            umask: attributes.umask,
            account: attributes.account.clone(),
            no_new_privs: attributes.no_new_privs,
        }
    }

    /// What needs the rights of the parent, and a descriptor for a moment.
    ///
    /// # Safety
    ///
    /// Only for the child.
    pub(super) unsafe fn apply_first(&self) -> Result<(), Failure> {
        if !CHANGES {
            return Ok(());
        }
        // SAFETY: system calls on memory of `self` and static memory.
        unsafe {
            if let Some(score) = &self.oom_score_adj {
                let fd = attempt(OOM, libc::open(OOM_PATH.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
                attempt(OOM, libc::write(fd, score.as_ptr().cast::<c_void>(), score.len()) as c_int)?;
                libc::close(fd);
            }
        }
        Ok(())
    }

    /// The rest, when the descriptors are in their places. The user comes last, since it may not do the others.
    ///
    /// # Safety
    ///
    /// Only for the child.
    pub(super) unsafe fn apply_rest(&self) -> Result<(), Failure> {
        if !CHANGES {
            return Ok(());
        }
        // SAFETY: system calls on numbers and memory of `self`.
        unsafe {
            for (resource, limit) in &self.limits {
                set_limit(resource.name, resource.number, limit)?;
            }
            if let Some(mask) = self.umask {
                libc::syscall(libc::SYS_umask, mask);
            }
            let Account { uid, gid, groups } = &self.account;
            if let Some(groups) = groups {
                attempt(GROUPS, libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) as c_int)?;
            }
            if let Some(gid) = *gid {
                attempt(GID, libc::syscall(libc::SYS_setresgid, gid, gid, gid) as c_int)?;
            }
            if let Some(uid) = *uid {
                attempt(UID, libc::syscall(libc::SYS_setresuid, uid, uid, uid) as c_int)?;
            }
        }
        Ok(())
    }

    /// The very last: from here on no right is gained.
    ///
    /// # Safety
    ///
    /// Only for the child.
    pub(super) unsafe fn seal(&self) -> Result<(), Failure> {
        if CHANGES && self.no_new_privs {
            // SAFETY: five numbers.
            let set = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            attempt("PR_SET_NO_NEW_PRIVS", set as c_int)?;
        }
        Ok(())
    }
}

/// Of another user, or another group.
pub(crate) const ONLY_ROOT: &str = "only root may start a process with other rights than its own; run the supervisor as root, or leave out user and group";

/// What to do about a step that was refused.
pub(super) fn explain(step: &str, errno: Errno, account: &Account) -> Option<String> {
    if !CHANGES {
        return None;
    }
    let what = errno.desc();
    Some(match (step, errno) {
        (GROUPS | GID | UID, Errno::EPERM) => {
            let who = account.uid.map_or_else(String::new, |uid| format!("user {uid}: "));
            format!("{what}: {who}{ONLY_ROOT}")
        }
        (UID, Errno::EAGAIN) => format!("{what}: this user has as many processes as RLIMIT_NPROC allows"),
        (OOM, Errno::EACCES) => {
            format!(
                "{what}: only root (CAP_SYS_RESOURCE) may make a process less likely to be killed; write a larger number"
            )
        }
        (step, Errno::EPERM) if step.starts_with("RLIMIT_") => {
            format!(
                "{what}: the hard limit is lower here, and only root (CAP_SYS_RESOURCE) may raise it; write a smaller number"
            )
        }
        (step, Errno::EINVAL) if step.starts_with("RLIMIT_") => format!("{what}: the soft limit is above the hard one"),
        _ => return None,
    })
}

/// Why another user can not execute a program that this one could.
pub(super) fn explain_exec_as(uid: Option<u32>, errno: Errno) -> Option<String> {
    let uid = uid.filter(|_| CHANGES)?;
    match errno {
        Errno::EACCES => Some(format!(
            "user {uid} may not execute it, or may not search a directory on the way to it; chmod o+x what is closed"
        )),
        Errno::EAGAIN => Some(format!("user {uid} has more processes than RLIMIT_NPROC allows")),
        _ => None,
    }
}

/// Keeps the memory of this process from being closed to debuggers of its own user for good: a child that shares it, and
/// changes its user, closes it for as long (`PR_SET_DUMPABLE`, prctl(2)), and rightly so.
pub(super) struct Dumpable(bool);

impl Dumpable {
    pub(super) fn remember(account: &Account) -> Self {
        let changes = CHANGES && (account.uid.is_some() || account.gid.is_some());
        // SAFETY: one number.
        Self(changes && unsafe { libc::prctl(libc::PR_GET_DUMPABLE) } == 1)
    }
}

impl Drop for Dumpable {
    fn drop(&mut self) {
        if self.0 {
            // SAFETY: two numbers.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
        }
    }
}
