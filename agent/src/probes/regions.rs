// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The probes of accesses to migration regions, which are attached only while there is somebody to watch.
//!
//! ```text
//!   no device with a region is open     dormant: nothing of ours runs when a VM accesses its devices
//!   one is opened                       attached, then the watch gets a number: from here on nothing is missed
//!   the last one is closed              no watch, detached
//! ```
//!
//! All reads and writes of all VFIO devices go through the two functions, those of BARs, too; a VM makes thousands of these a second. So whoever
//! has no device that could migrate in this way pays nothing, and whoever has one pays for a look at the position of each access.
//!
//! **Why not the region's own `rw`.** A driver on vfio-pci-core names a function for its region alone (`vfio_pci_regops`), which would spare
//! the others even that. But a driver may serve the region before vfio-pci-core is asked, as ours does and the RFC's mediate ops did; and
//! to find the function's name by its address takes CAP_SYSLOG, which an agent that waits for devices has not kept.

use super::{
    Standing,
    attach::{Missing, chain, refused_function},
    maps::{MapError, Maps},
};
use aya::{
    Ebpf,
    programs::{KProbe, kprobe::KProbeLinkId},
};
use migscope_abi::{
    outside::{DEVICE_READ, DEVICE_WRITE},
    probe::{Probe, Target},
    region::Op,
};
use tracing::{debug, warn};

/// Where each is attached; the end of a call before its beginning.
const PLACES: [(Probe, &str); 4] = [
    (Probe::RegionReturn, DEVICE_READ),
    (Probe::RegionReturn, DEVICE_WRITE),
    (Probe::RegionRead, DEVICE_READ),
    (Probe::RegionWrite, DEVICE_WRITE),
];

/// The functions of a program that is attached on demand, for people.
pub fn functions(probe: Probe) -> &'static [&'static str] {
    match probe.target() {
        Target::RegionEntry(Op::Read) => &[DEVICE_READ],
        Target::RegionEntry(Op::Write) => &[DEVICE_WRITE],
        Target::RegionReturn => &[DEVICE_READ, DEVICE_WRITE],
        _ => &[],
    }
}

/// Whether the probes of accesses are attached, and how often they were.
#[derive(Default)]
pub(super) struct Regions {
    links: Vec<(Probe, KProbeLinkId)>,
    /// The number of the present watch, or of the last one.
    watch: u64,
    /// Why they cannot be attached; tried again when everything is.
    refused: Option<Missing>,
}

impl Regions {
    /// What was refused may be tried again.
    pub(super) fn retry(&mut self) {
        self.refused = None;
    }

    /// Attaches what is wanted, or detaches what is no longer. `ready` says what stands in the way of all of them. Tells whether anything
    /// changed.
    pub(super) fn follow(
        &mut self,
        ebpf: &mut Ebpf,
        maps: &mut Maps,
        standing: &mut Standing,
        ready: Result<(), Missing>,
        may_attach: bool,
    ) -> bool {
        let wanted = match maps.has_regions() {
            Ok(wanted) => wanted,
            Err(error) => {
                debug!(error = chain(&error), "whether a region is open is not known this time");
                return false;
            }
        };
        let now = match (wanted, self.links.is_empty()) {
            (false, true) => Err(ready.err().unwrap_or_else(|| no_device(may_attach))),
            (false, false) => {
                self.detach(ebpf, maps);
                Err(no_device(may_attach))
            }
            (true, false) => Ok(()),
            (true, true) if !may_attach => Err(given_up()),
            (true, true) => {
                let now = match (&self.refused, ready) {
                    (_, Err(missing)) => Err(missing),
                    (Some(missing), _) => Err(missing.clone()),
                    (None, Ok(())) => self.attach(ebpf, maps),
                };
                self.refused = now.clone().err();
                now
            }
        };
        let mut changed = false;
        for probe in Probe::ALL.into_iter().filter(|probe| probe.is_on_demand()) {
            changed |= standing.get(&probe) != Some(&now);
            standing.insert(probe, now.clone());
        }
        changed
    }

    /// All of them, or none.
    fn attach(&mut self, ebpf: &mut Ebpf, maps: &mut Maps) -> Result<(), Missing> {
        for (probe, function) in PLACES {
            match attach_one(ebpf, probe, function) {
                Ok(link) => self.links.push((probe, link)),
                Err(missing) => {
                    self.detach(ebpf, maps);
                    return Err(missing);
                }
            }
        }
        self.watch += 1;
        maps.watch_regions(self.watch).map_err(|error: MapError| {
            self.detach(ebpf, maps);
            Missing::new(chain(&error), "report it: the probes do not take what the agent found")
        })
    }

    fn detach(&mut self, ebpf: &mut Ebpf, maps: &mut Maps) {
        if let Err(error) = maps.watch_regions(0) {
            warn!(error = chain(&error), "the probes believe that all accesses are watched");
        }
        for (probe, link) in self.links.drain(..) {
            let program = ebpf.program_mut(probe.name()).map(<&mut KProbe>::try_from);
            if let Some(Ok(program)) = program
                && let Err(error) = program.detach(link)
            {
                debug!(probe = probe.name(), error = chain(&error), "not detached");
            }
        }
    }
}

fn attach_one(ebpf: &mut Ebpf, probe: Probe, function: &str) -> Result<KProbeLinkId, Missing> {
    let Some(program) = ebpf.program_mut(probe.name()) else {
        return Err(Missing::new(
            format!("the object has no program named {}", probe.name()),
            "build the probes and the agent from the same source",
        ));
    };
    let refused = |error| refused_function(function, &error);
    let program: &mut KProbe = program.try_into().map_err(refused)?;
    program.attach(function, 0).map_err(refused)
}

fn no_device(may_attach: bool) -> Missing {
    let remedy = if may_attach {
        "nothing, until one is: the agent attaches then"
    } else {
        "the agent has given up what attaching takes: run it with --privileges drop where there are such devices"
    };
    Missing::new("no device is open that has a migration region", remedy).dormant()
}

/// A device is open, and it is too late.
fn given_up() -> Missing {
    Missing::new(
        "a device with a migration region is open, and the agent has given up what attaching takes",
        "run the agent with --privileges drop, which keeps CAP_BPF and CAP_PERFMON in one thread",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_that_comes_and_goes_has_its_places_and_ends_come_first() {
        for probe in Probe::ALL {
            let places: Vec<_> =
                PLACES.iter().filter(|(of, _)| *of == probe).map(|(_, at)| *at).collect();
            assert_eq!(places, functions(probe), "{}", probe.name());
            assert_eq!(probe.is_on_demand(), !places.is_empty(), "{}", probe.name());
        }
        let first_entry = PLACES.iter().position(|(probe, _)| *probe != Probe::RegionReturn);
        assert_eq!(first_entry, Some(2));
    }
}
