// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What runs in the guest: the tests in `tests/`, and the demo.

pub mod binding;
pub mod child;
pub mod demo;
pub mod fault;
pub mod guest;
pub mod ivshmem;
pub mod low_power;
pub mod mapping;
pub mod mdev;
pub mod module;
pub mod monitored;
pub mod records;
pub mod refusal;
pub mod session;
pub mod stage;
pub mod starve;
pub mod suspend;
pub mod trackers;
pub mod v2;
pub mod vendor;
pub mod vfio;
pub mod vmm;
