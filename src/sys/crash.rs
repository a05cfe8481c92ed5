//! Steps at which a test can end or stop this process. Without the feature `crash-points` they are nothing.
//!
//! With it, the variable `CRASH_POINTS` names a directory. If there is a file `trace` in it, each step that a process comes
//! to is appended, as `<role>:<step>`. If there is a file `armed` in it, its first line is an order, `kill <role>:<step>`,
//! `stop <role>:<step>` or `panic <role>:<step>`: the first process that comes to that step renames the file to `fired.<number of lines>`, leaves the
//! other lines in a new `armed`, and does that to itself.

use std::fmt::Arguments;

/// Does `act`, as a step with a point before it and one after it.
#[inline(always)]
pub fn around<T>(role: char, step: Arguments<'_>, act: impl FnOnce() -> T) -> T {
    point(role, format_args!("before {step}"));
    let result = act();
    point(role, format_args!("after {step}"));
    result
}

/// This process is at a step.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn point(_role: char, _step: Arguments<'_>) {}

#[cfg(feature = "crash-points")]
pub use with_feature::point;

#[cfg(feature = "crash-points")]
mod with_feature {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::fmt::Arguments;
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::path::Path;
    use std::sync::OnceLock;

    /// This process is at a step.
    pub fn point(role: char, step: Arguments<'_>) {
        static DIRECTORY: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
        if let Some(directory) = DIRECTORY.get_or_init(|| std::env::var_os("CRASH_POINTS")) {
            pass(Path::new(directory), &format!("{role}:{step}"));
        }
    }

    fn pass(directory: &Path, point: &str) {
        if let Ok(mut trace) = OpenOptions::new().append(true).open(directory.join("trace")) {
            // One write(2): lines of several processes do not mix.
            trace.write_all(format!("{point}\n").as_bytes()).expect("the trace can be written");
        }
        let armed = directory.join("armed");
        let Ok(orders) = fs::read_to_string(&armed) else { return };
        let (first, rest) = orders.split_once('\n').unwrap_or((&orders, ""));
        let signal = match first.split_once(' ') {
            Some(("kill", step)) if step == point => Some(Signal::SIGKILL),
            Some(("stop", step)) if step == point => Some(Signal::SIGSTOP),
            Some(("panic", step)) if step == point => None,
            _ => return,
        };
        // Whoever renames it has it.
        let fired = directory.join(format!("fired.{}", orders.lines().count()));
        if fs::rename(&armed, &fired).is_err() {
            return;
        }
        let own = Pid::this();
        replace(&fired, &own.to_string());
        // Last: from then on another process may have the next order.
        if !rest.is_empty() {
            replace(&armed, rest);
        }
        match signal {
            Some(signal) => kill(own, signal).expect("a process can signal itself"),
            None => panic!("told to panic {point}"),
        }
    }

    /// Nobody sees half of it.
    fn replace(path: &Path, text: &str) {
        let temporary = path.with_extension(format!("new.{}", Pid::this()));
        fs::write(&temporary, text).expect("the directory can be written");
        fs::rename(&temporary, path).expect("the directory can be written");
    }
}
