// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A migration by hand, of one device to another of the same host, with every number chosen.
//!
//! ```text
//!   ms from the beginning   10             20              23  25         30
//!   source                  ├── pre_copy ──┤ stop_and_copy ────┤ stopped
//!   destination                                            ├─── resuming ──┤ running
//! ```

use migscope::device_key::DeviceKey;
use migscope::{
    event::{Event, StateChange},
    state::{Protocol, State},
};
use migscope_abi::{ring::DeviceSums, state::Cause};

pub(crate) const SOURCE: DeviceKey = DeviceKey::pci(0, 0, 0x10 << 3);
pub(crate) const DESTINATION: DeviceKey = DeviceKey::pci(0, 0, 0x11 << 3);
pub(crate) const MS: u64 = 1_000_000;
/// The process that has both devices open.
pub(crate) const PID: u32 = 4711;

/// A change of state that a client asked for, that took 20 µs, and was over `at_ns`.
pub(crate) fn change(
    device: DeviceKey,
    from: State,
    now: State,
    at_ns: u64,
    sums: DeviceSums,
) -> StateChange {
    StateChange {
        device,
        at_ns,
        tgid: PID,
        from,
        protocol: Protocol::Region,
        requested: Some(now),
        now,
        cause: Cause::Write,
        duration_ns: 20_000,
        result: 0,
        sums: Some(DeviceSums { state: now as u64, last_seen_ns: at_ns, ..sums }),
    }
}

/// The changes of state of the migration, in their order; its beginning is at `zero_ns`, by `CLOCK_MONOTONIC`. The source saves
/// 4096 + 100 bytes in two buffers and reports three pages, the destination takes them in.
pub(crate) fn changes(zero_ns: u64) -> [Event; 5] {
    use State::{PreCopy, Resuming, Running, StopAndCopy, Stopped};
    let at_ns = |ms: u64| zero_ns + ms * MS;
    let nothing = DeviceSums::default();
    [
        change(SOURCE, Running, PreCopy, at_ns(10), nothing),
        change(SOURCE, PreCopy, StopAndCopy, at_ns(20), before_stop()),
        change(DESTINATION, Running, Resuming, at_ns(23), nothing),
        change(SOURCE, StopAndCopy, Stopped, at_ns(25), saved()),
        change(DESTINATION, Resuming, Running, at_ns(30), resumed()),
    ]
    .map(Event::State)
}

/// What the source has told when it stops.
pub(crate) fn before_stop() -> DeviceSums {
    DeviceSums {
        data_bytes: [4096, 0],
        iterations: [1, 0],
        dirty_queries: [0, 0, 1, 0],
        dirty_pages: 2,
        dirty_bytes: 8192,
        dma_transfers: [2, 1],
        dma_bytes: [8000, 64],
        pending_bytes: 100,
        pending_reads: 2,
        ..DeviceSums::default()
    }
}

/// What it has told in the end.
pub(crate) fn saved() -> DeviceSums {
    DeviceSums {
        data_bytes: [4196, 0],
        iterations: [2, 0],
        dirty_queries: [1, 0, 2, 0],
        dirty_pages: 3,
        dirty_bytes: 12_288,
        pending_bytes: 0,
        pending_reads: 3,
        ..before_stop()
    }
}

/// What the destination has taken in.
pub(crate) fn resumed() -> DeviceSums {
    DeviceSums { data_bytes: [0, 4196], iterations: [0, 2], ..DeviceSums::default() }
}
