// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An observer that is told a migration, for tests of what is served.

pub(crate) mod migration;

use migration::{MS, changes};
use migscope::device_key::DeviceKey;
use migscope::{
    clock::monotonic_ns,
    event::Event,
    host::Paths,
    http,
    metrics::{Info, Metrics},
    observer::Observer,
    probes::{Standing, all_missing, attach::Missing},
    sample::Losses,
    sampler::{Shared, lock},
    state::State,
};
use migscope_abi::{probe::Probe, ring::DeviceSums};
use prometheus::Registry;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tokio::sync::watch;

/// The router, with what it shows and what ends its streams.
pub(crate) struct Scripted {
    pub(crate) observer: Shared,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) router: axum::Router,
}

impl Scripted {
    /// Nothing was seen, and the probes were not tried.
    pub(crate) fn new() -> Self {
        let nowhere = PathBuf::from("/nonexistent");
        let paths = Paths { sysfs: nowhere.clone(), procfs: nowhere };
        let metrics = Arc::new(Metrics::new(Registry::new()));
        let observer = Arc::new(Mutex::new(Observer::new(paths, metrics)));
        let (stop, stopped) = watch::channel(false);
        let router = http::router(Arc::clone(&observer), "/metrics", stopped);
        Self { observer, stop, router }
    }

    /// All probes are attached and nothing was lost.
    pub(crate) fn watching() -> Self {
        let scripted = Self::new();
        scripted.tell(|observer| {
            observer.probes(Probe::ALL.into_iter().map(|event| (event, Ok(()))).collect());
            observer.losses(Losses { told: [0; 4], skipped: Some(0) }, monotonic_ns());
        });
        scripted
    }

    pub(crate) fn tell<T>(&self, told: impl FnOnce(&mut Observer) -> T) -> T {
        told(&mut lock(&self.observer))
    }

    /// The device changes its state now.
    pub(crate) fn change(&self, device: DeviceKey, from: State, now: State, sums: DeviceSums) {
        let at_ns = monotonic_ns();
        let change = migration::change(device, from, now, at_ns, sums);
        self.events(&[Event::State(change)], at_ns);
    }

    fn events(&self, events: &[Event], settled_ns: u64) {
        self.tell(|observer| {
            observer.events(events);
            observer.settled(settled_ns);
        });
    }

    /// The device's sums are read now.
    pub(crate) fn sums(&self, device: DeviceKey, state: State, sums: DeviceSums) {
        let at_ns = monotonic_ns();
        let sums = DeviceSums { state: state as u64, last_seen_ns: at_ns, ..sums };
        self.tell(|observer| observer.sums_read(at_ns, &BTreeMap::from([(device, sums)])));
    }

    /// The device belongs to a machine of this name.
    pub(crate) fn name(&self, device: DeviceKey, vm: &str) {
        let info = Info {
            driver: "vfio_mediate".into(),
            iommu_group: "7".into(),
            vm: vm.into(),
            vm_uuid: String::new(),
        };
        self.tell(|observer| observer.described(device, info));
    }

    /// Both ends of a migration that ended a moment ago.
    pub(crate) fn migrate(&self) {
        let now_ns = monotonic_ns();
        self.events(&changes(now_ns - 40 * MS), now_ns);
    }
}

/// Sums of a source that has moved `data_bytes` in buffers of 1 KiB and has more to go.
pub(crate) fn moving(data_bytes: u64, pending_bytes: u64) -> DeviceSums {
    DeviceSums {
        data_bytes: [data_bytes, 0],
        iterations: [data_bytes.div_ceil(1024), 0],
        dirty_queries: [0, 0, 1, 0],
        dirty_pages: 3,
        dirty_bytes: 12_288,
        pending_bytes,
        pending_reads: 2,
        ..DeviceSums::default()
    }
}

/// No probe is attached, for this reason.
pub(crate) fn blind(why: &str, remedy: &str) -> Standing {
    all_missing(&Missing::new(why, remedy))
}
