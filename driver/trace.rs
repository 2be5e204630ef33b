// SPDX-License-Identifier: GPL-2.0
//! What the driver tells about itself: the tracepoints of the system `vfio_mediate`, typed.
//!
//! The records are those of [`abi::trace`](crate::abi::trace). Nothing is built and no clock is read for a tracepoint that
//! nobody listens to. All of a device's records are emitted under its lock, so they come in the order of what happened.

use kernel::time::{
    Instant,
    Monotonic, //
};

use crate::{
    abi::trace::{
        Data,
        DirtyQuery,
        Dma,
        Error,
        RegionAccess,
        State, //
    },
    ffi,
};

/// A clock that runs only when a tracepoint wants its reading.
pub(crate) struct Stopwatch(Option<Instant<Monotonic>>);

impl Stopwatch {
    /// Starts the clock if `wanted`.
    pub(crate) fn start(wanted: bool) -> Self {
        Self(wanted.then(Instant::now))
    }

    /// Nanoseconds since the start; 0 if nobody listened then.
    pub(crate) fn elapsed_ns(&self) -> u64 {
        self.0.map_or(0, |start| u64::try_from(start.elapsed().as_nanos()).unwrap_or(0))
    }
}

macro_rules! event {
    ($name:ident, $enabled:ident, $emit:ident, $record:ty) => {
        #[doc = concat!("Emits the tracepoint `", stringify!($name), "`; `record` runs only if somebody listens.")]
        pub(crate) fn $name(record: impl FnOnce() -> $record) {
            if ffi::$enabled() {
                ffi::$emit(&record());
            }
        }
    };
    ($name:ident, $enabled:ident, $emit:ident, $record:ty, timed by $stopwatch:ident) => {
        event!($name, $enabled, $emit, $record);

        #[doc = concat!("A clock for the tracepoint `", stringify!($name), "`.")]
        pub(crate) fn $stopwatch() -> Stopwatch {
            Stopwatch::start(ffi::$enabled())
        }
    };
}

event!(state, state_enabled, emit_state, State, timed by time_state);
event!(region_access, region_access_enabled, emit_region_access, RegionAccess,
    timed by time_region_access);
event!(data, data_enabled, emit_data, Data, timed by time_data);
event!(dirty_query, dirty_query_enabled, emit_dirty_query, DirtyQuery, timed by time_dirty_query);
event!(dma, dma_enabled, emit_dma, Dma);
event!(error, error_enabled, emit_error, Error);

/// Asserts that a record is the same in C: its size, and each field's offset.
macro_rules! same_in_c {
    ($record:ty, $c:ident: $($field:ident),+ $(,)?) => {
        const _: () = {
            use core::mem::{offset_of, size_of};
            assert!(size_of::<$record>() == size_of::<ffi::bindings::$c>());
            $(assert!(offset_of!($record, $field) == offset_of!(ffi::bindings::$c, $field));)+
        };
    };
}

same_in_c!(State, vfio_mediate_state:
    device, duration_ns, from, requested, now, cause, result, reserved);
same_in_c!(RegionAccess, vfio_mediate_region_access:
    device, offset, bytes, value, duration_ns, result, field, op, state, reserved);
same_in_c!(Data, vfio_mediate_data:
    device, bytes, iteration, pending_bytes, duration_ns, direction, state);
same_in_c!(DirtyQuery, vfio_mediate_dirty_query:
    device, start_pfn, page_bytes, total_pfns, copied_pfns, dirty_pages, duration_ns, outcome,
    result);
same_in_c!(Dma, vfio_mediate_dma:
    device, iova, bytes, logged_pages, direction, state, result, reserved);
same_in_c!(Error, vfio_mediate_error:
    device, offset, bytes, value, rule, errno, field, op, state, reserved);
