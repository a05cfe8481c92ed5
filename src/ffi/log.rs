//! Log lines and panics go to a callback of the application, on its own threads, with nothing locked.

use super::structs::{handoff_destroy_fn, handoff_log_fn};
use super::text::c_string;
use crate::limits::LOG_LINES_MAX;
use std::collections::VecDeque;
use std::ffi::{CString, c_void};
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use tracing::dispatcher::{Dispatch, get_default, with_default};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// A pointer of the application, and what frees it.
pub(super) struct UserData {
    pub(super) user: *mut c_void,
    destroy: handoff_destroy_fn,
}

// SAFETY: only the application looks behind the pointer; the header says on which threads.
unsafe impl Send for UserData {}
// SAFETY: the same.
unsafe impl Sync for UserData {}

impl UserData {
    pub(super) fn new(user: *mut c_void, destroy: handoff_destroy_fn) -> Self {
        Self { user, destroy }
    }
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(destroy) = self.destroy {
            // SAFETY: registered for this pointer; a value is dropped once.
            outside("a destroy function", || unsafe { destroy(self.user) });
        }
    }
}

/// A registered log callback.
pub(super) struct Callback {
    function: handoff_log_fn,
    data: UserData,
}

impl Callback {
    pub(super) fn new(function: handoff_log_fn, data: UserData) -> Self {
        Self { function, data }
    }

    fn call(&self, line: &Line) {
        let Some(function) = self.function else { return };
        // SAFETY: registered with this pointer; both strings end with NUL and outlive the call.
        outside("the log callback", || unsafe {
            function(self.data.user, line.level, line.target.as_ptr(), line.text.as_ptr())
        });
    }
}

/// Runs code of the application: its panics and log lines are none of ours. It must return: what unwinds out of it, an
/// exception or the end of its thread, would leave the handle half used, so the process ends.
pub(super) fn outside<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let must_return = MustReturn(what);
    let result = with_default(&Dispatch::none(), f);
    std::mem::forget(must_return);
    result
}

/// Dropped only by what unwinds.
struct MustReturn<'a>(&'a str);

impl Drop for MustReturn<'_> {
    fn drop(&mut self) {
        // One write(2), and no panic: this may be an unwinding that Rust knows nothing of.
        let text = format!("handoff: {} was left by an exception or by the end of its thread: abort\n", self.0);
        let _ = nix::unistd::write(std::io::stderr(), text.as_bytes());
        std::process::abort();
    }
}

struct Line {
    level: i32,
    target: CString,
    text: CString,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Line>,
    lost: u64,
    delivering: bool,
}

/// The log of one handle. Lines wait here, since they come from under locks and from the helper thread.
pub(super) struct Log {
    callback: Option<Arc<Callback>>,
    queue: Mutex<Queue>,
}

impl Log {
    pub(super) fn new(callback: Option<Arc<Callback>>) -> Arc<Self> {
        report_panics();
        Arc::new(Self { callback, queue: Mutex::default() })
    }

    pub(super) fn dispatch(self: &Arc<Self>) -> Dispatch {
        Dispatch::new(Sink(Arc::clone(self)))
    }

    /// Gives the waiting lines to the application, one at a time, in order.
    pub(super) fn deliver(&self) {
        let Some(callback) = &self.callback else { return };
        let mut queue = self.queue();
        if std::mem::replace(&mut queue.delivering, true) {
            return; // whoever does it sees the new lines, too
        }
        loop {
            let lost = std::mem::take(&mut queue.lost);
            let line = match lost {
                0 => queue.lines.pop_front(),
                _ => Some(Line::new(&Level::WARN, "handoff", &format!("{lost} log lines were lost"))),
            };
            let Some(line) = line else { break };
            drop(queue);
            callback.call(&line);
            queue = self.queue();
        }
        queue.delivering = false;
    }

    fn push(&self, level: &Level, target: &str, text: &str) {
        let mut queue = self.queue();
        match queue.lines.len() < LOG_LINES_MAX {
            true => queue.lines.push_back(Line::new(level, target, text)),
            false => queue.lost += 1,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn new(level: &Level, target: &str, text: &str) -> Self {
        let level = match *level {
            Level::ERROR => 1,
            Level::WARN => 2,
            Level::INFO => 3,
            Level::DEBUG => 4,
            Level::TRACE => 5,
        };
        Self { level, target: c_string(target), text: c_string(text) }
    }
}

/// What the library's own events come to while a call, or the helper thread, runs.
struct Sink(Arc<Log>);

impl Subscriber for Sink {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        self.0.callback.is_some()
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let (level, target) = (event.metadata().level(), event.metadata().target());
        self.0.push(level, target, &format!("{}{}", text.message, text.fields));
    }

    // The library has no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// "message name=value …"
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" if self.message.is_empty() => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    // The library has no fields of these kinds, and what prints them would be 20 KB.
    fn record_f64(&mut self, _: &Field, _: f64) {}
    fn record_i128(&mut self, _: &Field, _: i128) {}
    fn record_u128(&mut self, _: &Field, _: u128) {}
}

/// From now on a panic of the library is a line in the log of the handle that it happened to; others go where they went.
fn report_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let ours = get_default(|dispatch| {
                let sink = dispatch.downcast_ref::<Sink>();
                sink.map(|sink| sink.0.push(&Level::ERROR, "handoff", &panic.to_string())).is_some()
            });
            if !ours {
                others(panic);
            }
        }));
    });
}
