// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one end of a migration did, counted by itself.
//!
//! An observer of the kernel counts the same things from the other side; the two must agree. So every access to the migration
//! region from opening the device to closing it is in here, failed ones included, and times are `CLOCK_MONOTONIC`.

use std::collections::BTreeMap;

use migscope_abi::dirty::Outcome;
use migscope_abi::region::{Field, Op};
use serde::{Deserialize, Serialize};
use workload::Counts;

use crate::verify::Verification;

/// Which end of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The device is saved.
    Source,
    /// The device is loaded.
    Destination,
    /// Neither: the device was only asked.
    Observer,
}

/// What made a device change state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A write of `device_state`.
    Write,
    /// `VFIO_DEVICE_RESET`.
    Reset,
}

/// A change of state, asked for and granted or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// State before, as `device_state` read: a name of `migscope_abi::state::State`.
    pub from: String,
    /// State after: the one asked for, or what `device_state` read after a refusal.
    pub to: String,
    /// The number written to `device_state`; 1 for a reset.
    pub requested: u32,
    /// What asked for it.
    pub cause: Cause,
    /// 0, or a negative errno.
    pub result: i32,
    /// When the write began.
    pub at_monotonic_ns: u64,
    /// How long the write took.
    pub duration_ns: u64,
}

/// How often a field of the region was accessed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessCount {
    /// A name of `migscope_abi::region::Field`.
    pub field: String,
    /// `read` or `write`.
    pub op: String,
    /// `ok` or `error`.
    pub result: String,
    /// Number of system calls.
    pub count: u64,
}

/// Dirty queries; one query is one read of `copied_pfns`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dirty {
    /// Queries by outcome: `none`, `all`, `bitmap`, `error`.
    pub queries: BTreeMap<String, u64>,
    /// Pages reported dirty, counted in the pages of each query.
    pub pages: u64,
    /// The same in bytes.
    pub bytes: u64,
}

/// How bytes go through a window of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Copied from or to a mapping of the window.
    Mapped,
    /// By system calls.
    Trapped,
}

/// Bytes that went through a window, by the way they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// [`Way::Mapped`].
    pub mapped_bytes: u64,
    /// [`Way::Trapped`].
    pub trapped_bytes: u64,
}

/// What was done to the migration region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionAccount {
    /// In the order in which they were asked for.
    pub transitions: Vec<Transition>,
    /// Device data moved, in bytes.
    pub data_bytes: u64,
    /// Buffers of at least one byte that were moved.
    pub iterations: u64,
    /// Reads or writes of the data window, by system calls; a buffer takes one or more if it is not mapped.
    pub chunks: u64,
    /// How device data went through its window.
    pub data_window: Moved,
    /// How bitmaps went through theirs.
    pub bitmap_window: Moved,
    /// How long giving buffers to the device took, in nanoseconds: for each, from the look for its place until it was taken in.
    pub load_ns: u64,
    /// Dirty queries.
    pub dirty: Dirty,
    /// Accesses by field, direction and result; what never happened is left out.
    pub accesses: Vec<AccessCount>,
    /// What `pending_bytes` read last; nothing when it was never read.
    pub pending_bytes: Option<u64>,
}

/// Memory that was migrated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Pages of the memory.
    pub pages: u64,
    /// Length of a page, in bytes.
    pub page_bytes: u64,
    /// Pages sent (or received) by pass; the first pass is all of them, the last one is made while the device stands.
    pub pages_by_pass: Vec<u64>,
    /// Pages that went more than once, each time counted.
    pub resent_pages: u64,
}

/// A phase of this end, in the order in which they ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// When it began.
    pub at_monotonic_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
}

/// Where the downtime went, in nanoseconds. It lasts from the moment the write that stops the source device begins to the
/// moment the write that starts the destination device returns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downtime {
    /// The write that stops the source device.
    pub stop_ns: u64,
    /// Reading and sending the last device data.
    pub final_data_ns: u64,
    /// The last dirty query, and reading and sending its pages.
    pub final_dirty_ns: u64,
    /// Of that, the query: until its answer and the bitmap were read.
    pub final_query_ns: u64,
    /// From there until the destination has everything; unknown when the ends have different clocks.
    pub transfer_ns: Option<u64>,
    /// What the destination did before it let the device start: checks of the memory, PCI configuration.
    pub load_ns: u64,
    /// The write that starts the destination device.
    pub start_ns: u64,
    /// All of it. When the ends have different clocks: until the source hears that the device runs.
    pub total_ns: u64,
    /// When the write that stops the source device began, by the source's clock.
    pub stop_at_monotonic_ns: u64,
    /// When the destination device ran, by the destination's clock.
    pub running_at_monotonic_ns: u64,
}

/// What the device did meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// What it was told to do, as `--workload` takes it.
    pub spec: String,
    /// Finished transfers.
    #[serde(flatten)]
    pub counts: Counts,
    /// Different pages of 4096 bytes that the device wrote.
    pub pages_dirtied: u64,
    /// Whether a transfer was under way when the device was stopped.
    pub in_flight_at_stop: bool,
}

/// What one end did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// PCI address.
    pub device: String,
    /// Which end.
    pub role: Role,
    /// What it did to the migration region.
    #[serde(flatten)]
    pub region: RegionAccount,
    /// The memory that it sent or received.
    pub memory: Memory,
    /// Its phases.
    pub phases: Vec<Phase>,
    /// Of the source, after a migration: where the downtime went.
    pub downtime: Option<Downtime>,
    /// From the first phase to the last, in nanoseconds.
    pub total_ns: u64,
    /// Of the source: what the device did meanwhile.
    pub workload: Option<Workload>,
    /// What this end checked.
    pub verification: Verification,
}

/// Counts accesses while they are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    accesses: BTreeMap<(u32, u32, bool), u64>,
    queries: [u64; Outcome::COUNT],
    pub(crate) account: RegionAccount,
}

impl Tally {
    /// One system call on the region.
    pub(crate) fn access(&mut self, field: Field, op: Op, ok: bool) {
        *self.accesses.entry((field as u32, op as u32, !ok)).or_default() += 1;
        if field == Field::Data && ok {
            self.account.chunks += 1;
        }
    }

    /// Bytes went through a window.
    pub(crate) fn moved(&mut self, field: Field, bytes: usize, way: Way) {
        let window = match field {
            Field::Bitmap => &mut self.account.bitmap_window,
            _ => &mut self.account.data_window,
        };
        *match way {
            Way::Mapped => &mut window.mapped_bytes,
            Way::Trapped => &mut window.trapped_bytes,
        } += u64::try_from(bytes).expect("a length fits");
    }

    /// A buffer is over.
    pub(crate) fn iteration(&mut self, bytes: u64) {
        self.account.iterations += 1;
        self.account.data_bytes += bytes;
    }

    /// `copied_pfns` was read.
    pub(crate) fn query(&mut self, outcome: Outcome) {
        for (count, each) in self.queries.iter_mut().zip(Outcome::ALL) {
            *count += u64::from(each == outcome);
        }
    }

    /// Pages were reported.
    pub(crate) fn reported(&mut self, pages: u64, page_bytes: u64) {
        let dirty = &mut self.account.dirty;
        dirty.pages = dirty.pages.saturating_add(pages);
        dirty.bytes = dirty.bytes.saturating_add(pages.saturating_mul(page_bytes));
    }

    /// The account so far.
    pub(crate) fn account(&self) -> RegionAccount {
        let mut account = self.account.clone();
        let name = |number: u32| Field::try_from(number).map_or("none", Field::name);
        account.accesses = self
            .accesses
            .iter()
            .map(|((field, op, failed), count)| AccessCount {
                field: name(*field).to_owned(),
                op: Op::try_from(*op).map_or("none", Op::name).to_owned(),
                result: if *failed { "error" } else { "ok" }.to_owned(),
                count: *count,
            })
            .collect();
        account.dirty.queries = Outcome::ALL
            .iter()
            .zip(self.queries)
            .map(|(outcome, count)| (outcome.name().to_owned(), count))
            .collect();
        account
    }
}
