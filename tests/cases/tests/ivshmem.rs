// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A device that is a memory, `ivshmem-plain`: what is written is seen, sent and taken in, however and whenever it is written.
//!
//! ```text
//!   save     the whole of a memory, of every length, and in few bytes where there is little in it
//!   passes   what each pass of pre-copy sends: what was written since the one before, and nothing else
//!   live     migrations under workloads; whether they converge; who writes while the state changes
//!   stopped  a device that does not run takes no writes; resets; what the next user finds
//!   images   what is no image of this device is refused
//! ```

use std::process::ExitCode;

use cases::guest;

#[path = "ivshmem/images.rs"]
mod images;
#[path = "ivshmem/live.rs"]
mod live;
#[path = "ivshmem/passes.rs"]
mod passes;
#[path = "ivshmem/save.rs"]
mod save;
#[path = "ivshmem/stopped.rs"]
mod stopped;

const MIB: u64 = 1 << 20;
/// The usual device.
const SMALL: u64 = 16 * MIB;
/// A larger one.
const LARGE: u64 = 64 * MIB;
/// The largest.
const HUGE: u64 = 1024 * MIB;

fn main() -> ExitCode {
    let cases = [save::CASES, passes::CASES, live::CASES, stopped::CASES, images::CASES].concat();
    guest::run(&cases)
}
