//! docs/units.md: its examples are well, and it has every key.

use std::fs;
use std::path::Path;

use handoff::service::config::{
    BACKOFF_KEYS, Config, File, HEALTH_KEYS, LOG_KEYS, RESTART_LIMIT_KEYS, RLIMITS, TARGET_KEYS, UNIT_KEYS, Unit,
};

use crate::check;

fn manual() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/units.md")).unwrap()
}

fn blocks() -> Vec<String> {
    manual().split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn its_examples_are_well() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = blocks();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        fs::write(dir.path().join("handoff.toml"), &block).unwrap();
        let said = check(dir.path(), &[]);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{}", said.stdout);
    }
}

/// The rows of the tables that tell of what can be written; those of commands and states do not.
fn rows(text: &str) -> Vec<&str> {
    let mut is_wanted = false;
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        if !line.starts_with("| `") {
            is_wanted = line.starts_with("| key |") || line.starts_with("| condition |");
        } else if is_wanted {
            rows.push(line);
        }
    }
    rows
}

#[test]
fn it_has_every_key_and_no_other() {
    let text = manual();
    let mut told: Vec<String> = rows(&text)
        .into_iter()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned()))
        .collect();
    let tables =
        [("backoff", BACKOFF_KEYS), ("restart_limit", RESTART_LIMIT_KEYS), ("health", HEALTH_KEYS), ("log", LOG_KEYS)];
    let parts = tables.iter().flat_map(|(table, keys)| keys.iter().map(move |key| format!("{table}.{key}")));
    let keys = UNIT_KEYS.iter().chain(TARGET_KEYS).chain(&["started", "healthy", "completed"]);
    let mut wanted: Vec<String> = keys.map(|key| (*key).to_owned()).chain(parts).collect();
    told.sort();
    wanted.sort();
    assert_eq!(told, wanted);
    let limits = text.lines().find(|line| line.starts_with("| `rlimits`")).unwrap();
    assert!(RLIMITS.iter().all(|name| limits.contains(&format!("`{name}`"))), "{limits}");
}

/// The units `short` and `long` of a file that has nothing else.
fn pair(text: &str) -> (Unit, Unit) {
    let file = File { path: Path::new("units.md").into(), content: Ok(text.into()) };
    let mut config = Config::of(&[file]);
    assert_eq!(config.faults, []);
    (config.units.remove("short").unwrap(), config.units.remove("long").unwrap())
}

/// What it says is the default is, in the block and in the tables.
#[test]
fn its_defaults_are_true() {
    let block = blocks().pop().unwrap();
    let (short, long) = pair(&block);
    assert_eq!(short, long);
    let mut apart = (String::new(), String::new());
    for line in rows(&manual()) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let key = cells[0].trim_start_matches("| `").trim_end_matches('`');
        let Some(default) = cells[2].strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) else { continue };
        let (table, part) = key.split_once('.').unwrap_or((key, key));
        match table {
            "health" => apart.0.push_str(&format!("{key} = {default}\n")),
            "log" if part.starts_with("file") => apart.0.push_str(&format!("{key} = {default}\n")),
            "max_draining" => apart.1.push_str(&format!("{key} = {default}\n")),
            _ => {
                let written = block.lines().find(|line| line.starts_with(&format!("{table} = ")));
                assert!(written.is_some_and(|line| line.contains(&format!("{part} = {default}"))), "{key}: {default}");
            }
        }
    }
    // They have no meaning without others, so they are not in the block.
    let unit = |name: &str| {
        let keys = "exec = [\"x\"]\nmode = \"overlap\"\nhealth.url = \"http://[::1]:1\"\nlog.dir = \"/x\"\n";
        format!("[unit.{name}]\n{keys}")
    };
    assert_eq!((apart.0.lines().count(), apart.1.lines().count()), (6, 1));
    let (short, long) = pair(&format!("{}{}{}{}", unit("short"), unit("long"), apart.0, apart.1));
    assert_eq!(short, long);
}
