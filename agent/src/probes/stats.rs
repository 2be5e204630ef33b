// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel counts of each program: its runs, its run time, and the runs that were left out.

use crate::host::kernel::{self, counts_skipped_runs};
use aya::{
    Ebpf,
    sys::{Stats, enable_stats},
};
use migscope_abi::probe::Probe;
use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::LazyLock,
    time::Duration,
};
use tracing::info;

/// Keeps the kernel counting; it stops when the last holder of such a descriptor is gone.
pub struct RunStats {
    _enabled: OwnedFd,
}

/// One program's cost since counting began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramCost {
    /// Which program.
    pub program: Probe,
    /// How often it ran.
    pub runs: u64,
    /// How long, all runs together.
    pub run_time: Duration,
}

impl RunStats {
    /// Asks the kernel to count. `None` where it refuses: then the costs are unknown, and shown as such.
    pub fn enable() -> Option<Self> {
        enable_stats(Stats::RunTime)
            .inspect_err(|error| info!(%error, "the kernel does not count the probes' run time"))
            .ok()
            .map(|enabled| Self { _enabled: enabled })
    }

    /// Reads the costs of the programs that can be asked.
    pub fn read(&self, ebpf: &Ebpf) -> Vec<ProgramCost> {
        let cost = |program: Probe| {
            let info = ebpf.program(program.name())?.info().ok()?;
            Some(ProgramCost { program, runs: info.run_count(), run_time: info.run_time() })
        };
        Probe::ALL.into_iter().filter_map(cost).collect()
    }
}

/// How many instructions the verifier went through for a program; `None` before Linux 5.16, which does not tell.
pub fn verified(ebpf: &Ebpf, probe: Probe) -> Option<u32> {
    ebpf.program(probe.name())?.info().ok()?.verified_instruction_count()
}

/// Runs of all programs that the kernel left out, from the programs' `fdinfo` (`bpf_prog_show_fdinfo`, since Linux 5.12); `None` where
/// it does not tell. None of them all is known only where those of probes of functions are counted, too.
pub fn skipped_runs(ebpf: &Ebpf) -> Option<u64> {
    let skipped = Probe::ALL.into_iter().try_fold(0_u64, |sum, event| {
        let descriptor = ebpf.program(event.name())?.fd().ok()?.as_fd().as_raw_fd();
        let told = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
        Some(sum.saturating_add(misses(&told)?))
    });
    skipped.filter(|skipped| *skipped > 0 || *COUNTS_ALL)
}

/// The kernel stays the same.
static COUNTS_ALL: LazyLock<bool> = LazyLock::new(|| counts_skipped_runs(&kernel::release()));

fn misses(fdinfo: &str) -> Option<u64> {
    let mut lines = fdinfo.lines();
    lines.find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_misses_on_a_line_of_their_own() {
        let fdinfo =
            "pos:\t0\nprog_type:\t17\nrun_cnt:\t9\nrecursion_misses:\t3\nverified_insns:\t204\n";
        assert_eq!(misses(fdinfo), Some(3));
        assert_eq!(misses("pos:\t0\nprog_type:\t17\n"), None, "an older kernel does not tell");
    }
}
