// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices: what they are, which state they are in, how they changed it.

use super::{
    family::{Latencies, Numbers},
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
use prometheus::Registry;

/// Families of devices.
pub struct DeviceFamilies {
    info: Numbers<6>,
    state: Numbers<2>,
    state_seconds: Numbers<2>,
    transitions: Numbers<4>,
    transition_duration: Latencies<2>,
    pending_bytes: Numbers<1>,
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

impl DeviceFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            info: Numbers::gauges(
                registry,
                "vfio_migration_device_info",
                "What a device is: its driver, the protocol by which it migrates, and who has it open. Always 1.",
                ["device", "driver", "protocol", "iommu_group", "vm", "vm_uuid"],
            ),
            state: Numbers::gauges(
                registry,
                "vfio_migration_device_state",
                "1 for the state that the device is in, 0 for the others; all 0 while nobody has it open, absent while unknown.",
                ["device", "state"],
            ),
            state_seconds: Numbers::counters(
                registry,
                "vfio_migration_state_seconds_total",
                "Time that the device is known to have been in each state.",
                ["device", "state"],
            ),
            transitions: Numbers::counters(
                registry,
                "vfio_migration_state_transitions_total",
                "Changes of state that were asked for or happened, by where they led or should have led.",
                ["device", "from", "to", "result"],
            ),
            transition_duration: Latencies::histograms(
                registry,
                "vfio_migration_state_transition_duration_seconds",
                "How long accepted writes of the state took.",
                ["from", "to"],
                CALL,
            ),
            pending_bytes: Numbers::gauges(
                registry,
                "vfio_migration_pending_bytes",
                "Bytes still to be migrated, as the device last told; absent while it told nothing in this migration.",
                ["device"],
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
        for (state, ns) in device.stayed_ns() {
            self.state_seconds.set([&name, state.name()], seconds(ns));
        }
        match device.pending_bytes() {
            Some(bytes) => self.pending_bytes.set([&name], number(bytes)),
            None => self.pending_bytes.forget(|[known]| *known == name),
        }
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

    pub(super) fn forget(&self, device: &str) {
        self.info.forget(|[known, ..]| known == device);
        self.state.forget(|[known, ..]| known == device);
        self.state_seconds.forget(|[known, ..]| known == device);
        self.transitions.forget(|[known, ..]| known == device);
        self.pending_bytes.forget(|[known]| known == device);
    }
}
