//! What processes cost, as /proc has it.

use std::fs;

/// Of some processes together.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    pub processes: usize,
    pub rss_kb: u64,
    pub pss_kb: u64,
}

impl Memory {
    pub fn of(pids: &[i32]) -> Self {
        let mut memory = Self { processes: pids.len(), ..Self::default() };
        for pid in pids {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            memory.rss_kb += field(&text, "Rss:");
            memory.pss_kb += field(&text, "Pss:");
        }
        memory
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// How often their threads have run, until they waited or were made to.
pub fn switches(pids: &[i32]) -> u64 {
    let tasks = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten());
    let of = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("status")).unwrap_or_default();
        field(&text, "voluntary_ctxt_switches:") + field(&text, "nonvoluntary_ctxt_switches:")
    };
    tasks.map(|task| of(task.path())).sum()
}

/// Of them, and of their children that they have waited for.
pub fn cpu_ms(pids: &[i32]) -> u64 {
    let of = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        fields.get(11..13).map_or(0, |times| times.iter().sum::<u64>())
    };
    pids.iter().map(of).sum::<u64>() * 10 // clock ticks, of which Linux shows a hundred a second
}
