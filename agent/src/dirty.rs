// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Dirty pages, as somebody was told of them.
//!
//! Some of them tell of one device, others of the whole machine that it is given to; a machine is the process of its VMM.
//!
//! An account holds what the answers to queries said, added up. A page that is reported twice counts twice: it was dirtied
//! again in between. Where no query was answered nothing is known, which is not "no dirty pages": that is what the count of
//! queries by outcome is for.

use crate::state::Protocol;
use migscope_abi::{
    dirty::Outcome,
    machine::{MachineSums, Tracker},
    ring::DeviceSums,
};
use serde::{Deserialize, Serialize};

/// Who says that a page is dirty; the value of the label `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The migration region of the device.
    Region,
    /// The device's own log of its DMA (`VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`).
    DmaLogging,
    /// The IOMMU of the machine's container (`VFIO_IOMMU_DIRTY_PAGES`).
    Type1,
    /// An IOMMU's page table that the machine has from iommufd (`IOMMU_HWPT_GET_DIRTY_BITMAP`).
    Iommufd,
    /// KVM, of what the machine's processors write.
    Kvm,
}

/// What all trackers told one machine, by [`Tracker`].
pub type Told = [MachineSums; Tracker::COUNT];

impl From<Tracker> for Source {
    fn from(tracker: Tracker) -> Self {
        match tracker {
            Tracker::Type1 => Self::Type1,
            Tracker::Iommufd => Self::Iommufd,
            Tracker::Kvm => Self::Kvm,
        }
    }
}

impl Source {
    /// The value of the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::DmaLogging => "dma_logging",
            Self::Type1 => "type1",
            Self::Iommufd => "iommufd",
            Self::Kvm => "kvm",
        }
    }

    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Region, Self::DmaLogging, Self::Type1, Self::Iommufd, Self::Kvm];

    /// Who reports for a device by itself that migrates by `protocol`.
    pub fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Region => Self::Region,
            Protocol::V2 => Self::DmaLogging,
        }
    }
}

/// Dirty pages reported and queries answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Pages reported dirty, in pages of the queries.
    pub pages: u64,
    /// The same in bytes.
    pub bytes: u64,
    /// Queries, by outcome.
    pub queries: Queries,
}

/// Queries, by [`Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queries {
    /// No page was dirty.
    pub none: u64,
    /// Every page was to be taken as dirty.
    pub all: u64,
    /// A bitmap said which.
    pub bitmap: u64,
    /// The query was refused: what was dirty is unknown.
    pub error: u64,
}

impl Queries {
    /// How many had this outcome.
    pub fn of(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::None => self.none,
            Outcome::All => self.all,
            Outcome::Bitmap => self.bitmap,
            Outcome::Error => self.error,
        }
    }
}

impl From<&DeviceSums> for Account {
    fn from(sums: &DeviceSums) -> Self {
        let [none, all, bitmap, error] = sums.dirty_queries;
        let queries = Queries { none, all, bitmap, error };
        Self { pages: sums.dirty_pages, bytes: sums.dirty_bytes, queries }
    }
}

impl From<&MachineSums> for Account {
    fn from(sums: &MachineSums) -> Self {
        let [none, all, bitmap, error] = sums.queries;
        let queries = Queries { none, all, bitmap, error };
        Self { pages: sums.pages, bytes: sums.bytes, queries }
    }
}

impl Account {
    /// What was added since `earlier`; `None` when the account started anew in between.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        Some(Self {
            pages: self.pages.checked_sub(earlier.pages)?,
            bytes: self.bytes.checked_sub(earlier.bytes)?,
            queries: Queries {
                none: self.queries.none.checked_sub(earlier.queries.none)?,
                all: self.queries.all.checked_sub(earlier.queries.all)?,
                bitmap: self.queries.bitmap.checked_sub(earlier.queries.bitmap)?,
                error: self.queries.error.checked_sub(earlier.queries.error)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_keep_their_places() {
        let sums = DeviceSums { dirty_queries: [1, 2, 3, 4], ..DeviceSums::default() };
        let account = Account::from(&sums);
        let counts = Outcome::ALL.map(|outcome| account.queries.of(outcome));
        assert_eq!(counts, [1, 2, 3, 4]);
    }

    #[test]
    fn an_account_that_started_anew_has_no_difference() {
        let later = Account { pages: 3, ..Account::default() };
        let earlier = Account { pages: 5, ..Account::default() };
        assert_eq!(later.since(&earlier), None);
        assert_eq!(earlier.since(&later).map(|account| account.pages), Some(2));
    }
}
