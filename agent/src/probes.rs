// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The probes, seen from user space: loaded, attached, read.
//!
//! ```text
//!   object ──load──▶ programs + maps in the kernel ──attach──▶ tracepoints, functions
//!                        │        └── ring ──▶ records          (Reader)
//!                        └── sums ──────────▶ Sample           (Maps)
//! ```
//!
//! Each step can fail for itself and is tried again: the module that has the tracepoints may be loaded later than the agent is
//! started. Until then the agent says which probe is missing, why, and what would mend it.

pub mod attach;
pub mod kernel_types;
pub mod load;
pub mod logs;
pub mod losses;
pub mod maps;
pub mod object;
pub mod operations;
pub mod regions;
mod rest;
pub mod ring;
pub mod stats;
mod trackers;

use attach::Missing;
use migscope_abi::probe::Probe;
use std::collections::BTreeMap;

/// How each probe stands: attached, or missing for a reason.
pub type Standing = BTreeMap<Probe, Result<(), Missing>>;

/// The probes that have something to watch on this host. A probe for a module that is not loaded misses nothing, unless it is so with
/// all of them: then nothing at all is seen.
pub fn wanted(standing: &Standing) -> impl Iterator<Item = (Probe, &Result<(), Missing>)> {
    let sees = standing.values().any(Result::is_ok);
    let wanted = move |attached: &Result<(), Missing>| {
        !sees || !attached.as_ref().is_err_and(|missing| missing.dormant)
    };
    let told = standing.iter().map(|(probe, attached)| (*probe, attached));
    told.filter(move |(_, attached)| wanted(attached))
}

/// The standing of probes that all miss the same thing.
pub fn all_missing(missing: &Missing) -> Standing {
    Probe::ALL.into_iter().map(|probe| (probe, Err(missing.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(standing: &Standing) -> Vec<&'static str> {
        wanted(standing).map(|(probe, _)| probe.name()).collect()
    }

    #[test]
    fn a_probe_that_waits_for_a_module_is_wanted_only_where_nothing_is_seen() {
        let broken = Missing::new("why", "remedy");
        let mut standing = all_missing(&broken.clone().dormant());
        assert_eq!(names(&standing).len(), Probe::COUNT, "blind");
        standing.insert(Probe::State, Ok(()));
        standing.insert(Probe::DeviceIoctl, Err(broken));
        assert_eq!(names(&standing), ["state", "device_ioctl"]);
    }
}
