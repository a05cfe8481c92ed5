//! What people write, on a command line or in a file, and what it means.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::supervisor::{GOOD_STATUSES, Health, HealthAddress, ReadySign};
use nix::sys::signal::Signal;

/// The number of the first descriptor that no process can have, unless somebody has raised `fs.nr_open` (proc_sys_fs(5)).
const DESCRIPTORS_MAX: i32 = 1 << 20;

/// `TERM`, `SIGTERM` or `15`: a signal that a daemon can act on.
///
/// # Errors
/// What is wrong, and what to write.
pub fn signal(text: &str) -> Result<Signal, String> {
    match any_signal(text)? {
        Signal::SIGKILL | Signal::SIGSTOP => Err("no daemon can act on it; write TERM or QUIT".to_owned()),
        signal => Ok(signal),
    }
}

/// `KILL`, `SIGKILL` or `9`: any signal.
///
/// # Errors
/// What is wrong, and what to write.
pub fn any_signal(text: &str) -> Result<Signal, String> {
    let by_number = || text.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    let signal = name.parse().ok().or_else(by_number).ok_or("there is no such signal; write TERM or QUIT")?;
    Ok(signal)
}

/// `notify`, `fd=N`, `health=URL` or `delay=TIME`: how a daemon that does not link the library tells that it is ready.
///
/// # Errors
/// What is wrong, and what to write.
pub fn readiness(text: &str) -> Result<ReadySign, String> {
    let (sign, value) = text.split_once('=').unwrap_or((text, ""));
    match (sign, value) {
        ("notify", "") => Ok(ReadySign::Notify),
        ("fd", number) => match number.parse() {
            Ok(DESCRIPTORS_MAX..) => {
                Err(format!("no process has descriptor {number}; the first one that is free is 3"))
            }
            Ok(number @ 3..) => Ok(ReadySign::Descriptor(number)),
            _ => Err(format!("'{number}' is no number of a descriptor; the first one that is free is 3")),
        },
        ("health", url) => health(url).map(ReadySign::Health),
        ("delay", time) => duration(time).map(ReadySign::Delay),
        _ => Err("write notify, fd=N, health=URL or delay=TIME".to_owned()),
    }
}

/// `tcp://IP:PORT`, `http://IP:PORT/PATH`, `unix:/PATH` or `http+unix://%2FPATH/PATH`: whom to ask, and how.
///
/// # Errors
/// What is wrong, and what to write.
pub fn health(url: &str) -> Result<Health, String> {
    let (scheme, host, path) = match url.split_once("://") {
        None if url.starts_with("unix:/") => ("unix", &url["unix:".len()..], None),
        Some(("tcp", host)) => ("tcp", host, None),
        Some((scheme @ ("http" | "http+unix"), rest)) => {
            let at = rest.find('/').unwrap_or(rest.len());
            let path = if rest[at..].is_empty() { "/" } else { &rest[at..] };
            (scheme, &rest[..at], Some(path.to_owned()))
        }
        _ => {
            let or_unix = "unix:/run/app.sock or http+unix://%2Frun%2Fapp.sock/path";
            return Err(format!("write tcp://127.0.0.1:80, http://127.0.0.1:80/path, {or_unix}"));
        }
    };
    if path.as_ref().is_some_and(|path| path.bytes().any(|byte| !byte.is_ascii_graphic())) {
        return Err("a path has no spaces, and nothing but ASCII: escape it".to_owned());
    }
    let address = match scheme {
        "unix" => HealthAddress::Unix(host.into()),
        "http+unix" => HealthAddress::Unix(unescaped(host)?),
        _ => HealthAddress::Tcp(
            host.parse().map_err(|_| format!("'{host}' is no address like 127.0.0.1:80 or [::1]:80"))?,
        ),
    };
    Ok(Health { address, path, status: GOOD_STATUSES })
}

/// A path in the place of a host: its slashes are written as `%2F`.
fn unescaped(text: &str) -> Result<PathBuf, String> {
    let wrong = || format!("'{text}' is no path in the place of a host, like %2Frun%2Fapp.sock");
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    let path = PathBuf::from(OsString::from_vec(bytes));
    if path.is_absolute() { Ok(path) } else { Err(wrong()) }
}

/// A time that something may take: as [`duration`], and above zero.
///
/// # Errors
/// What is wrong, and what to write.
pub fn time_limit(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("write a time longer than 0: nothing is done in no time".to_owned()),
        time => Ok(time),
    }
}

/// `30s`, `500ms`, `5m`, `1h`; a number alone is seconds; a year at most.
///
/// # Errors
/// What is wrong, and what to write.
pub fn duration(text: &str) -> Result<Duration, String> {
    const YEAR_SECONDS: f64 = 365.0 * 86_400.0;
    if text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '.')) {
        return Err("a time can not be negative; write 500ms, 30s, 5m or 1h".to_owned());
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(no_such_unit(number, unit, ("time", TIMES), "500ms, 30s, 5m or 1h")),
    };
    let number = number.parse::<f64>().map_err(|_| "write 500ms, 30s, 5m or 1h".to_owned())?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|time| time.as_secs_f64() <= YEAR_SECONDS)
        .ok_or_else(|| "that is longer than a year".to_owned())
}

/// `4096`, `64KiB`, `16MiB`, `1GiB`: bytes, 1 or more.
///
/// # Errors
/// What is wrong, and what to write.
pub fn size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: usize = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(no_such_unit(number, unit, ("size", SIZES), "4096, 64KiB, 16MiB or 1GiB")),
    };
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(unit)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("'{text}' is no size; write 4096, 64KiB, 16MiB or 1GiB"))
}

/// Other words for units, in small letters and without the `s` of many, and what is meant.
type Words = &'static [(&'static str, &'static [&'static str])];
const TIMES: Words = &[
    ("ms", &["msec", "milli", "millisecond"]),
    ("s", &["", "sec", "second"]),
    ("m", &["min", "minute"]),
    ("h", &["h", "hr", "hour"]),
];
const SIZES: Words =
    &[("KiB", &["k", "kb", "kib"]), ("MiB", &["m", "mb", "mib"]), ("GiB", &["g", "gb", "gib"]), ("B", &["b", "byte"])];

fn no_such_unit(number: &str, unit: &str, (of, words): (&str, Words), wanted: &str) -> String {
    let word = unit.trim().to_ascii_lowercase();
    let means = |(_, words): &&(&str, &[&str])| words.contains(&word.trim_end_matches('s'));
    match words.iter().find(means).filter(|_| !number.is_empty()) {
        Some((meant, _)) => format!("'{unit}' is no unit of {of}; do you mean '{number}{meant}'?"),
        None => format!("'{unit}' is no unit of {of}; write {wanted}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "s", "1d", "-1s", "1..2s", "1e9h", "99999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_and_signs() {
        for text in ["TERM", "sigterm", "15"] {
            assert_eq!(signal(text), Ok(Signal::SIGTERM));
        }
        assert_eq!((any_signal("KILL"), any_signal("19")), (Ok(Signal::SIGKILL), Ok(Signal::SIGSTOP)));
        assert!(signal("KILL").is_err() && signal("STOP").is_err() && signal("FOO").is_err() && signal("0").is_err());
        for text in [
            "notify",
            "fd=3",
            "health=tcp://127.0.0.1:80",
            "health=http://[::1]:80/x",
            "health=unix:/run/a b",
            "health=http+unix://%2Frun%2Fa%25/x",
            "delay=200ms",
        ] {
            assert_eq!(readiness(text).unwrap().to_string(), text);
        }
        assert_eq!(readiness("health=http://127.0.0.1:80").unwrap().to_string(), "health=http://127.0.0.1:80/");
        for bad in ["health=unix:x", "health=http+unix://run/x", "health=http+unix://%2/x", "health=http+unix://%zz/x"]
        {
            assert!(readiness(bad).is_err(), "{bad}");
        }
        for bad in ["", "notify=1", "fd=2", "fd=x", "delay", "health=127.0.0.1:80", "health=tcp://localhost:80", "fd"] {
            assert!(readiness(bad).is_err(), "{bad}");
        }
        assert!(readiness("health=http://127.0.0.1:80/a b").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!((size("4096"), size("64KiB"), size("2GiB")), (Ok(4096), Ok(65536), Ok(2 << 30)));
        for bad in ["", "0", "KiB", "1k", "-1", "1.5MiB", "99999999999999999999"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
