// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the probes cost a machine that does not migrate: nothing, for none of them is on its way.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use cases::guest::measured;
use migscope_abi::probe::Probe;

use crate::account::agent;

/// For how long a machine is left alone.
const ALONE: Duration = Duration::from_secs(4);
/// How often its processor left the machine since KVM was loaded, all machines together.
const EXITS: &str = "/sys/kernel/debug/kvm/exits";

/// Runs of each program so far, as the agent tells; of one that is not loaded, nothing.
pub(crate) fn runs() -> BTreeMap<&'static str, u64> {
    // It asks the kernel with each reading of its maps.
    sleep(Duration::from_secs(1));
    let scrape = agent().scrape().expect("the agent answers");
    let runs = |probe: Probe| {
        let labels = [("program", probe.name())];
        let runs = scrape.sum("migscope_bpf_program_runs_total", &labels)?;
        Some((probe.name(), format!("{runs:.0}").parse().expect("a count")))
    };
    Probe::ALL.into_iter().filter_map(runs).collect()
}

/// While a machine runs in KVM, and has a device open, no program runs. Some did when it was opened and the machine started.
pub(crate) fn assert_nothing_runs(before_it_was_opened: &BTreeMap<&'static str, u64>) {
    let (before, exits_before) = (runs(), exits());
    for (program, runs) in &before {
        let runs = runs - before_it_was_opened.get(program).copied().unwrap_or(0);
        if runs > 0 {
            measured(&format!("runs_of_{program}_as_two_machines_start"), runs, "runs");
        }
    }
    assert_ne!(&before, before_it_was_opened, "nothing was counted as the device was opened");
    sleep(ALONE);
    let (after, exits) = (runs(), exits());
    assert!(exits > exits_before, "the machine did not run");
    assert_eq!(after, before, "{} exits later", exits - exits_before);
    measured("kvm_exits_without_a_run", exits - exits_before, "exits");
}

fn exits() -> u64 {
    let text = fs::read_to_string(EXITS).expect("KVM counts exits");
    text.trim().parse().expect("a count")
}
