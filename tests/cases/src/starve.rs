// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Allocations of the kernel that fail when a test wants it: `/proc/thread-self/fail-nth`
//! (`Documentation/fault-injection/fault-injection.rst`).

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const FAIL_NTH: &str = "/proc/thread-self/fail-nth";
/// Allocations that may sleep are spared by default, and the driver makes no others.
const SPARED: [&str; 2] = [
    "/sys/kernel/debug/failslab/ignore-gfp-wait",
    "/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait",
];
/// How much is said of each failure: nothing, else the console has a stack for each.
const VERBOSE: [&str; 2] =
    ["/sys/kernel/debug/failslab/verbose", "/sys/kernel/debug/fail_page_alloc/verbose"];
/// No call of the driver allocates so often.
const MOST: u32 = 10_000;

/// Why allocations cannot be made to fail here.
pub fn why_not() -> Option<String> {
    let missing = SPARED.into_iter().chain([FAIL_NTH]).find(|path| !Path::new(path).exists())?;
    Some(format!("{missing} is not there; `cargo xtask vm run --kernel debug` has it"))
}

/// What became of a call whose `nth` allocation was to fail.
#[derive(Debug)]
pub struct Starved<T> {
    /// What it gave.
    pub result: T,
    /// Whether it made so many allocations, so that one has failed.
    pub hungry: bool,
}

/// Calls `attempt` with 1, 2, 3 … until it says that the call which it starves made fewer allocations; gives how many it made.
///
/// # Panics
///
/// When there is no end of allocations, or the kernel cannot be told.
pub fn each_allocation(mut attempt: impl FnMut(u32) -> bool) -> u32 {
    let settings = SPARED.map(|path| (path, "N")).into_iter().chain(VERBOSE.map(|it| (it, "0")));
    for (path, value) in settings {
        fs::write(path, value).expect("fault injection can be set up");
    }
    (1..MOST).find(|nth| !attempt(*nth)).expect("allocations come to an end") - 1
}

/// Does a call whose `nth` allocation fails.
///
/// # Panics
///
/// When the kernel does not take the number.
pub fn starved<T>(nth: u32, call: impl FnOnce() -> T) -> Starved<T> {
    // Open beforehand: to open a file takes memory, too.
    let count = File::options().read(true).write(true).open(FAIL_NTH).expect("fault injection");
    count.write_all_at(nth.to_string().as_bytes(), 0).expect("the number is taken");
    let result = call();
    // What is left of the count: 0 once an allocation has failed.
    let mut left = [0; 16];
    let length = count.read_at(&mut left, 0).expect("the count can be read");
    count.write_all_at(b"0", 0).expect("the number is taken");
    Starved { result, hungry: left[..length].trim_ascii() == b"0" }
}
