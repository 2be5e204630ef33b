// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Attaching each program to where it belongs, and saying what is missing when that fails.
//!
//! ```text
//!   tracepoints of our driver        there while the module vfio_mediate is
//!   functions of vfio                there while the module vfio is, and usable once the kernel's types are known
//!   operations of data files         there while a driver that migrates is loaded; see `operations`
//!   functions of type 1, iommufd,    there while it is loaded, or built in; see `trackers`
//!   KVM
//!   accesses to regions              there while a device with one is open; see `regions`
//! ```

use super::{
    Standing,
    kernel_types::{KernelTypes, LazyTypes, TypesError},
    maps::{MapError, Maps},
    operations::{Operations, vfio_users},
    regions::Regions,
    trackers::Trackers,
};
use crate::host::Paths;
use aya::{
    Ebpf,
    programs::{KProbe, ProgramError, RawTracePoint},
};
use clap::ValueEnum;
use migscope_abi::{
    outside::{REGISTER_REGION, REGISTER_REGION_OLD},
    probe::{FileOp, Probe, Subsystem, Target},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
};
use tracing::{debug, warn};

/// The order in which probes are attached. A session begins with a change of state, and by then all that is added up for a session is being
/// added up: so what tells of a change comes last, and the end of a call before its beginning.
const ORDER: [Probe; Probe::COUNT] = [
    Probe::RegionAccess,
    Probe::Data,
    Probe::DirtyQuery,
    Probe::Dma,
    Probe::Error,
    Probe::State,
    Probe::DataReadReturn,
    Probe::DataRead,
    Probe::DataWriteReturn,
    Probe::DataWrite,
    Probe::DataIoctlReturn,
    Probe::DataIoctl,
    Probe::Type1Return,
    Probe::Type1,
    Probe::HwptBitmapReturn,
    Probe::HwptBitmap,
    Probe::HwptTrackingReturn,
    Probe::HwptTracking,
    Probe::IoasUnmap,
    Probe::KvmReturn,
    Probe::KvmSlot,
    Probe::Kvm,
    Probe::RegionBitmap,
    Probe::RegionReturn,
    Probe::RegionRead,
    Probe::RegionWrite,
    Probe::DeviceRelease,
    Probe::RegionRegisterReturn,
    Probe::RegionRegister,
    Probe::StateStep,
    Probe::DeviceIoctlReturn,
    Probe::DeviceIoctl,
];

/// Something that this host cannot show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What stands in the way.
    pub why: String,
    /// What would mend it.
    pub remedy: String,
    /// Whether nothing that is here needs it: a probe for a module that is not loaded misses nothing.
    pub dormant: bool,
}

impl Missing {
    /// Something stands in the way.
    pub fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into(), dormant: false }
    }

    /// The same, and nothing that is here needs it.
    pub fn dormant(self) -> Self {
        Self { dormant: true, ..self }
    }
}

/// How devices of our own driver are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OwnDriver {
    /// By its tracepoints, which tell more: which rule a refusal was for, DMA, the dirty pages of a bitmap that is mapped.
    #[default]
    Tracepoints,
    /// By the functions of vfio, as those of any other driver; the tracepoints are left alone.
    Functions,
}

impl fmt::Display for OwnDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tracepoints => "tracepoints",
            Self::Functions => "functions",
        })
    }
}

/// What is attached, and what is known of where to attach.
pub struct Attacher {
    paths: Paths,
    own_driver: OwnDriver,
    /// Programs that the kernel refused to load.
    refused: BTreeMap<Probe, Missing>,
    /// Whether the probes know the offsets of the kernel's fields.
    offsets: Result<(), Missing>,
    offsets_tried: bool,
    trackers: Trackers,
    /// The same of the fields that lead to regions; and of those of vfio-pci-core.
    region_offsets: Result<(), Missing>,
    core_offsets: Result<(), Missing>,
    regions: Regions,
    operations: Operations,
    /// Functions that a program of data files is attached to, or that refused it.
    placed: BTreeSet<(Probe, String)>,
}

impl Attacher {
    /// Nothing is attached yet; `refused` are programs that could not be loaded.
    pub fn new(paths: Paths, own_driver: OwnDriver, refused: BTreeMap<Probe, Missing>) -> Self {
        let unknown = Missing::new(
            "the module vfio is not loaded",
            "load it: modprobe vfio-pci (a running agent attaches within seconds)",
        )
        .dormant();
        Self {
            paths,
            own_driver,
            refused,
            offsets: Err(unknown.clone()),
            offsets_tried: false,
            trackers: Trackers::default(),
            region_offsets: Err(unknown),
            core_offsets: Err(no_core()),
            regions: Regions::default(),
            operations: Operations::default(),
            placed: BTreeSet::new(),
        }
    }

    /// Tries to attach every probe that is not attached yet; tells whether anything changed.
    pub fn attach(&mut self, ebpf: &mut Ebpf, maps: &mut Maps, standing: &mut Standing) -> bool {
        let types = LazyTypes::new();
        self.learn(&types, maps);
        self.trackers.learn(&self.paths.sysfs, &types, maps);
        self.regions.retry();
        let mut changed = self.follow_regions(ebpf, maps, standing, true);
        for probe in ORDER.into_iter().filter(|probe| !probe.is_on_demand()) {
            let attached = standing.get(&probe) == Some(&Ok(()));
            let of_files =
                matches!(probe.target(), Target::DataFileEntry(_) | Target::DataFileReturn(_));
            if attached && !of_files {
                continue;
            }
            let now = match self.refused.get(&probe) {
                Some(missing) => Err(missing.clone()),
                None => self.attach_one(ebpf, maps, probe, attached),
            };
            changed |= standing.get(&probe) != Some(&now);
            standing.insert(probe, now);
        }
        changed
    }

    /// Attaches the probes of accesses to regions while a device is open that has one, if that can be done; tells whether anything
    /// changed.
    pub fn follow_regions(
        &mut self,
        ebpf: &mut Ebpf,
        maps: &mut Maps,
        standing: &mut Standing,
        may_attach: bool,
    ) -> bool {
        let refused = |probe: Probe| self.refused.get(&probe).filter(|_| probe.is_on_demand());
        let refused = Probe::ALL.into_iter().find_map(refused);
        let ready =
            refused.map_or_else(|| self.region_offsets.clone(), |missing| Err(missing.clone()));
        self.regions.follow(ebpf, maps, standing, ready, may_attach)
    }

    /// Whether there are probes that come and go with devices, for which what attaching takes has to be kept.
    pub fn waits_for_devices(&self) -> bool {
        Probe::ALL
            .into_iter()
            .any(|probe| probe.is_on_demand() && !self.refused.contains_key(&probe))
    }

    /// Looks for data files that were handed out and whose operations are not known, and attaches to these. Tells whether anything
    /// changed.
    pub fn follow_data_files(
        &mut self,
        ebpf: &mut Ebpf,
        maps: &mut Maps,
        standing: &mut Standing,
    ) -> bool {
        match maps.data_operations() {
            Ok(seen) => self.operations.learn(&self.paths.procfs, &seen),
            Err(error) => debug!(error = chain(&error), "no operations of data files this time"),
        }
        let mut changed = false;
        for probe in ORDER {
            if !matches!(probe.target(), Target::DataFileEntry(_) | Target::DataFileReturn(_))
                || self.refused.contains_key(&probe)
            {
                continue;
            }
            let attached = standing.get(&probe) == Some(&Ok(()));
            let now = self.attach_one(ebpf, maps, probe, attached);
            changed |= standing.get(&probe) != Some(&now);
            standing.insert(probe, now);
        }
        changed
    }

    /// Learns what this kernel's structures and drivers are, once vfio is there and whenever a driver comes or goes.
    fn learn(&mut self, types: &LazyTypes, maps: &mut Maps) {
        let users = vfio_users(&self.paths.sysfs);
        let present = self.paths.sysfs.join("module/vfio").is_dir();
        let stale = self.operations.are_stale(&users);
        if !present || (self.offsets_tried && !stale) {
            return;
        }
        let types = match types.get_or_init(|| KernelTypes::read(&self.paths.sysfs)) {
            Ok(types) => types,
            Err(error) => {
                self.offsets = Err(error.missing());
                self.region_offsets = Err(error.missing());
                self.core_offsets = Err(error.missing());
                self.offsets_tried = true;
                return;
            }
        };
        if !self.offsets_tried {
            self.offsets_tried = true;
            self.offsets = tell_offsets(types, maps);
        }
        if self.core_offsets.is_err() {
            (self.region_offsets, self.core_offsets) =
                tell_region_offsets(types, maps, self.own_driver);
        }
        if let Err(error) = self.operations.read(types, users) {
            warn!(
                error = chain(&error),
                "the functions of a driver are unknown until it hands out a file for device data"
            );
        }
    }

    fn attach_one(
        &mut self,
        ebpf: &mut Ebpf,
        maps: &mut Maps,
        probe: Probe,
        attached: bool,
    ) -> Result<(), Missing> {
        let Some(program) = ebpf.program_mut(probe.name()) else {
            return Err(Missing::new(
                format!("the object has no program named {}", probe.name()),
                "build the probes and the agent from the same source",
            ));
        };
        match probe.target() {
            Target::Tracepoint(_) if self.own_driver == OwnDriver::Functions => Err(left_alone()),
            Target::Tracepoint(tracepoint) => {
                let refused = |error| refused_tracepoint(tracepoint, &error);
                let program: &mut RawTracePoint = program.try_into().map_err(refused)?;
                program.attach(tracepoint).map(drop).map_err(refused)
            }
            Target::Entry(function) | Target::Return(function) => {
                let refused = |error: ProgramError| refused_function(function, &error);
                let refused = |error| match probe.subsystem() {
                    Subsystem::Vfio => refused(error),
                    tracker if errno(&error) == Some(io::ErrorKind::NotFound) => {
                        self.trackers.no_function(tracker, refused(error))
                    }
                    _ => refused(error),
                };
                match probe.subsystem() {
                    Subsystem::Vfio => self.offsets.clone()?,
                    tracker => self.trackers.known(tracker)?,
                }
                let program: &mut KProbe = program.try_into().map_err(refused)?;
                if function == REGISTER_REGION {
                    self.core_offsets.clone()?;
                    // What it was called before.
                    if program.attach(REGISTER_REGION_OLD, 0).is_ok() {
                        return Ok(());
                    }
                }
                program.attach(function, 0).map(drop).map_err(refused)
            }
            // They are attached in `follow_regions`.
            Target::RegionEntry(_) | Target::RegionReturn => Ok(()),
            Target::RegionTail => {
                self.region_offsets.clone()?;
                maps.go_on_with(program, probe).map_err(|error| {
                    Missing::new(
                        chain(&error),
                        "report it: the probes do not take what the agent found",
                    )
                })
            }
            Target::DataFileEntry(op) | Target::DataFileReturn(op) => {
                self.offsets.clone()?;
                let program: &mut KProbe =
                    program.try_into().map_err(|error| refused_function(op.field(), &error))?;
                self.attach_to_files(program, probe, op, attached)
            }
        }
    }

    /// Attaches to all functions behind `op` that are known by now; one that refuses does not hinder the others.
    fn attach_to_files(
        &mut self,
        program: &mut KProbe,
        probe: Probe,
        op: FileOp,
        attached: bool,
    ) -> Result<(), Missing> {
        let mut standing = if attached { Ok(()) } else { Err(no_driver()) };
        for function in self.operations.functions(op) {
            let place = (probe, function.to_owned());
            if self.placed.contains(&place) {
                continue;
            }
            match program.attach(function, 0) {
                Ok(_) => standing = Ok(()),
                Err(error) => {
                    let missing = refused_function(function, &error);
                    warn!(probe = probe.name(), function, why = %missing.why, remedy = %missing.remedy, "not attached");
                    if standing.is_err() {
                        standing = Err(missing);
                    }
                }
            }
            self.placed.insert(place);
        }
        standing
    }
}

fn tell_offsets(types: &KernelTypes, maps: &mut Maps) -> Result<(), Missing> {
    let offsets = types.offsets().map_err(|error: TypesError| error.missing())?;
    debug!(?offsets, "the kernel's fields");
    maps.tell_offsets(&offsets).map_err(|error: MapError| {
        Missing::new(chain(&error), "report it: the probes do not take what the agent found")
    })
}

/// Tells the probes the way to a device's driver and regions; gives what of it is missing, and what of vfio-pci-core's part.
fn tell_region_offsets(
    types: &KernelTypes,
    maps: &mut Maps,
    own_driver: OwnDriver,
) -> (Result<(), Missing>, Result<(), Missing>) {
    let told = types.region_offsets().map_err(|error| error.missing()).and_then(
        |(mut offsets, with_core)| {
            offsets.ours_are_told = u32::from(own_driver == OwnDriver::Tracepoints);
            debug!(?offsets, with_core, "the kernel's fields that lead to regions");
            maps.tell_region_offsets(&offsets).map(|()| with_core).map_err(|error: MapError| {
                Missing::new(
                    chain(&error),
                    "report it: the probes do not take what the agent found",
                )
            })
        },
    );
    match told {
        Ok(true) => (Ok(()), Ok(())),
        Ok(false) => (Ok(()), Err(no_core())),
        Err(missing) => (Err(missing.clone()), Err(missing)),
    }
}

fn no_core() -> Missing {
    Missing::new(
        "the module vfio-pci-core is not loaded",
        "load it: modprobe vfio-pci (a running agent attaches within seconds)",
    )
    .dormant()
}

fn left_alone() -> Missing {
    Missing::new(
        "the tracepoints of vfio_mediate are left alone, as --probes.own-driver says",
        "set it to tracepoints",
    )
    .dormant()
}

fn no_driver() -> Missing {
    Missing::new(
        "no driver is loaded that migrates by the v2 protocol",
        "nothing, until one is: the agent attaches to its functions then",
    )
    .dormant()
}

/// Turns the kernel's answer about a tracepoint into words.
fn refused_tracepoint(tracepoint: &str, error: &ProgramError) -> Missing {
    match errno(error) {
        Some(io::ErrorKind::NotFound) => Missing::new(
            format!(
                "this kernel has no tracepoint {tracepoint}: the module vfio_mediate is not loaded"
            ),
            "load it: modprobe vfio_mediate (a running agent attaches within seconds)",
        )
        .dormant(),
        Some(io::ErrorKind::PermissionDenied) => not_permitted(),
        _ => Missing::new(
            format!("failed to attach to the tracepoint {tracepoint}: {}", chain(error)),
            "check that the kernel is built with CONFIG_BPF_EVENTS",
        ),
    }
}

/// Turns the kernel's answer about a function into words.
pub(super) fn refused_function(function: &str, error: &ProgramError) -> Missing {
    match errno(error) {
        Some(io::ErrorKind::NotFound) => Missing::new(
            format!("this kernel has no function {function} to attach to"),
            "report it with the version of the kernel (uname -r)",
        ),
        // Debian and Ubuntu have a 3 that no kernel documents: perf_event_open() is for CAP_SYS_ADMIN alone, which an agent that has
        // given up what it could has no more.
        Some(io::ErrorKind::PermissionDenied) => Missing::new(
            format!("the kernel does not permit this process to attach to the function {function}"),
            "start the agent once the driver is loaded, or set the sysctl kernel.perf_event_paranoid \
             to 2 before; the agent needs CAP_BPF and CAP_PERFMON, and a kernel lockdown that is not \
             \"confidentiality\"",
        ),
        _ => Missing::new(
            format!("failed to attach to the function {function}: {}", chain(error)),
            "check that the kernel is built with CONFIG_KPROBES and CONFIG_BPF_EVENTS",
        ),
    }
}

fn errno(error: &ProgramError) -> Option<io::ErrorKind> {
    match error {
        ProgramError::SyscallError(call) => Some(call.io_error.kind()),
        _ => None,
    }
}

/// What is missing when the kernel says EPERM or EACCES.
pub(super) fn not_permitted() -> Missing {
    Missing::new(
        "the kernel does not permit this process to load or attach BPF programs",
        "run as root, or with the capabilities CAP_BPF and CAP_PERFMON; kernel lockdown \
                 must not be \"confidentiality\"",
    )
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // aya repeats its sources in some of its messages.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::sys::SyscallError;

    fn answer(errno: i32) -> Missing {
        let io_error = io::Error::from_raw_os_error(errno);
        let call = SyscallError { call: "bpf_raw_tracepoint_open", io_error };
        refused_tracepoint("vfio_mediate_state", &ProgramError::SyscallError(call))
    }

    #[test]
    fn a_module_that_is_not_loaded_is_named_with_the_command_that_loads_it() {
        let missing = answer(2); // ENOENT
        assert!(missing.why.contains("vfio_mediate_state"), "{missing:?}");
        assert!(missing.remedy.contains("modprobe vfio_mediate"), "{missing:?}");
    }

    #[test]
    fn a_lack_of_privilege_names_the_capabilities() {
        for errno in [1, 13] {
            assert!(answer(errno).remedy.contains("CAP_BPF"), "errno {errno}");
        }
    }

    #[test]
    fn any_other_errno_is_told_as_it_is() {
        let missing = answer(22); // EINVAL
        assert!(missing.why.contains("Invalid argument"), "{missing:?}");
    }

    #[test]
    fn a_function_that_is_not_there_is_named() {
        let io_error = io::Error::from_raw_os_error(2);
        let call = SyscallError { call: "perf_event_open", io_error };
        let missing =
            refused_function("vfio_device_fops_release", &ProgramError::SyscallError(call));
        assert!(missing.why.contains("vfio_device_fops_release"), "{missing:?}");
    }

    #[test]
    fn every_probe_is_in_the_order_once_and_what_tells_of_a_change_comes_last() {
        let mut sorted = ORDER;
        sorted.sort();
        assert_eq!(sorted, Probe::ALL);
        assert_eq!(ORDER.last(), Some(&Probe::DeviceIoctl));
        let mut ours = ORDER.iter().filter(|probe| probe.is_of_our_driver());
        assert_eq!(ours.next_back(), Some(&Probe::State));
    }
}
