// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Dirty pages of a whole machine, by who tells of them. A machine is the process of its VMM.
//!
//! ```text
//!   (process, tracker) ──▶ MachineSums     in a map, since the probes were attached or the process began
//!   a device of the process changes its state ──▶ MachineRecord: the sums of all trackers at that moment, before the record of the change
//! ```
//!
//! A container, an IOMMU's page table or a virtual machine is not of one device, so what they tell is kept by process. The record
//! makes it exact for a session, which begins and ends with a change of state, however late the agent reads.

use super::dirty;
use super::ring::Header;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Who tells of a whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Tracker {
    /// The container's IOMMU (`VFIO_IOMMU_DIRTY_PAGES`).
    Type1 = 0,
    /// A page table of iommufd (`IOMMU_HWPT_GET_DIRTY_BITMAP`).
    Iommufd = 1,
    /// KVM: what its processors write.
    Kvm = 2,
}

impl Tracker {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Type1, Self::Iommufd, Self::Kvm];
}

impl TryFrom<u32> for Tracker {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|tracker| *tracker as u32 == number).ok_or(number)
    }
}

/// Key of the map of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct MachineKey {
    /// The process (thread group).
    pub tgid: u32,
    /// [`Tracker`].
    pub tracker: u32,
}

/// All that one tracker was ever seen to tell one process.
///
/// **What counts as told, so that nothing counts twice.** A page counts when it is told, and again only if it was dirtied anew in between.
///
/// | | pages count |
/// | --- | --- |
/// | type 1, `GET_BITMAP` and unmapping | when told: the log is cleared (what is pinned, or cannot be told apart, is dirty again at once) |
/// | iommufd | when told; what was told with `NO_CLEAR` stays dirty and is taken off the next report over that range, unless something was unmapped since |
/// | KVM's log | when told; with `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`, where it tells a page each time until `KVM_CLEAR_DIRTY_LOG` names it, those that were told of the slot and not cleared are taken off |
/// | KVM's ring | when `KVM_RESET_DIRTY_RINGS` gives their places back, which says how many |
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
#[repr(C)]
pub struct MachineSums {
    /// Queries, by [`Outcome`](dirty::Outcome). `KVM_CLEAR_DIRTY_LOG` is none.
    pub queries: [u64; dirty::Outcome::COUNT],
    /// Pages reported dirty, in pages of the queries.
    pub pages: u64,
    /// The same in bytes.
    pub bytes: u64,
    /// Time that the kernel spent answering queries, in nanoseconds.
    pub query_busy_ns: u64,
    /// 1 after tracking was switched on, 0 after it was switched off; KVM's is switched with a slot's flags, which nobody looks at.
    pub tracking: u64,
    /// Bytes that were all to be taken as dirty, in the last whole round of queries: those that go once over memory, upwards.
    pub all_bytes: u64,
    /// The same in the round under way.
    pub round_all_bytes: u64,
    /// Where the last query of it ended, in bytes; 0 before the first.
    pub round_next: u64,
    /// `CLOCK_MONOTONIC` of the last call, in nanoseconds.
    pub last_seen_ns: u64,
}

/// Ring record of what all trackers had told a process when it changed the state of a device. It comes before the record of the
/// change, and only where a tracker has told anything.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct MachineRecord {
    /// The head.
    pub header: Header,
    /// [`DeviceKey`](super::device::DeviceKey) of the device.
    pub device: u64,
    /// By [`Tracker`]; all 0 of one that was never asked.
    pub sums: [MachineSums; Tracker::COUNT],
}

const _: () = {
    assert!(size_of::<MachineKey>() == 8);
    assert!(size_of::<MachineSums>() == 96);
    assert!(size_of::<MachineRecord>() == 24 + 96 * Tracker::COUNT);
};
