// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The migration region: accesses and how long they took, device data, broken rules.

use super::{
    catalog::Catalog,
    description::Label,
    family::{About, Latencies, Numbers},
    number,
};
use crate::device_key::DeviceKey;
use crate::{latency::CALL, sample::Sample, session::Coverages, state::Seen};
use migscope_abi::{
    region::{Field, Op},
    rule::Rule,
    trace::DataDirection,
    watch::conduct::Conduct,
};

/// Families of the region.
pub struct RegionFamilies {
    data_bytes: Numbers<2>,
    iterations: Numbers<1>,
    accesses: Numbers<4>,
    access_duration: Latencies<2>,
    violations: Numbers<2>,
}

/// All rules: those of the driver, and those of conduct.
fn rules() -> impl Iterator<Item = &'static str> {
    Rule::ALL.map(Rule::name).into_iter().chain(Conduct::ALL.map(Conduct::name))
}

impl RegionFamilies {
    pub(super) fn register(catalog: &mut Catalog) -> Self {
        let catalog = catalog.area("Device data and the migration region");
        Self {
            data_bytes: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_data_bytes_total",
                    help: "Device data moved, out of the device (save) or into it (resume).",
                    labels: [
                        Label::device(),
                        Label::one_of("direction", DataDirection::ALL.map(DataDirection::name)),
                    ],
                    absent: "while the probe that would tell of it is missing: data, region_return, data_read or data_write",
                },
            ),
            iterations: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_iterations_total",
                    help: "Buffers of device data moved, in either direction.",
                    labels: [Label::device()],
                    absent: "while the probe that would tell of it is missing: data, region_return, data_read or data_write",
                },
            ),
            accesses: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_region_accesses_total",
                    help: "Reads and writes of the migration region, by field; result is ok or refused.",
                    labels: [
                        Label::device(),
                        Label::one_of("field", Field::ALL.map(Field::name)),
                        Label::one_of("op", Op::ALL.map(Op::name)),
                        Label::one_of("result", ["ok", "refused"]),
                    ],
                    absent: "where it has not happened yet, and while the probe that would tell of it is missing: region_access or region_return",
                },
            ),
            access_duration: Latencies::histograms(
                catalog,
                CALL,
                About {
                    name: "vfio_migration_region_access_duration_seconds",
                    help: "How long the driver took to serve or to refuse an access to its migration region.",
                    labels: [
                        Label::one_of("field", Field::ALL.map(Field::name)),
                        Label::one_of("op", Op::ALL.map(Op::name)),
                    ],
                    absent: "where it has not happened yet, and while the probe that would tell of it is missing: region_access or region_return",
                },
            ),
            violations: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_protocol_violations_total",
                    help: "What was done against the protocol, by rule: what our driver refused, and what the watch saw of client and driver.",
                    labels: [Label::device(), Label::one_of("rule", rules())],
                    absent: "where the rule was not broken yet",
                },
            ),
        }
    }

    /// Shows what the probes have added up, as far as they are there.
    pub fn show(&self, sample: &Sample, coverages: &Coverages) {
        for (device, sums) in &sample.devices {
            if coverages.of(Seen::of(sums)).data {
                let device = device.to_string();
                for (direction, bytes) in DataDirection::ALL.into_iter().zip(sums.data_bytes) {
                    self.data_bytes.set([&device, direction.name()], number(bytes));
                }
                let iterations = sums.iterations.iter().fold(0, |all: u64, n| all.wrapping_add(*n));
                self.iterations.set([&device], number(iterations));
            }
        }
        self.show_accesses(sample, coverages);
        // What the probes add up, and not the records: of those some are lost when somebody breaks rules in a loop.
        for (device, counts) in &sample.refusals {
            self.show_broken(*device, Rule::ALL.map(Rule::name).into_iter().zip(counts));
        }
        for (device, counts) in &sample.conduct {
            self.show_broken(*device, Conduct::ALL.map(Conduct::name).into_iter().zip(counts));
        }
    }

    /// Shows the rules that were broken: the series of one that never was would only be noise.
    fn show_broken<'a>(
        &self,
        device: DeviceKey,
        counts: impl Iterator<Item = (&'static str, &'a u64)>,
    ) {
        let device = device.to_string();
        for (rule, count) in counts.filter(|(_, count)| **count > 0) {
            self.violations.set([&device, rule], number(*count));
        }
    }

    fn show_accesses(&self, sample: &Sample, coverages: &Coverages) {
        let (ours, others) = (coverages.region.access, coverages.outside.access);
        for access in &sample.accesses {
            let key = access.key;
            let sums = sample.devices.get(&DeviceKey(key.device));
            if !sums.map_or(ours || others, |sums| coverages.of(Seen::of(sums)).access) {
                continue;
            }
            let (Ok(field), Ok(op)) =
                (Field::try_from(key.field), Op::try_from(key.op_and_refused & 1))
            else {
                continue; // a field of a newer driver
            };
            let result = if key.op_and_refused & 2 == 0 { "ok" } else { "refused" };
            let device = DeviceKey(key.device).to_string();
            self.accesses.set([&device, field.name(), op.name(), result], number(access.count));
        }
        if !ours && !others {
            return;
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
}
