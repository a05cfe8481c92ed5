//! The text exposition format of Prometheus, read strictly: what one of its parsers would refuse fails the test.

use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

pub struct Exposition {
    samples: Vec<(String, Labels, f64)>,
}

impl Exposition {
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let (mut families, mut samples) = (BTreeMap::new(), Vec::new());
        let (mut family, mut help) = (String::new(), None);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, text) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(!text.is_empty() && !families.contains_key(name), "twice, or empty: {line}");
                help = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert_eq!(help.take().as_deref(), Some(name), "a type without its help: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "the name of a counter: {line}");
                is_name(name, line);
                families.insert(name.to_owned(), kind.to_owned());
                name.clone_into(&mut family);
            } else {
                let (name, labels, value) = sample(line);
                let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("not of {family}: {line}"));
                let allowed: &[&str] =
                    if families[&family] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(allowed.contains(&suffix), "{line}");
                assert_eq!(suffix == "_bucket", labels.contains_key("le"), "{line}");
                samples.push((name, labels, value));
            }
        }
        let distinct: BTreeSet<_> = samples.iter().map(|(name, labels, _)| (name, labels)).collect();
        assert_eq!(distinct.len(), samples.len(), "a series is there twice:\n{text}");
        let found = Self { samples };
        found.check_histograms();
        found
    }

    /// Buckets grow, end with +Inf, and that one is the count.
    fn check_histograms(&self) {
        let mut series: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
        for (name, labels, value) in &self.samples {
            if let Some(name) = name.strip_suffix("_bucket") {
                let mut labels = labels.clone();
                let bound = labels.remove("le").unwrap().replace("+Inf", "inf").parse().unwrap();
                series.entry((name.to_owned(), labels)).or_default().push((bound, *value));
            }
        }
        for ((name, labels), buckets) in series {
            let grows = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            assert!(grows, "{name} {labels:?}: {buckets:?}");
            let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let count = self.value(&format!("{name}_count"), &labels);
            let last = *buckets.last().unwrap();
            assert_eq!((last.0, Some(last.1)), (f64::INFINITY, count), "{name} {labels:?}");
            assert!(self.value(&format!("{name}_sum"), &labels).is_some());
        }
    }

    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found = self.samples.iter().find(|sample| sample.0 == name && sample.1 == labels);
        found.map(|(.., value)| *value)
    }
}

fn is_name(name: &str, line: &str) {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    assert!(name.chars().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty(), "{line}");
}

/// `name{label="value",…} number`, and nothing else.
fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let value = value.replace("+Inf", "inf").parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let Some((name, rest)) = series.split_once('{') else {
        is_name(series, line);
        return (series.to_owned(), Labels::new(), value);
    };
    is_name(name, line);
    let mut rest = rest.strip_suffix('}').unwrap_or_else(|| panic!("no end of labels: {line}"));
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        is_name(label, line);
        let (text, after) = quoted(after, line);
        assert!(labels.insert(label.to_owned(), text).is_none(), "a label is there twice: {line}");
        rest = match after.strip_prefix(',') {
            Some(after) => after,
            None if after.is_empty() => after,
            None => panic!("after a label: {line}"),
        };
    }
    (name.to_owned(), labels, value)
}

/// Up to the quote that ends it; what follows that.
fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let (mut found, mut characters) = (String::new(), text.char_indices());
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (found, &text[at + 1..]),
            '\\' => match characters.next() {
                Some((_, 'n')) => found.push('\n'),
                Some((_, c @ ('\\' | '"'))) => found.push(c),
                other => panic!("an escape that is none, {other:?}: {line}"),
            },
            c => found.push(c),
        }
    }
    panic!("no end of a value: {line}")
}
