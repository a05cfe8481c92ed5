//! What a daemon says to `NOTIFY_SOCKET` (sd_notify(3)).

use crate::limits::{LISTENER_NAME_BYTES_MAX, STATUS_CHARS_MAX};
use std::time::Duration;

/// One message. What is unknown or makes no sense in it is left out, as under systemd.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Notification {
    pub(super) ready: bool,
    pub(super) reloading: bool,
    pub(super) stopping: bool,
    pub(super) status: Option<String>,
    /// This is the service's process from now on.
    pub(super) main_pid: Option<i32>,
    /// It needs that much longer from now on.
    pub(super) extend: Option<Duration>,
    /// It is alive.
    #[cfg(feature = "program")]
    pub(super) alive: bool,
    /// It has failed.
    #[cfg(feature = "program")]
    pub(super) trigger: bool,
    /// How often it says that it is alive from now on.
    #[cfg(feature = "program")]
    pub(super) watchdog: Option<Duration>,
    /// Keep the descriptors of this message.
    pub(super) store: bool,
    /// Forget those of this name.
    pub(super) remove: bool,
    pub(super) name: Option<String>,
    /// Keep them also when they hang up.
    pub(super) keep_dead: bool,
}

impl Notification {
    pub(super) fn parse(message: &[u8]) -> Self {
        let mut it = Self::default();
        for line in message.split(|byte| *byte == b'\n') {
            let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
            it.set(&line[..at], &line[at + 1..]);
        }
        it
    }

    fn set(&mut self, field: &[u8], value: &[u8]) {
        let number = || std::str::from_utf8(value).ok().and_then(|value| value.trim().parse::<u64>().ok());
        match (field, value) {
            (b"READY", b"1") => self.ready = true,
            (b"RELOADING", b"1") => self.reloading = true,
            (b"STOPPING", b"1") => self.stopping = true,
            (b"STATUS", _) => self.status = Some(printable(value)),
            (b"MAINPID", _) => self.main_pid = number().and_then(|number| i32::try_from(number).ok()),
            (b"EXTEND_TIMEOUT_USEC", _) => self.extend = number().map(Duration::from_micros),
            #[cfg(feature = "program")]
            (b"WATCHDOG", b"1") => self.alive = true,
            #[cfg(feature = "program")]
            (b"WATCHDOG", b"trigger") => self.trigger = true,
            #[cfg(feature = "program")]
            (b"WATCHDOG_USEC", _) => self.watchdog = number().map(Duration::from_micros),
            (b"FDSTORE", b"1") => self.store = true,
            (b"FDSTOREREMOVE", b"1") => self.remove = true,
            (b"FDNAME", _) => {
                self.name = std::str::from_utf8(value).ok().filter(|name| is_name(name)).map(str::to_owned)
            }
            (b"FDPOLL", b"0") => self.keep_dead = true,
            _ => {}
        }
    }
}

/// As systemd has it: it becomes a part of `LISTEN_FDNAMES`.
fn is_name(name: &str) -> bool {
    let fits = (1..=LISTENER_NAME_BYTES_MAX).contains(&name.len());
    fits && name.bytes().all(|byte| (b' '..0x7f).contains(&byte) && byte != b':')
}

/// For a terminal: one line, not too long, without anything that moves the cursor or turns the text around it.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|c| if c.is_control() || is_format(c) { ' ' } else { c }).take(STATUS_CHARS_MAX).collect()
}

/// The explicit controls of the bidirectional algorithm (Unicode UAX 9), and the separators of lines and paragraphs.
fn is_format(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_understood_and_the_rest_is_left_out() {
        let it = Notification::parse(
            b"READY=1\nSTATUS=two\x1b[2Jwords\nMAINPID=77\nX_Y=3\nnonsense\n=\nEXTEND_TIMEOUT_USEC=5\n",
        );
        assert!(it.ready && !it.stopping && !it.reloading);
        assert_eq!((it.status.as_deref(), it.main_pid), (Some("two [2Jwords"), Some(77)));
        assert_eq!(it.extend, Some(Duration::from_micros(5)));
        let it = Notification::parse(b"FDSTORE=1\nFDNAME=a b\nFDPOLL=0\nSTOPPING=1\nRELOADING=1");
        assert!(it.store && it.keep_dead && it.stopping && it.reloading && !it.remove);
        assert_eq!(it.name.as_deref(), Some("a b"));
        let disguised = "STATUS=\u{202e}a\u{2066}b\u{200f}c\u{61c}d\u{85}e é";
        assert_eq!(Notification::parse(disguised.as_bytes()).status.as_deref(), Some(" a b c d e é"));
        let empty = [
            &b""[..],
            b"READY=0",
            b"READY",
            b"EXTEND_TIMEOUT_USEC=x",
            b"FDNAME=a:b",
            b"FDNAME=",
            b"MAINPID=-1",
            b"MAINPID=4294967297",
            b"\xff=\xff",
        ];
        for nothing in empty {
            assert_eq!(Notification::parse(nothing), Notification::default(), "{nothing:?}");
        }
        let long = [&b"STATUS="[..], &[b'x'; 4000]].concat();
        assert_eq!(Notification::parse(&long).status.map(|text| text.len()), Some(STATUS_CHARS_MAX));
    }
}
