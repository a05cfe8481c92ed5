//! Children that are waited for by nobody in particular: orphans, in a process that is PID 1 or a child subreaper (prctl(2)).

use std::io;

use nix::errno::Errno;

/// A child of this process that is dead and not reaped, as the kernel finds it first (waitid(2), `P_ALL`, `WNOWAIT`); None if
/// there is none. It stays as it is.
pub fn first_zombie() -> io::Result<Option<i32>> {
    wait(libc::P_ALL, 0, libc::WNOWAIT)
}

/// Reaps this child, if it is dead. By its number: a zombie keeps it.
pub fn reap(pid: i32) -> io::Result<()> {
    wait(libc::P_PID, pid.cast_unsigned(), 0).map(drop)
}

fn wait(kind: libc::idtype_t, id: libc::id_t, options: libc::c_int) -> io::Result<Option<i32>> {
    loop {
        // SAFETY: all-zero is a valid siginfo_t; si_pid stays 0 if nobody is found.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is a valid place for one siginfo_t.
        match Errno::result(unsafe { libc::waitid(kind, id, &mut info, libc::WEXITED | libc::WNOHANG | options) }) {
            // SAFETY: waitid has filled in the fields of a SIGCHLD siginfo, or left the zeros.
            Ok(_) => return Ok(Some(unsafe { info.si_pid() }).filter(|pid| *pid != 0)),
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}
