// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The migration region: accesses and how long they took, device data, broken rules.

use super::{
    family::{Latencies, Numbers},
    number,
};
use crate::{event::Violation, latency::CALL, sample::Sample, session::Coverage};
use migscope_abi::{
    device::DeviceKey,
    region::{Field, Op},
    trace::DataDirection,
};
use prometheus::Registry;

/// Families of the region.
pub struct RegionFamilies {
    data_bytes: Numbers<2>,
    iterations: Numbers<1>,
    accesses: Numbers<4>,
    access_duration: Latencies<2>,
    violations: Numbers<2>,
}

impl RegionFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            data_bytes: Numbers::counters(
                registry,
                "vfio_migration_data_bytes_total",
                "Device data moved, out of the device (save) or into it (resume).",
                ["device", "direction"],
            ),
            iterations: Numbers::counters(
                registry,
                "vfio_migration_iterations_total",
                "Buffers of device data moved, in either direction.",
                ["device"],
            ),
            accesses: Numbers::counters(
                registry,
                "vfio_migration_region_accesses_total",
                "Reads and writes of the migration region, by field; result is ok or refused.",
                ["device", "field", "op", "result"],
            ),
            access_duration: Latencies::histograms(
                registry,
                "vfio_migration_region_access_duration_seconds",
                "How long the driver took to serve or to refuse an access to its migration region.",
                ["field", "op"],
                CALL,
            ),
            violations: Numbers::counters(
                registry,
                "vfio_migration_protocol_violations_total",
                "What the driver refused, by the rule that was broken.",
                ["device", "rule"],
            ),
        }
    }

    /// Shows what the probes have added up, as far as they are there.
    pub fn show(&self, sample: &Sample, coverage: Coverage) {
        if coverage.data {
            for (device, sums) in &sample.devices {
                let device = device.to_string();
                for (direction, bytes) in DataDirection::ALL.into_iter().zip(sums.data_bytes) {
                    self.data_bytes.set([&device, direction.name()], number(bytes));
                }
                let iterations = sums.iterations.iter().fold(0, |all: u64, n| all.wrapping_add(*n));
                self.iterations.set([&device], number(iterations));
            }
        }
        if coverage.access {
            self.show_accesses(sample);
        }
    }

    fn show_accesses(&self, sample: &Sample) {
        for access in &sample.accesses {
            let key = access.key;
            let (Ok(field), Ok(op)) =
                (Field::try_from(key.field), Op::try_from(key.op_and_refused & 1))
            else {
                continue; // a field of a newer driver
            };
            let result = if key.op_and_refused & 2 == 0 { "ok" } else { "refused" };
            let device = DeviceKey(key.device).to_string();
            self.accesses.set([&device, field.name(), op.name(), result], number(access.count));
        }
        for ((field, op), (buckets, sum_ns)) in &sample.latencies {
            if let (Ok(field), Ok(op)) = (Field::try_from(*field), Op::try_from(*op))
                && buckets.iter().any(|count| *count > 0)
            {
                self.access_duration.update([field.name(), op.name()], |latency| {
                    latency.fold(buckets, *sum_ns);
                });
            }
        }
    }

    /// Counts a broken rule.
    pub fn violated(&self, violation: &Violation) {
        self.violations.add([&violation.device.to_string(), violation.rule.name()], 1.0);
    }

    pub(super) fn forget(&self, device: &str) {
        self.data_bytes.forget(|[known, ..]| known == device);
        self.iterations.forget(|[known]| known == device);
        self.accesses.forget(|[known, ..]| known == device);
        self.violations.forget(|[known, ..]| known == device);
    }
}
