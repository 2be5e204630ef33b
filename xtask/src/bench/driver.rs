// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench driver`: the guest has two devices with memory, and the module that measures the dirty log.

use anyhow::Result;

use super::{TIMEOUT, in_guest};
use crate::build_driver;
use crate::kernel::{Kernel, Variant};
use crate::programs;
use crate::vm::{Device, Machine, Task};
use crate::workspace::Workspace;

/// The length of the device's memory, in MiB.
const MEMORY_MIB: u32 = 64;
/// The guest's own, in MiB: a log of half of a terabyte's pages takes 64.
const GUEST_MIB: u32 = 2048;

/// Gives the results, as the program in the guest prints them.
pub(super) fn run(workspace: &Workspace, runs: u32) -> Result<String> {
    let kernel = Kernel::ensure(workspace, Variant::Ours)?;
    let tree = kernel.build_tree();
    let driver = build_driver::build(workspace, &tree)?;
    let module = build_driver::build_bench(workspace, &tree, &[])?;
    let program = programs::bench(workspace)?;
    let argv = vec![
        program.into(),
        format!("--runs={runs}").into(),
        "driver".into(),
        "--dirty-log-module".into(),
        module.into(),
    ];
    let machine = Machine {
        devices: vec![Device::Ivshmem { mib: MEMORY_MIB }; 2],
        memory_mib: GUEST_MIB,
        ..Machine::default()
    };
    let task =
        Task { argv, environment: Vec::new(), driver: Some(&driver), timeout: Some(TIMEOUT) };
    in_guest(workspace, &kernel, &machine, task)
}
