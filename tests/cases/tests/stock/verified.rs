// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How far the verifier of this kernel has to go for each probe. It gives up after a million instructions, and on an emulated CPU it
//! goes through some fifty thousand a second.

use cases::guest::measured;
use migscope::probes::load::load;
use migscope::probes::object::EMBEDDED;
use migscope::probes::stats::verified;
use migscope_abi::probe::Probe;

/// Most instructions for one probe: twice what the longest takes on Linux 6.1, whose verifier sees latest that it has been somewhere.
const MOST: u32 = 40_000;
/// Most for all of them.
const MOST_IN_ALL: u32 = 110_000;

/// Loads them, and prints a table.
pub(crate) fn programs() {
    let loaded = load(EMBEDDED).expect("the object is taken");
    assert!(loaded.refused.is_empty(), "{:#?}", loaded.refused);
    let mut rows = Probe::ALL.map(|probe| {
        (verified(&loaded.ebpf, probe).expect("Linux 5.16 and later tell"), probe.name())
    });
    rows.sort_unstable();
    println!();
    rows.iter().rev().for_each(|(instructions, name)| println!("{instructions:>8} {name}"));
    let [.., (longest, name)] = rows;
    let all: u32 = rows.iter().map(|(instructions, _)| instructions).sum();
    measured("verified_of_all_probes", all, "instructions");
    measured("verified_of_the_longest_probe", longest, "instructions");
    assert!(longest <= MOST, "{name}: {longest} instructions, and not {MOST} at most");
    assert!(all <= MOST_IN_ALL, "{all} instructions, and not {MOST_IN_ALL} at most");
}
