//! The load, and the check of every write that it had acknowledged.

use crate::support::load::{Load, LoadOptions, Report, verify};
use std::net::SocketAddr;
use std::time::Duration;

/// Each pauses: a log that grows too fast makes the next start too slow.
const THINK: Duration = Duration::from_millis(15);

pub struct Clients {
    address: SocketAddr,
    loads: Vec<Load>,
    epoch: u64,
    acknowledged: Vec<(String, String)>,
    /// By loads that have ended.
    failed: u64,
    pub requests: u64,
}

impl Clients {
    pub fn start(address: SocketAddr) -> Self {
        let mut clients =
            Self { address, loads: Vec::new(), epoch: 0, acknowledged: Vec::new(), failed: 0, requests: 0 };
        clients.begin_epoch();
        clients
    }

    /// Half of them keep their connections, the others take a new one for each request.
    fn begin_epoch(&mut self) {
        self.epoch += 1;
        let epoch = self.epoch;
        let load = |keep_alive, kind| {
            let name = format!("{kind}{epoch}-");
            Load::start(LoadOptions { clients: 4, keep_alive, think: THINK, name, ..LoadOptions::new(self.address) })
        };
        self.loads = vec![load(true, "k"), load(false, "s")];
    }

    pub fn failed(&self) -> u64 {
        self.failed + self.loads.iter().map(|load| load.snapshot().failed_requests).sum::<u64>()
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// What failed lately, in words.
    pub fn failures(&mut self) -> Vec<String> {
        self.end_epoch().into_iter().flat_map(|report| report.failures).collect()
    }

    fn end_epoch(&mut self) -> Vec<Report> {
        let reports: Vec<Report> = self.loads.drain(..).map(Load::stop).collect();
        for report in &reports {
            self.failed += report.failed_requests;
            self.requests += report.requests;
            assert_eq!(report.failures_by_kind.get("lost write"), None, "lost writes: {:?}", report.failures);
            assert_eq!(report.failures_by_kind.get("error reply"), None, "refused writes: {:?}", report.failures);
        }
        reports
    }

    /// Reads back what was acknowledged since the last time, and goes on with new keys.
    pub fn check_epoch(&mut self) {
        let acknowledged: Vec<_> = self.end_epoch().into_iter().flat_map(|report| report.acknowledged).collect();
        self.check(&acknowledged);
        self.acknowledged.extend(acknowledged);
        self.begin_epoch();
    }

    /// Ends the load, and reads back every write of the whole run.
    pub fn check_all(&mut self) {
        self.check_epoch();
        self.end_epoch();
        self.check(&self.acknowledged);
    }

    fn check(&self, acknowledged: &[(String, String)]) {
        let lost = verify(self.address, acknowledged).expect("nobody answers who reads back");
        assert_eq!(lost, Vec::<String>::new(), "lost writes");
    }
}
