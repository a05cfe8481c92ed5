//! The values of options, beside those that files have, too.

use std::ffi::OsString;

use handoff::service::address::Address;
use handoff::service::parse::duration;
use handoff::sys::clock::{nanoseconds, realtime_ns};

pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("write 1 or more: with 0 the daemon could never be replaced".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("'{text}' is no number; write 1 or more")),
    }
}

/// A stream listener, which has no options.
pub fn metrics_address(text: &str) -> Result<Address, String> {
    match text.parse()? {
        Address::Udp(_) => Err("metrics are read by HTTP, which needs TCP or unix:/path".to_owned()),
        address => Ok(address),
    }
}

pub fn not_empty(text: &str) -> Result<OsString, String> {
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.into()) }
}

/// A time, `CLOCK_REALTIME` nanoseconds: so long ago, or a date (RFC 3339), or seconds since 1970.
pub fn since(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("'{text}' is no time; write 10m, 2026-01-31T23:59:59Z, 2026-01-31T23:59:59+01:00 or @1700000000");
    let seconds = match text.strip_prefix('@') {
        Some(seconds) => seconds.parse::<u64>().ok(),
        None if text.contains(['T', 't', ' ']) => Some(date(text).ok_or_else(wrong)?),
        None => return duration(text).map(|ago| realtime_ns().saturating_sub(nanoseconds(ago))).map_err(|_| wrong()),
    };
    seconds.and_then(|seconds| seconds.checked_mul(1_000_000_000)).ok_or_else(wrong)
}

/// `2026-01-31T23:59:59` with `Z` or `+01:00`, in seconds since 1970.
fn date(text: &str) -> Option<u64> {
    let (day, time) = text.split_once(['T', 't', ' '])?;
    let at = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(at);
    let [year, month, day] = numbers(day, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let [hours, minutes] =
                numbers(offset, ':', [2, 2]).filter(|[hours, minutes]| *hours < 24 && *minutes < 60)?;
            let seconds = hours * 3600 + minutes * 60;
            if sign == "-" { -seconds } else { seconds }
        }
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if year < 1970 || !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let before = year - 1;
    let days = 365 * (year - 1970) + (before / 4 - before / 100 + before / 400) - 477;
    let days = days + lengths[..month as usize - 1].iter().sum::<i64>() + day - 1;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - offset).ok()
}

/// Numbers of so many digits.
fn numbers<const COUNT: usize>(text: &str, separator: char, digits: [usize; COUNT]) -> Option<[i64; COUNT]> {
    let parts: Vec<&str> = text.split(separator).collect();
    let is_number = |(part, digits): (&&str, &usize)| part.len() == *digits && part.bytes().all(|b| b.is_ascii_digit());
    if parts.len() != COUNT || !parts.iter().zip(&digits).all(is_number) {
        return None;
    }
    let numbers: Vec<i64> = parts.iter().filter_map(|part| part.parse().ok()).collect();
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2001-09-09T01:46:40z", 1_000_000_000),
            ("2026-01-31T23:59:59Z", 1_769_903_999),
            ("2026-02-01 00:59:59+01:00", 1_769_903_999),
            ("2026-01-31T20:29:59-03:30", 1_769_903_999),
            ("@1769903999", 1_769_903_999),
        ] {
            assert_eq!(since(text), Ok(seconds * 1_000_000_000), "{text}");
        }
        let now = realtime_ns();
        let ago = since("10m").unwrap();
        assert!((now - 600_000_000_000..=realtime_ns() - 600_000_000_000).contains(&ago), "{now} {ago}");
        for bad in [
            "",
            "yesterday",
            "@",
            "@-1",
            "@99999999999999",
            "2026-01-31T23:59:59",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-1-1T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2026-01-01T00:00:00+25:00",
            "2026-01-01T00:00:00Z1",
            "é-01T",
            "T",
            "T+",
        ] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
