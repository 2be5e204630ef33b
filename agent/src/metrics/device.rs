// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices: what they are, which state they are in, how they changed it.

use super::{
    catalog::Catalog,
    description::Label,
    family::{About, Latencies, Numbers},
    number, seconds,
};
use crate::state::{Protocol, State};
use crate::{
    device::{Device, Standing},
    event::StateChange,
    latency::CALL,
    session::report::{result, target},
};
use migscope_abi::state::Cause;

/// Families of devices.
pub struct DeviceFamilies {
    info: Numbers<6>,
    state: Numbers<2>,
    state_seconds: Numbers<2>,
    transitions: Numbers<4>,
    transition_duration: Latencies<2>,
    pending_bytes: Numbers<1>,
    precopy_initial_bytes: Numbers<1>,
    precopy_dirty_bytes: Numbers<1>,
    stop_copy_bytes: Numbers<1>,
}

/// What a device is. What is not known is empty, as Prometheus writes a label that is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Info {
    /// Name of the bound driver.
    pub driver: String,
    /// Number of the IOMMU group.
    pub iommu_group: String,
    /// Name of the virtual machine that has it open.
    pub vm: String,
    /// UUID of that machine.
    pub vm_uuid: String,
}

/// What a device says of the bytes that it has still to give, where its protocol has such numbers
/// (`VFIO_MIG_GET_PRECOPY_INFO`, `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`); what it did not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Bytes without which the destination cannot start well, still to be read in pre-copy.
    pub precopy_initial_bytes: Option<u64>,
    /// Bytes that changed since they were read, to be read again in pre-copy.
    pub precopy_dirty_bytes: Option<u64>,
    /// Bytes that can only move once the device is stopped.
    pub stop_copy_bytes: Option<u64>,
}

/// The value of the label `to` for a state that does not exist.
const INVALID: &str = "invalid";

/// The values of the label `to`: what was asked for may be no state.
fn requested() -> impl Iterator<Item = &'static str> {
    State::ALL.map(State::name).into_iter().chain([INVALID])
}

impl DeviceFamilies {
    pub(super) fn register(catalog: &mut Catalog) -> Self {
        let catalog = catalog.area("Devices");
        Self {
            info: Numbers::infos(
                catalog,
                About {
                    name: "vfio_migration_device_info",
                    help: "What a device is: its driver, the protocol by which it migrates, and who has it open. Always 1.",
                    labels: [
                        Label::device(),
                        Label::follows("driver"),
                        Label::follows("protocol"),
                        Label::follows("iommu_group"),
                        Label::follows("vm"),
                        Label::follows("vm_uuid"),
                    ],
                    absent: "before anything was seen of the device",
                },
            ),
            state: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_device_state",
                    help: "1 for the state that the device is in, 0 for the others; all 0 while nobody has it open, absent while unknown.",
                    labels: [Label::device(), Label::one_of("state", State::ALL.map(State::name))],
                    absent: "while the state is unknown: nothing was seen yet, or a record was lost",
                },
            ),
            state_seconds: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_state_seconds_total",
                    help: "Time that the device is known to have been in each state.",
                    labels: [Label::device(), Label::one_of("state", State::ALL.map(State::name))],
                    absent: "where the device was not seen in that state",
                },
            ),
            transitions: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_state_transitions_total",
                    help: "Changes of state that were asked for or happened, by where they led or should have led.",
                    labels: [
                        Label::device(),
                        Label::one_of("from", State::ALL.map(State::name)),
                        Label::one_of("to", requested()),
                        Label::one_of("result", ["ok", "refused"]),
                    ],
                    absent: "where it has not happened yet",
                },
            ),
            transition_duration: Latencies::histograms(
                catalog,
                CALL,
                About {
                    name: "vfio_migration_state_transition_duration_seconds",
                    help: "How long accepted writes of the state took.",
                    labels: [
                        Label::one_of("from", State::ALL.map(State::name)),
                        Label::one_of("to", requested()),
                    ],
                    absent: "where it has not happened yet",
                },
            ),
            pending_bytes: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_pending_bytes",
                    help: "Bytes still to be migrated, as the device last told; absent while it told nothing in this migration.",
                    labels: [Label::device()],
                    absent: "while the device told nothing in this migration",
                },
            ),
            precopy_initial_bytes: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_precopy_initial_bytes",
                    help: "Bytes without which the destination cannot start well, still to be read in pre-copy, as the device last told.",
                    labels: [Label::device()],
                    absent: "while the device told nothing of it, and where its protocol has no such number",
                },
            ),
            precopy_dirty_bytes: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_precopy_dirty_bytes",
                    help: "Bytes of the device that changed after they were read, to be read again in pre-copy, as the device last told.",
                    labels: [Label::device()],
                    absent: "while the device told nothing of it, and where its protocol has no such number",
                },
            ),
            stop_copy_bytes: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_stop_copy_bytes",
                    help: "Bytes that can only move once the device is stopped, as the device last told.",
                    labels: [Label::device()],
                    absent: "while the device told nothing of it, and where its protocol has no such number",
                },
            ),
        }
    }

    /// Shows what a device is.
    pub fn describe(&self, device: &str, protocol: Protocol, info: &Info) {
        self.info.forget(|[known, ..]| known == device);
        let Info { driver, iommu_group, vm, vm_uuid } = info;
        self.info.set([device, driver, protocol.name(), iommu_group, vm, vm_uuid], 1.0);
    }

    /// Shows how a device stands.
    pub fn show(&self, device: &Device) {
        let name = device.key().to_string();
        match device.standing() {
            Standing::Unknown => self.state.forget(|[known, _]| *known == name),
            Standing::Closed(_) => self.show_state(&name, device.protocol(), None),
            Standing::In(state, _) => self.show_state(&name, device.protocol(), Some(state)),
        }
        self.show_progress(device);
    }

    /// Shows what goes on while a device stands as it did when it was last shown.
    pub fn show_progress(&self, device: &Device) {
        let name = device.key().to_string();
        for (state, ns) in device.stayed_ns() {
            self.state_seconds.set([&name, state.name()], seconds(ns));
        }
        self.pending_bytes.set_known([&name], device.pending_bytes().map(number));
        self.show_remaining(&name, &device.remaining());
    }

    /// Shows what a device says of the bytes that it has still to give.
    pub fn show_remaining(&self, device: &str, remaining: &Remaining) {
        let Remaining { precopy_initial_bytes, precopy_dirty_bytes, stop_copy_bytes } = *remaining;
        self.precopy_initial_bytes.set_known([device], precopy_initial_bytes.map(number));
        self.precopy_dirty_bytes.set_known([device], precopy_dirty_bytes.map(number));
        self.stop_copy_bytes.set_known([device], stop_copy_bytes.map(number));
    }

    fn show_state(&self, device: &str, protocol: Protocol, present: Option<State>) {
        for state in protocol.states() {
            let value = if present == Some(state) { 1.0 } else { 0.0 };
            self.state.set([device, state.name()], value);
        }
    }

    /// Counts a change of state. Opening and closing a device is none: the device is as before.
    pub fn changed(&self, change: &StateChange) {
        if matches!(change.cause, Cause::Open | Cause::Close) {
            return;
        }
        let (from, to) = (change.from.name(), target(change));
        self.transitions.add([&change.device.to_string(), from, to, result(change)], 1.0);
        if change.cause == Cause::Write && !change.refused() {
            self.transition_duration.update([from, to], |latency| {
                latency.record(change.duration_ns);
            });
        }
    }
}
