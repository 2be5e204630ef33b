// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent gives up its privileges, and goes on seeing: no thread of it has a capability, and the next migration is counted whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use cases::demo::agent::Agent;
use cases::demo::exposition::Exposition;
use cases::session::{PATIENCE, Session};
use cases::{guest, module};
use migrator::live::{self, Options, Transport};
use migrator::region::DataAccess;
use migrator::source::PreCopy;
use migscope_abi::probe::Probe;
use workload::Spec;

const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 10477);

/// CAP_BPF and CAP_PERFMON, in the sets of `/proc/PID/status`.
const ATTACH: u64 = 0b11 << 38;

/// `kernel.unprivileged_bpf_disabled`: 2 is off, and can be switched on again; 1 is off until the next boot, so it comes last.
const UNPRIVILEGED_BPF: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

fn main() -> ExitCode {
    // A driver of the v2 protocol, and all who tell of dirty pages: with them every probe has something to do but those that come
    // and go with devices.
    let modules = ["mtty", "vfio_iommu_type1", "iommufd", "kvm_amd"];
    let loaded = Command::new("modprobe").arg("-a").args(modules).status().expect("modprobe");
    assert!(loaded.success(), "{modules:?} are loaded");
    guest::run(&[
        ("check_says_that_everything_is_there", check_is_complete),
        ("no_thread_keeps_a_capability_and_events_still_arrive", dropped),
        ("one_thread_keeps_what_attaching_takes_and_sees_a_module_that_comes", attached_later),
        ("check_without_the_module_says_what_it_would_show", check_without_the_module),
        ("maps_are_read_though_unprivileged_bpf_is_off_for_good", off_for_good),
    ])
}

/// Exit status and standard output of `migscope check --json`.
fn check() -> (Option<i32>, serde_json::Value) {
    let mut command = Command::new(env::var_os("MIGSCOPE_AGENT").expect("xtask names it"));
    let output = command.args(["check", "--json"]).output().expect("it runs");
    let found = serde_json::from_slice(&output.stdout).expect("one JSON object");
    (output.status.code(), found)
}

fn check_is_complete() {
    let (code, found) = check();
    assert_eq!(code, Some(0), "{found:#}");
    let vfio = found["vfio"].as_array().expect("a list");
    assert!(vfio.iter().all(|finding| finding["available"] == true), "{vfio:#?}");
    let devices = vfio.iter().find(|finding| finding["name"] == "vfio devices").expect("there");
    let detail = devices["detail"].as_str().expect("text");
    assert_eq!(detail.matches("vfio_mediate, group ").count(), 2, "{detail}");
}

fn check_without_the_module() {
    module::unload();
    let (code, found) = check();
    assert_ne!(code, Some(2), "devices of other drivers are seen: {found:#}");
    for probe in found["probes"].as_array().expect("a list") {
        let name = probe["name"].as_str().expect("a name");
        let known = Probe::ALL.into_iter().find(|known| known.name() == name);
        let known = known.expect("a probe");
        // What belongs to another module that is not loaded has as little to do as ours.
        let module = Path::new("/sys/module").join(known.subsystem().module());
        let waits = known.is_of_our_driver() || !module.is_dir();
        let on_demand = known.is_on_demand();
        assert_eq!(probe["available"], !waits && !on_demand, "{probe}");
        assert_eq!(probe["needed"], !waits && !on_demand, "{probe}");
        let mends = probe["remedy"].as_str().is_some_and(|remedy| remedy.contains("modprobe"));
        assert_eq!(mends, waits, "{probe}");
    }
    module::reload(&[]);
}

/// The fields of the status of each thread, by the thread's name and number.
fn threads(agent: &Agent) -> BTreeMap<String, BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("it runs");
    let statuses =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let fields = |status: String| -> BTreeMap<String, String> {
        let pair = |line: &str| {
            let (name, value) = line.split_once(":\t")?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        status.lines().filter_map(pair).collect()
    };
    statuses
        .map(fields)
        .map(|fields| (format!("{}/{}", fields["Name"], fields["Pid"]), fields))
        .collect()
}

/// The capabilities that any thread could use, thread by thread.
fn capabilities(agent: &Agent) -> BTreeMap<String, u64> {
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let any = |fields: &BTreeMap<String, String>| {
        sets.iter().fold(0, |all, set| all | u64::from_str_radix(&fields[*set], 16).expect("a set"))
    };
    threads(agent).iter().map(|(name, fields)| (name.clone(), any(fields))).collect()
}

/// Waits until no thread has a capability in any set.
fn wait_for_none(agent: &Agent) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = capabilities(agent);
        if left.values().all(|set| *set == 0) {
            assert!(left.len() >= 4, "the main thread, two that serve, the sampler: {left:?}");
            break;
        }
        assert!(Instant::now() < deadline, "{left:x?}");
        sleep(Duration::from_millis(50));
    }
    for (thread, fields) in threads(agent) {
        assert_eq!(fields["NoNewPrivs"], "1", "{thread}");
        assert_eq!(fields["Uid"].split('\t').next(), Some("0"), "still the same user: {thread}");
    }
}

fn migrate() {
    let (from, to) = (Session::open(0), Session::open(1));
    let options = Options {
        pre_copy: PreCopy {
            min_passes: 2,
            min_time: Duration::from_millis(200),
            interval: Duration::from_millis(100),
        },
        workload: Spec { hot_pages: 12, ..Spec::default() },
        transport: Transport::Unix,
        chunk_bytes: None,
        data_access: DataAccess::Auto,
    };
    let outcome = live::migrate(&from.device, &to.device, &options).expect("a migration");
    assert!(outcome.verified);
}

/// Scrapes until the sessions that have ended are as many: what was read of the maps by then is in the scrape as well, or soon is.
fn scrape_after(agent: &Agent, sessions: f64) -> Exposition {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let scrape = agent.scrape().expect("it answers");
        if scrape.sum("vfio_migration_sessions_total", &[("result", "completed")]) == Some(sessions)
        {
            break;
        }
        assert!(Instant::now() < deadline, "the sessions did not end");
        sleep(Duration::from_millis(50));
    }
    // The maps are read every 250 ms.
    sleep(Duration::from_secs(1));
    agent.scrape().expect("it answers")
}

/// A migration is seen whole: by the ring, by the maps, by the kernel's counts of the programs, by procfs and sysfs.
fn assert_sees_migrations(agent: &Agent) {
    let families = [
        "vfio_migration_state_transitions_total",
        "vfio_migration_region_accesses_total",
        "vfio_migration_data_bytes_total",
        "migscope_bpf_program_runs_total",
    ];
    let before = agent.scrape().expect("it answers");
    let sessions = [("result", "completed")];
    let ended = before.sum("vfio_migration_sessions_total", &sessions).unwrap_or(0.0);
    migrate();
    let after = scrape_after(agent, ended + 2.0);
    for family in families {
        let (old, new) = (before.sum(family, &[]).unwrap_or(0.0), after.sum(family, &[]));
        assert!(new.is_some_and(|new| new > old), "{family}: {old} to {new:?}");
    }
    // The skipped runs are from /proc/self/fdinfo, the driver and the group from sysfs.
    assert_eq!(after.sum("migscope_events_lost_total", &[("reason", "skipped")]), Some(0.0));
    let info = [("driver", "vfio_mediate")];
    assert_eq!(after.sum("vfio_migration_device_info", &info), Some(2.0));
}

fn start(mode: &str) -> Agent {
    let words = ["--privileges", mode];
    Agent::start_with(SocketAddr::from(LISTEN), &words).expect("it starts")
}

fn dropped() {
    let agent = start("drop-now");
    wait_for_none(&agent);
    assert_sees_migrations(&agent);
    assert_sees_migrations(&agent);
    assert!(capabilities(&agent).values().all(|set| *set == 0), "and none has come back");
    agent.stop().expect("it stops");
}

/// Waits until the thread that attaches has what that takes, and no other has anything.
fn wait_for_attach_only(agent: &Agent) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = capabilities(agent);
        let of_sampler = |name: &str| name.starts_with("sampler/");
        if left.iter().all(|(name, set)| *set == if of_sampler(name) { ATTACH } else { 0 }) {
            break;
        }
        assert!(Instant::now() < deadline, "{left:x?}");
        sleep(Duration::from_millis(50));
    }
}

fn attached_later() {
    module::unload();
    let agent = start("drop");
    wait_for_attach_only(&agent);
    module::reload(&[]);
    let deadline = Instant::now() + PATIENCE;
    while !agent.get("/readyz").expect("it answers").contains("probe state: attached") {
        assert!(Instant::now() < deadline, "the tracepoints are there");
        sleep(Duration::from_millis(50));
    }
    assert_sees_migrations(&agent);
    // Devices of any driver come and go: what attaching takes is kept for them.
    wait_for_attach_only(&agent);
    agent.stop().expect("it stops");
}

fn off_for_good() {
    fs::write(UNPRIVILEGED_BPF, "1").expect("a setting");
    let agent = start("drop-now");
    wait_for_none(&agent);
    assert_sees_migrations(&agent);
    agent.stop().expect("it stops");
}
