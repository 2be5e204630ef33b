// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An agent that is held up, and what it tells when it goes on.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use cases::demo::agent::Agent;
use cases::demo::exposition::Exposition;
use cases::session::{PATIENCE, Session};
use migscope_abi::probe::Probe;
use migscope_abi::ring::{Kind, Lost};
use migscope_abi::rule::Rule;
use migscope_abi::watch::conduct::Conduct;
use rustix::process::{Pid, Signal, kill_process, setpriority_process};
use serde_json::Value;

const ADDRESS: &str = "127.0.0.1:10477";

/// A running agent with all its probes.
pub(crate) struct Watching(Agent);

impl Watching {
    pub(crate) fn start() -> Self {
        let agent = Agent::start(ADDRESS.parse().expect("an address")).expect("the agent starts");
        let missing = agent.scrape().expect("the agent answers").detached_probes();
        assert!(missing.is_empty(), "probes are missing: {missing:?}");
        Self(agent)
    }

    fn pid(&self) -> Pid {
        let raw = i32::try_from(self.0.pid()).expect("a process number");
        Pid::from_raw(raw).expect("not 0")
    }

    /// Stops all of its threads, and waits until they stand.
    pub(crate) fn stop(&self) {
        kill_process(self.pid(), Signal::STOP).expect("it is there");
        let deadline = Instant::now() + PATIENCE;
        let stands = |status: &str| status.lines().any(|line| line.starts_with("State:\tT"));
        let all_stand = || {
            self.threads().all(|thread| {
                let status =
                    fs::read_to_string(format!("/proc/{}/task/{thread}/status", self.0.pid()));
                stands(&status.expect("it is there"))
            })
        };
        while !all_stand() {
            assert!(Instant::now() < deadline, "the agent does not stand");
            super::pause();
        }
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        kill_process(self.pid(), Signal::CONT).expect("it is there");
    }

    /// Gives all of its threads the least of the CPUs that there is.
    pub(crate) fn starve(&self) {
        for thread in self.threads() {
            setpriority_process(Pid::from_raw(thread), 19).expect("it is there");
        }
    }

    fn threads(&self) -> impl Iterator<Item = i32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.pid())).expect("it is there");
        tasks.map(|task| {
            let name = task.expect("an entry").file_name();
            name.to_str().expect("a number").parse().expect("a number")
        })
    }

    /// What it tells now.
    pub(crate) fn account(&self) -> Account {
        let exposition = self.0.scrape().expect("the agent answers");
        let snapshot = self.0.get("/api/v1/snapshot").expect("the agent answers");
        Account { exposition, snapshot: serde_json::from_str(&snapshot).expect("JSON") }
    }

    /// Waits until what it tells is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Account) -> bool) -> Account {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let account = self.account();
            if wanted(&account) {
                return account;
            }
            assert!(Instant::now() < deadline, "{what}: not in {:#}", account.snapshot);
            super::pause();
        }
    }

    /// What it tells when it has read all that there is: maps and ring, each twice, told the same. It reads them four times a second.
    pub(crate) fn settled(&self) -> Account {
        let deadline = Instant::now() + PATIENCE;
        let mut last = self.account();
        loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
            let account = self.account();
            if account.totals() == last.totals() {
                return account;
            }
            assert!(Instant::now() < deadline, "the agent's counts do not come to rest");
            last = account;
        }
    }

    /// The same, after it told as many events as there were. They are told with the sample that follows the last records.
    pub(crate) fn drained(&self, told_all: impl Fn(&Account) -> bool) -> Account {
        self.until("all events", told_all);
        self.settled()
    }

    /// Ends it.
    pub(crate) fn end(self) {
        self.0.stop().expect("the agent ends");
    }
}

/// What the agent told at one moment.
pub(crate) struct Account {
    exposition: Exposition,
    snapshot: Value,
}

impl Account {
    /// A counter, which is not there until it has counted.
    fn count(&self, metric: &str, labels: &[(&str, &str)]) -> u64 {
        let value = self.exposition.sum(metric, labels).unwrap_or(0.0);
        // Counts of a test are far below 2^53.
        format!("{value:.0}").parse().expect("a count")
    }

    /// Records of a tracepoint that the probes read.
    pub(crate) fn events(&self, event: Probe) -> u64 {
        self.count("migscope_events_total", &[("kind", event.name())])
    }

    pub(crate) fn error_and_access_events(&self) -> u64 {
        self.events(Probe::Error) + self.events(Probe::RegionAccess)
    }

    /// Records of the ring that the agent took in.
    pub(crate) fn records(&self) -> u64 {
        self.count("migscope_records_total", &[])
    }

    pub(crate) fn records_of(&self, kind: Kind) -> u64 {
        self.count("migscope_records_total", &[("kind", kind.name())])
    }

    pub(crate) fn lost(&self, reason: Lost) -> u64 {
        self.lost_as(reason.name())
    }

    pub(crate) fn lost_as(&self, reason: &str) -> u64 {
        self.count("migscope_events_lost_total", &[("reason", reason)])
    }

    /// Runs of the probes that the kernel left out. This one tells.
    pub(crate) fn skipped(&self) -> u64 {
        self.lost_as("skipped")
    }

    /// All that is counted of the probes' work.
    fn totals(&self) -> Vec<u64> {
        let events = Probe::ALL.map(|event| self.events(event));
        let lost = self.count("migscope_events_lost_total", &[]);
        events.into_iter().chain([self.records(), lost]).collect()
    }

    /// How often each rule was broken on a device.
    pub(crate) fn broken(&self, device: &str) -> BTreeMap<&'static str, u64> {
        let rules = Rule::ALL.map(Rule::name).into_iter().chain(Conduct::ALL.map(Conduct::name));
        let count = |rule| {
            let labels = [("device", device), ("rule", rule)];
            self.count("vfio_migration_protocol_violations_total", &labels)
        };
        rules.map(|rule| (rule, count(rule))).filter(|(_, count)| *count > 0).collect()
    }

    /// Accesses of a device that were refused.
    pub(crate) fn refused_accesses(&self, device: &str) -> u64 {
        let labels = [("device", device), ("result", "refused")];
        self.count("vfio_migration_region_accesses_total", &labels)
    }

    /// Sessions that ended so.
    pub(crate) fn ended(&self, role: &str, result: &str) -> u64 {
        self.count("vfio_migration_sessions_total", &[("role", role), ("result", result)])
    }

    /// All sessions, in the order in which they began.
    pub(crate) fn sessions(&self) -> Vec<Value> {
        self.snapshot["sessions"].as_array().expect("a list").clone()
    }

    /// The state that a device is in, if that is known.
    pub(crate) fn state_of(&self, session: &Session) -> Option<String> {
        let key = session.device.key().to_string();
        let devices = self.snapshot["devices"].as_array().expect("a list");
        let device = devices.iter().find(|device| device["device"] == key.as_str())?;
        device["state"].as_str().map(str::to_owned)
    }
}
