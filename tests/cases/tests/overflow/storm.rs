// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A storm of accesses that are refused: the fastest way to make records.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;

use cases::session::{Session, offset_of};
use migrator::device::Device;
use migrator::region::RegionIo as _;
use migscope_abi::region::{Field, Op, STRUCT_BYTES};
use migscope_abi::rule::Rule;
use migscope_abi::watch::conduct::Conduct;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Accesses that are refused in every state and are no breach of conduct, so that each makes one record: offset, length, direction.
const REFUSED: [(Rule, u64, usize, Op); 5] = [
    (Rule::Misaligned, 0x02, 1, Op::Read),
    (Rule::FieldWidth, 0x08, 4, Op::Read),
    (Rule::OutOfBounds, STRUCT_BYTES, 8, Op::Read),
    (Rule::ReadOnly, 0x08, 8, Op::Write),
    (Rule::WriteOnly, 0x20, 8, Op::Read),
];

/// What is done to two devices at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storm {
    /// Accesses that each thread has refused.
    pub(crate) refusals: u64,
    /// Threads for each device.
    pub(crate) threads: usize,
    /// How often another thread writes to the reserved field of the second device, which is served and a breach of conduct.
    pub(crate) breaches: u64,
    /// Whether the threads of a device share a CPU that those of the other have not: they exclude each other by the device's lock, so
    /// that no probe is ever started while it runs on that CPU.
    pub(crate) pinned: bool,
}

/// What was done to one device, counted by those who did it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    refused: BTreeMap<&'static str, u64>,
    breaches: u64,
}

impl Done {
    /// Refused accesses.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.values().sum()
    }

    /// How often each rule was broken, by its name.
    pub(crate) fn broken(&self) -> BTreeMap<&'static str, u64> {
        let mut broken = self.refused.clone();
        if self.breaches > 0 {
            broken.insert(Conduct::ReservedWritten.name(), self.breaches);
        }
        broken
    }
}

impl Storm {
    /// Lets it go over both devices.
    ///
    /// # Panics
    ///
    /// When an access is served that must be refused, or is refused by another rule.
    pub(crate) fn rage(&self, devices: [&Session; 2]) -> [Done; 2] {
        let Self { refusals, threads, breaches, pinned } = *self;
        thread::scope(|scope| {
            let all = [0, 1].map(|cpu| {
                let device = &devices[cpu].device;
                let place = move || {
                    if pinned {
                        pin(cpu);
                    }
                };
                let refuse = |first| {
                    scope.spawn(move || {
                        place();
                        refuse(device, refusals, first)
                    })
                };
                let breaches = if cpu == 1 { breaches } else { 0 };
                let breach = scope.spawn(move || {
                    place();
                    breach(device, breaches)
                });
                ((0..threads).map(refuse).collect::<Vec<_>>(), breach)
            });
            all.map(|(refusing, breaching)| {
                let mut done = Done::default();
                for thread in refusing {
                    for (rule, count) in thread.join().expect("every access was refused") {
                        *done.refused.entry(rule).or_default() += count;
                    }
                }
                done.breaches = breaching.join().expect("every write was served");
                done
            })
        })
    }
}

/// Keeps the calling thread on one of the guest's two CPUs.
fn pin(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).expect("the guest has two CPUs");
}

/// Has `times` accesses refused, by all the rules in turn from the `first` one on.
fn refuse(device: &Arc<Device>, times: u64, first: usize) -> BTreeMap<&'static str, u64> {
    let region = device.region();
    let mut refused = BTreeMap::new();
    let mut left = times;
    for (rule, offset, bytes, op) in REFUSED.into_iter().cycle().skip(first) {
        if left == 0 {
            break;
        }
        left -= 1;
        let mut buffer = [0_u8; 8];
        let access = match op {
            Op::Read => region.io().read_at(offset, &mut buffer[..bytes]),
            Op::Write => region.io().write_at(offset, &buffer[..bytes]),
        };
        let errno = access.as_ref().err().and_then(io::Error::raw_os_error);
        assert_eq!(errno, Some(rule.errno()), "{}", rule.name());
        *refused.entry(rule.name()).or_default() += 1;
    }
    refused
}

/// Writes to the reserved field.
fn breach(device: &Arc<Device>, times: u64) -> u64 {
    let region = device.region();
    for _ in 0..times {
        region.io().write_at(offset_of(Field::Reserved), &1_u32.to_ne_bytes()).expect("served");
    }
    times
}
