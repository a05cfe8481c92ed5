//! What came out, a line for each pair.

use crate::daemons::Language;

pub struct Row {
    pub from: &'static str,
    pub to: &'static str,
    pub outcome: Outcome,
}

pub enum Outcome {
    /// One of the two could not be built here.
    Skipped,
    Tried(Tried),
}

pub struct Tried {
    /// Of the commit; or why there was none.
    pub pause_ms: Result<f64, String>,
    pub rolled_back: Result<(), String>,
    pub requests: u64,
    pub failed_requests: u64,
    /// In words, the first few.
    pub failures: Vec<String>,
    /// Connections that were kept, and closed by a daemon.
    pub closed: u64,
    /// Numbers that went there and back on such connections.
    pub numbers: u64,
    /// Acknowledged writes that are not there, in words; or why nobody could ask.
    pub lost: Result<Vec<String>, String>,
    /// How often somebody looked who holds the lock, and the most that were seen at once.
    pub looks: usize,
    pub holders: usize,
}

impl Row {
    pub fn skipped(from: &Language, to: &Language) -> Self {
        Self { from: from.name, to: to.name, outcome: Outcome::Skipped }
    }

    /// What is wrong with it.
    pub fn complaint(&self) -> Option<String> {
        let Outcome::Tried(tried) = &self.outcome else { return None };
        let mut wrong = Vec::new();
        wrong.extend(tried.rolled_back.as_ref().err().map(|why| format!("rollback: {why}")));
        wrong.extend(tried.pause_ms.as_ref().err().map(|why| format!("commit: {why}")));
        if tried.failed_requests > 0 {
            wrong.push(format!("{} failed requests", tried.failed_requests));
        }
        if tried.closed > 0 || tried.numbers == 0 {
            wrong.push(format!("{} kept connections were closed, in {} numbers", tried.closed, tried.numbers));
        }
        wrong.extend(tried.failures.iter().map(|failure| format!("request: {failure}")));
        match &tried.lost {
            Ok(lost) => wrong.extend(lost.iter().take(3).map(|write| format!("lost: {write}"))),
            Err(why) => wrong.push(format!("writes could not be read back: {why}")),
        }
        if tried.looks == 0 || tried.holders != 1 {
            wrong.push(format!("the lock had {} holders at once, in {} looks", tried.holders, tried.looks));
        }
        (!wrong.is_empty()).then(|| format!("{} → {}:\n  {}", self.from, self.to, wrong.join("\n  ")))
    }

    fn line(&self) -> String {
        let (from, to) = (self.from, self.to);
        let Outcome::Tried(tried) = &self.outcome else { return format!("{from:10} {to:10} SKIPPED") };
        let word = |ok: bool| if ok { "ok" } else { "FAILED" };
        let (commit, pause) = tried.pause_ms.as_ref().map_or(("FAILED", f64::NAN), |pause| ("ok", *pause));
        let lost = tried.lost.as_ref().map_or("?".into(), |lost| lost.len().to_string());
        format!(
            "{from:10} {to:10} {commit:6} {pause:9.2} {:>8} {:9} {:>6} {:>6} {:>7} {lost:>4} {:>7}",
            tried.requests,
            word(tried.rolled_back.is_ok()),
            tried.failed_requests,
            tried.closed,
            tried.numbers,
            tried.holders
        )
    }
}

/// Prints the rows in the order of the languages.
pub fn print(rows: &mut [Row], languages: &[Language]) {
    let place = |name: &str| languages.iter().position(|language| language.name == name);
    rows.sort_by_key(|row| (place(row.from), place(row.to)));
    println!("from       to         commit  pause ms requests rollbacks failed closed numbers lost holders");
    for row in rows {
        println!("{}", row.line());
    }
}
