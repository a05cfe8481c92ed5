//! Numbers in texts for people.

/// `1 line`, `2 lines`.
pub fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What to do where processes can not be looked for.
pub(super) const DESCRIPTORS_ADVICE: &str =
    "raise RLIMIT_NOFILE of the supervisor (prlimit --pid PID --nofile=65536), or fs.file-max";
