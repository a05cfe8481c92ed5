//! Any bytes.

use crate::harness::{Run, text};
use handoff::limits::LINE_BYTES_MAX;
use serde_json::json;

#[test]
fn what_is_no_text_has_no_end_or_is_too_long() {
    let long = 1 << 17; // what is kept has room for some lives
    let script = format!(
        "printf 'one\\n\\nnot \\377 text\\nnul \\000 byte\\r\\n' >&2
        head -c {long} /dev/zero | tr '\\0' x >&2
        printf '\\nno end' >&2
        sleep 0.1
        printf ' yet; and then none' >&2"
    );
    let run = Run::start(&script, &["--restart", "always"]);
    let parts = long / LINE_BYTES_MAX;
    let lines = run.wait_for_lines(4 + parts + 1);
    let head: Vec<_> = lines[..4].iter().map(|line| line["text"].clone()).collect();
    assert_eq!(head, [json!("one"), json!(""), json!(b"not \xff text"), json!("nul \0 byte\r")]);
    for (number, part) in lines[4..4 + parts].iter().enumerate() {
        assert_eq!((text(part).len(), &part["goes_on"]), (LINE_BYTES_MAX, &json!(number + 1 < parts)), "{number}");
        assert!(text(part).bytes().all(|byte| byte == b'x'));
    }
    let last = &lines[4 + parts];
    assert_eq!(text(last), "no end yet; and then none");
    assert!(
        lines.iter().all(|line| line["stream"] == "stderr" && line["pid"] == last["pid"] && line["generation"] == 1)
    );
    let times: Vec<u64> = lines.iter().map(|line| line["time_ns"].as_u64().unwrap()).collect();
    assert!(times.is_sorted() && times[0] > 1_700_000_000_000_000_000, "{times:?}");
    // Byte by byte, each with an end.
    let plain = run.logs(&["kv"]);
    assert!(plain.starts_with(b"one\n\nnot \xff text\nnul \0 byte\r\nxxx"), "{}", plain[..40].escape_ascii());
    let named = run.logs(&["-n", "1"]);
    assert!(named.starts_with(b"kv | "), "{}", named.escape_ascii());
}
