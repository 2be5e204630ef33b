// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the probes of a machine's dirty pages can be attached: type 1, iommufd and KVM, which may each be a module that is loaded later,
//! built in, or not there at all. One that is there has a folder in `/sys/module` also
//! where it is built in, for it has parameters.
//!
//! ```text
//!   not there ──the module is loaded──▶ its types are read (those of one that is built in are the kernel's own) ──▶ known: its functions
//!   can be attached to
//! ```

use super::{
    attach::{Missing, chain},
    kernel_types::{KernelTypes, LazyTypes, TypesError},
    maps::Maps,
};
use migscope_abi::{probe::Subsystem, tracking::TrackingOffsets};
use std::{collections::BTreeMap, path::Path};
use tracing::debug;

/// All of them.
const ALL: [Subsystem; 3] = [Subsystem::Type1, Subsystem::Iommufd, Subsystem::Kvm];

/// What is known of each of them.
#[derive(Debug, Default)]
pub(super) struct Trackers {
    offsets: TrackingOffsets,
    known: BTreeMap<Subsystem, Result<(), Missing>>,
    /// Modules that are there.
    loaded: BTreeMap<Subsystem, bool>,
}

impl Trackers {
    /// Looks which of them are there, and tells the probes the offsets of those that came.
    pub(super) fn learn(&mut self, sysfs: &Path, types: &LazyTypes, maps: &mut Maps) {
        let is_there =
            |subsystem: Subsystem| sysfs.join("module").join(subsystem.module()).is_dir();
        for subsystem in ALL {
            let there = is_there(subsystem);
            let came = self.loaded.insert(subsystem, there) != Some(there);
            // Where its fields are does not change while this kernel runs.
            if !came || self.known.get(&subsystem) == Some(&Ok(())) {
                continue;
            }
            let found = match subsystem {
                _ if !there => Err(absent(subsystem)),
                // Nothing of it is looked into.
                Subsystem::Type1 => Ok(()),
                _ => match types.get_or_init(|| KernelTypes::read(sysfs)) {
                    Ok(types) => self.tell(types, subsystem, maps),
                    Err(error) => Err(error.missing()),
                },
            };
            self.known.insert(subsystem, found);
        }
    }

    fn tell(
        &mut self,
        types: &KernelTypes,
        subsystem: Subsystem,
        maps: &mut Maps,
    ) -> Result<(), Missing> {
        // The same for all processes of this host.
        let page_bytes = u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX);
        types
            .tracking_offsets(subsystem, page_bytes, &mut self.offsets)
            .map_err(|error: TypesError| error.missing())?;
        debug!(?subsystem, offsets = ?self.offsets, "the kernel's fields");
        maps.tell_tracking_offsets(&self.offsets).map_err(|error| {
            Missing::new(chain(&error), "report it: the probes do not take what the agent found")
        })
    }

    /// Whether the probes can follow what `subsystem` does.
    pub(super) fn known(&self, subsystem: Subsystem) -> Result<(), Missing> {
        self.known.get(&subsystem).cloned().unwrap_or(Ok(()))
    }

    /// What is missing where a function of `subsystem` is not in the kernel, which is `otherwise` if it should be.
    pub(super) fn no_function(&self, subsystem: Subsystem, otherwise: Missing) -> Missing {
        match self.loaded.get(&subsystem) {
            Some(true) => otherwise,
            _ => absent(subsystem),
        }
    }
}

fn absent(subsystem: Subsystem) -> Missing {
    let module = subsystem.module();
    Missing::new(
        format!("the module {module} is not loaded, nor is it built in"),
        format!(
            "nothing, unless a VMM uses it: modprobe {module} (a running agent attaches within seconds)"
        ),
    )
    .dormant()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_loaded_misses_nothing_and_what_is_lacks_its_function() {
        let mut trackers = Trackers::default();
        let lacks = || Missing::new("no function", "report it");
        assert!(trackers.no_function(Subsystem::Type1, lacks()).dormant);
        trackers.loaded.insert(Subsystem::Type1, true);
        assert_eq!(trackers.no_function(Subsystem::Type1, lacks()), lacks());
        assert!(absent(Subsystem::Kvm).why.contains("the module kvm"));
    }
}
