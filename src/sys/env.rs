//! What a supervisor hands to a daemon through its environment: listeners by the convention of
//! sd_listen_fds(3), and the session by variables of our own. Read once and consumed.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use super::fd::{set_cloexec, set_cloexec_range, socket_option};
use super::seqpacket::Seqpacket;

const LISTEN_FDS: &str = "LISTEN_FDS";
const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
const LISTEN_PID: &str = "LISTEN_PID";
const CONTROL: &str = "HANDOFF_CONTROL";
const DATA_DIR: &str = "HANDOFF_DATA_DIR";
const SOCK_FD: &str = "HANDOFF_SOCK_FD";
const ROLE: &str = "HANDOFF_ROLE";
const ALL: [&str; 7] = [LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID, CONTROL, DATA_DIR, SOCK_FD, ROLE];

/// The first descriptor that a process finds its listeners at (`SD_LISTEN_FDS_START`, sd_listen_fds(3)).
pub const LISTEN_FDS_START: RawFd = 3;
/// No descriptor is larger: the kernel's default of fs.nr_open. A larger number is a mistake,
/// and must not make us allocate as many names.
const FD_MAX: RawFd = (1 << 20) - 1;
/// The name of a listener when `LISTEN_FDNAMES` is absent, as systemd has it.
const NO_NAME: &str = "unknown";

/// What was inherited. All empty if this process was started without a supervisor.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The listening and datagram sockets with their names, in order; close-on-exec, their
    /// `O_NONBLOCK` as it was.
    pub listeners: Vec<(String, OwnedFd)>,
    /// The connection to the supervisor: a connected `AF_UNIX` `SOCK_SEQPACKET` socket.
    pub session: Option<OwnedFd>,
    /// Where to make the control socket.
    pub control: Option<PathBuf>,
    /// The data directory.
    pub data_dir: Option<PathBuf>,
    /// This process was started to replace another one.
    pub role_is_successor: bool,
}

/// The environment, or a descriptor that it names, is not what it should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A variable that must be a number is none, or a negative one.
    #[error("{name}={} is not a number that it can be; start this program through its supervisor, or unset {name}", value.display())]
    NotANumber {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: OsString,
    },
    /// More descriptors than a process can have, or one that cannot be meant.
    #[error(
        "{name}={value} is out of range (at most {max}; descriptors below 3 are not for this); correct or unset it"
    )]
    OutOfRange {
        /// The variable.
        name: &'static str,
        /// Its value, as it was given.
        value: String,
        /// The largest value that is possible.
        max: i32,
    },
    /// `LISTEN_FDNAMES` does not have one name for each descriptor.
    #[error(
        "LISTEN_FDNAMES={value} has {names} names, but LISTEN_FDS={fds}; give one name for each, separated by ':', or unset LISTEN_FDNAMES"
    )]
    NameCount {
        /// The value of `LISTEN_FDNAMES`.
        value: String,
        /// How many names that are.
        names: usize,
        /// The value of `LISTEN_FDS`.
        fds: usize,
    },
    /// The variables were made for another process, but the session came here.
    #[error(
        "LISTEN_PID={listen_pid}, but this process is {our_pid}: something forked between the supervisor and this program; let a wrapper script exec it"
    )]
    ForkingWrapper {
        /// The process that the supervisor started.
        listen_pid: i32,
        /// This process.
        our_pid: i32,
    },
    /// Listeners and a session, but no word for whom.
    #[error(
        "LISTEN_FDS is set together with HANDOFF_SOCK_FD or HANDOFF_ROLE, but LISTEN_PID is not; a wrapper must leave all three as they are"
    )]
    NoListenPid,
    /// `HANDOFF_ROLE` has a value that nobody knows.
    #[error("HANDOFF_ROLE={} is unknown; it can only be 'successor': start this program through its supervisor, or unset it", value.display())]
    UnknownRole {
        /// Its value.
        value: OsString,
    },
    /// The session is one of the listeners.
    #[error("HANDOFF_SOCK_FD={fd} is also one of the LISTEN_FDS; correct or unset one of them")]
    Overlap {
        /// The descriptor.
        fd: RawFd,
    },
    /// A descriptor is closed.
    #[error(
        "descriptor {fd}, promised by {name}, is closed; a wrapper must leave it open, and without a supervisor unset {name}"
    )]
    NotOpen {
        /// The variable.
        name: &'static str,
        /// The descriptor.
        fd: RawFd,
    },
    /// A descriptor is no socket.
    #[error("descriptor {fd}, promised by {name}, is not a socket; correct or unset {name}")]
    NotASocket {
        /// The variable.
        name: &'static str,
        /// The descriptor.
        fd: RawFd,
    },
    /// A stream socket does not listen.
    #[error(
        "descriptor {fd}, promised by LISTEN_FDS, is a stream socket that does not listen; correct or unset LISTEN_FDS"
    )]
    NotListening {
        /// The descriptor.
        fd: RawFd,
    },
    /// The session cannot be used.
    #[error(
        "HANDOFF_SOCK_FD={fd} cannot be the session: {reason}; start this program through its supervisor, or unset it"
    )]
    NotASession {
        /// The descriptor.
        fd: RawFd,
        /// What it is instead.
        reason: String,
    },
}

/// Reads `LISTEN_FDS`, `LISTEN_FDNAMES`, `LISTEN_PID`, `HANDOFF_CONTROL`, `HANDOFF_DATA_DIR`,
/// `HANDOFF_SOCK_FD` and `HANDOFF_ROLE`, takes the descriptors that they name, and removes all
/// of them from the environment, also on an error: a second call finds nothing, and children
/// inherit nothing.
///
/// On an error no descriptor is taken or changed.
///
/// Precondition: no other thread uses the environment meanwhile (in C: getenv(3) too), and the
/// descriptors that the variables name belong to nobody in this process. So call it at the
/// start of main, before threads are made and descriptors are opened. This function is not
/// `unsafe` because whoever starts a process decides what its environment names.
pub fn take() -> Result<Inherited, EnvError> {
    let plan = parse(&|name| env::var_os(name), std::process::id() as i32);
    for name in ALL {
        if env::var_os(name).is_some() {
            // SAFETY: the documented precondition: no other thread uses the environment.
            unsafe { env::remove_var(name) };
        }
    }
    // SAFETY: the documented precondition: nobody has these descriptors. A second call does not
    // find them any more.
    unsafe { adopt(plan?) }
}

/// What a process finds that systemd, or something like it, has started as a service: variables that are for it alone.
#[cfg(feature = "program")]
#[derive(Debug)]
pub struct FromManager {
    /// `NOTIFY_SOCKET` (sd_notify(3)).
    pub notify_socket: Option<OsString>,
    /// How often it must be said that this process is alive (sd_watchdog_enabled(3)), in microseconds.
    pub watchdog_usec: Option<u64>,
    /// The sockets of sd_listen_fds(3), as [`Inherited::listeners`]; or why they can not be taken.
    pub sockets: Result<Vec<(String, OwnedFd)>, EnvError>,
}

/// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`, `FDSTORE`, `LISTEN_FDS`, `LISTEN_FDNAMES` and `LISTEN_PID`, takes the sockets, and
/// removes all of these from the environment.
///
/// The precondition is that of [`take`].
#[cfg(feature = "program")]
pub fn take_from_manager() -> FromManager {
    const OWN: [&str; 7] =
        ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID];
    let own_pid = std::process::id() as i32;
    let plan = parse(&|name| if name.starts_with("LISTEN_") { env::var_os(name) } else { None }, own_pid);
    let number = |name| env::var(name).ok().and_then(|value| value.trim().parse::<u64>().ok());
    // Without a pid it is for whoever reads it.
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == own_pid as u64);
    let watchdog_usec = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0);
    let notify_socket = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
    for name in OWN {
        if env::var_os(name).is_some() {
            // SAFETY: the documented precondition: no other thread uses the environment.
            unsafe { env::remove_var(name) };
        }
    }
    // SAFETY: the documented precondition: nobody has these descriptors. A second call does not find them any more.
    let sockets = plan.and_then(|plan| unsafe { adopt(plan) }).map(|inherited| inherited.listeners);
    FromManager { notify_socket, watchdog_usec, sockets }
}

/// What the environment says, before any descriptor is looked at.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// The names of descriptors 3, 4, …
    listeners: Vec<String>,
    session: Option<RawFd>,
    control: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    role_is_successor: bool,
}

fn parse(vars: &dyn Fn(&str) -> Option<OsString>, own_pid: i32) -> Result<Plan, EnvError> {
    // An empty variable is as good as none: a shell cannot easily unset one for a child.
    let var = |name: &str| vars(name).filter(|value| !value.is_empty());
    let role_is_successor = match var(ROLE) {
        None => false,
        Some(role) if role == "successor" => true,
        Some(value) => return Err(EnvError::UnknownRole { value }),
    };
    let session = number(&var, SOCK_FD, FD_MAX)?;
    let count = number(&var, LISTEN_FDS, FD_MAX - LISTEN_FDS_START + 1)?;
    let listen_pid = number(&var, LISTEN_PID, i32::MAX)?;
    let from_supervisor = role_is_successor || session.is_some();
    let is_for_us = listen_pid == Some(own_pid);
    match listen_pid {
        Some(listen_pid) if from_supervisor && !is_for_us => {
            return Err(EnvError::ForkingWrapper { listen_pid, our_pid: own_pid });
        }
        None if from_supervisor && count.is_some() => return Err(EnvError::NoListenPid),
        _ => {}
    }
    // As systemd has it: variables for another process are none of our business.
    let count = count.filter(|_| is_for_us).unwrap_or(0);
    match session {
        Some(fd) if fd < LISTEN_FDS_START => {
            let (value, max) = (fd.to_string(), FD_MAX);
            return Err(EnvError::OutOfRange { name: SOCK_FD, value, max });
        }
        Some(fd) if fd < LISTEN_FDS_START + count => return Err(EnvError::Overlap { fd }),
        _ => {}
    }
    Ok(Plan {
        listeners: names(var(LISTEN_FDNAMES).as_deref(), count as usize)?,
        session,
        control: var(CONTROL).map(PathBuf::from),
        data_dir: var(DATA_DIR).map(PathBuf::from),
        role_is_successor,
    })
}

/// A variable that is a number from 0 to `max`; None if absent.
fn number(var: &dyn Fn(&str) -> Option<OsString>, name: &'static str, max: i32) -> Result<Option<i32>, EnvError> {
    let Some(value) = var(name) else {
        return Ok(None);
    };
    let digits = value.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(digits) = digits else {
        return Err(EnvError::NotANumber { name, value });
    };
    match digits.parse::<i32>() {
        Ok(number) if number <= max => Ok(Some(number)),
        _ => Err(EnvError::OutOfRange { name, value: digits.to_owned(), max }),
    }
}

fn names(value: Option<&OsStr>, count: usize) -> Result<Vec<String>, EnvError> {
    let Some(value) = value.filter(|_| count > 0) else {
        return Ok(vec![NO_NAME.to_owned(); count]);
    };
    let value = value.to_string_lossy();
    let names: Vec<String> = value.split(':').map(str::to_owned).collect();
    if names.len() != count {
        return Err(EnvError::NameCount { names: names.len(), fds: count, value: value.into_owned() });
    }
    Ok(names)
}

/// Takes the descriptors of a plan, after all of them were checked.
///
/// # Safety
///
/// They belong to nobody in this process.
unsafe fn adopt(plan: Plan) -> Result<Inherited, EnvError> {
    let fds: Vec<RawFd> = (LISTEN_FDS_START..).take(plan.listeners.len()).collect();
    for fd in &fds {
        check_listener(*fd)?;
    }
    if let Some(fd) = plan.session {
        check_session(fd)?;
    }
    // SAFETY: each is open, and nobody else owns it; the caller promised it.
    let own = |fd: RawFd| unsafe { OwnedFd::from_raw_fd(fd) };
    let inherited = Inherited {
        listeners: plan.listeners.into_iter().zip(fds.into_iter().map(own)).collect(),
        session: plan.session.map(own),
        control: plan.control,
        data_dir: plan.data_dir,
        role_is_successor: plan.role_is_successor,
    };
    if let Some(count) = inherited.listeners.len().checked_sub(1) {
        set_cloexec_range(LISTEN_FDS_START, LISTEN_FDS_START + count as RawFd);
    }
    if let Some(fd) = &inherited.session {
        let _ = set_cloexec(fd); // it cannot fail on an open descriptor
    }
    Ok(inherited)
}

fn check_open(name: &'static str, fd: RawFd) -> Result<(), EnvError> {
    // SAFETY: F_GETFD changes nothing, whatever the number is.
    match unsafe { libc::fcntl(fd, libc::F_GETFD) } {
        -1 => Err(EnvError::NotOpen { name, fd }),
        _ => Ok(()),
    }
}

/// One system call for a socket that listens: there may be a thousand.
fn check_listener(fd: RawFd) -> Result<(), EnvError> {
    let explain = |error: io::Error| match error.raw_os_error() {
        Some(libc::EBADF) => EnvError::NotOpen { name: LISTEN_FDS, fd },
        _ => EnvError::NotASocket { name: LISTEN_FDS, fd },
    };
    if socket_option(fd, libc::SO_ACCEPTCONN).map_err(explain)? != 0 {
        return Ok(());
    }
    match socket_option(fd, libc::SO_TYPE).map_err(explain)? {
        libc::SOCK_STREAM | libc::SOCK_SEQPACKET => Err(EnvError::NotListening { fd }),
        _ => Ok(()),
    }
}

fn check_session(fd: RawFd) -> Result<(), EnvError> {
    check_open(SOCK_FD, fd)?;
    // SAFETY: it is open, and stays so: nobody else in this process knows it.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    Seqpacket::check(socket).map_err(|error| EnvError::NotASession { fd, reason: error.to_string() })
}

#[cfg(test)]
mod tests;
