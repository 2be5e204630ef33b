// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the running agent may still do, as the kernel tells of it: every thread of it. With probes attached, in the guest, the same is
//! asserted by `tests/cases/tests/agent_privileges.rs`.

mod support;

use std::{collections::BTreeMap, fs};
use support::Agent;

/// CAP_BPF and CAP_PERFMON.
const ATTACH: u64 = 0b11 << 38;

/// One thread's name, and a field of its status.
struct Thread {
    name: String,
    fields: BTreeMap<String, String>,
}

impl Thread {
    fn set(&self, field: &str) -> u64 {
        u64::from_str_radix(&self.fields[field], 16).expect("a set of capabilities")
    }
}

fn threads(pid: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let thread = |task: std::io::Result<fs::DirEntry>| {
        let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let field = |line: &str| {
            let (name, value) = line.split_once(":\t")?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        let fields: BTreeMap<_, _> = status.lines().filter_map(field).collect();
        Some(Thread { name: fields["Name"].clone(), fields })
    };
    let threads: Vec<_> = tasks.filter_map(thread).collect();
    assert!(threads.len() >= 4, "the main one, two that serve, and the sampler");
    threads
}

fn ours(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a set of capabilities")
}

/// CAP_SETPCAP, without which nobody can empty a bounding set.
fn has_setpcap() -> bool {
    ours("CapEff") >> 8 & 1 == 1
}

#[test]
fn with_probes_missing_only_the_sampler_keeps_what_attaching_takes() {
    let mut agent = Agent::start(&[]);
    let ready = agent.wait_until_ready();
    if ready.contains(": attached") {
        return eprintln!("not run: the probes are attached here");
    }
    agent.hear("kept by the thread that attaches them");
    for thread in threads(agent.pid()) {
        let expected = if thread.name == "sampler" { ATTACH } else { 0 };
        for field in ["CapEff", "CapPrm"] {
            assert_eq!(thread.set(field), expected & ours("CapPrm"), "{} {field}", thread.name);
        }
        for field in ["CapInh", "CapAmb"] {
            assert_eq!(thread.set(field), 0, "{} {field}", thread.name);
        }
        if has_setpcap() {
            assert_eq!(thread.set("CapBnd"), 0, "{}", thread.name);
        }
        assert_eq!(thread.fields["NoNewPrivs"], "1", "{}", thread.name);
    }
}

#[test]
fn drop_now_leaves_no_thread_anything_and_it_goes_on_serving() {
    let mut agent = Agent::start(&["--privileges", "drop-now"]);
    agent.wait_until_ready();
    agent.hear("all capabilities were given up");
    for thread in threads(agent.pid()) {
        for field in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(thread.set(field), 0, "{} {field}", thread.name);
        }
        if has_setpcap() {
            assert_eq!(thread.set("CapBnd"), 0, "{}", thread.name);
        }
        assert_eq!(thread.fields["NoNewPrivs"], "1", "{}", thread.name);
    }
    assert_eq!(agent.get("/metrics").0, 200);
}

#[test]
fn a_kernel_with_seccomp_filters_every_thread_and_says_so_when_it_does_not() {
    let mut agent = Agent::start(&["--privileges", "drop-now", "--log.level", "debug"]);
    agent.hear("all capabilities were given up");
    let ours = fs::read_to_string("/proc/self/status").expect("readable");
    if !agent.heard.contains("\"seccomp\":\"on\"") {
        assert!(!ours.contains("Seccomp:"), "this kernel has seccomp: {}", agent.heard);
        return eprintln!("not run: this kernel has no seccomp");
    }
    agent.hear("no more BPF programs");
    let filters = ours.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
    let filters: u32 = filters.map_or(0, |count| count.trim().parse().expect("a number"));
    for thread in threads(agent.pid()) {
        assert_eq!(thread.fields["Seccomp"], "2", "{}", thread.name);
        // One from the start, and one that the sampler has put on all threads.
        assert_eq!(thread.fields["Seccomp_filters"], (filters + 2).to_string(), "{}", thread.name);
    }
}

#[test]
fn keep_keeps_everything() {
    let agent = Agent::start(&["--privileges", "keep"]);
    agent.wait_until_ready();
    for thread in threads(agent.pid()) {
        for field in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(thread.set(field), ours(field), "{} {field}", thread.name);
        }
        assert_eq!(thread.fields["NoNewPrivs"], "0", "{}", thread.name);
    }
}
