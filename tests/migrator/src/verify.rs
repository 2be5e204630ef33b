// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Proof that nothing was lost.
//!
//! Source, once the device stands: a page that differs from what was last sent must be in the last dirty report (else it was
//! *missed*), and so each page that was reported clean is really unchanged. All of memory must be what the workload's model
//! says. Destination: memory before the device runs, then registers and buffer, must be the source's byte for byte.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use workload::edu::Snapshot;

use crate::PAGE_BYTES;

/// What was checked. A check that was not made is nothing, not a success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Source: memory is what the workload's model says. Destination: memory is what the source had.
    pub memory: Option<bool>,
    /// Pages that differ, when `memory` is wrong.
    pub wrong_pages: Vec<u64>,
    /// Destination: registers are what the source's were.
    pub registers: Option<bool>,
    /// Destination: the buffer is what the source's was.
    pub buffer: Option<bool>,
    /// Source: pages that changed after they were sent and were not reported dirty.
    pub missed: Vec<u64>,
    /// Source: whether that was checked.
    pub reports_checked: bool,
    /// Source: pages that the device wrote by the workload's model and that no report had.
    pub written_but_not_reported: Vec<u64>,
    /// Source: how often a page was reported though it held what was last sent: allowed, and a measure of the driver's precision.
    pub unchanged_but_reported: u64,
}

impl Verification {
    /// Whether nothing that was checked is wrong.
    pub fn holds(&self) -> bool {
        ![self.memory, self.registers, self.buffer].contains(&Some(false))
            && self.missed.is_empty()
            && self.written_but_not_reported.is_empty()
    }
}

/// What the destination must find, as the source saw it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// SHA-256 of all memory, in hexadecimal.
    pub memory_sha256: String,
    /// CRC-32 of each page: to say which page is wrong when the digest differs.
    pub page_crc32: Vec<u32>,
    /// The registers, read while the device stood.
    pub registers: Snapshot,
    /// The reachable part of the device's buffer; nothing when the source does not know it.
    pub buffer: Option<Vec<u8>>,
}

/// SHA-256 in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The CRC-32 of each page.
pub fn page_checksums(memory: &[u8]) -> Vec<u32> {
    pages(memory).map(crc32fast::hash).collect()
}

/// The frame numbers, counted from `first_pfn`, of the pages whose checksums differ.
pub fn wrong_pages(memory: &[u8], page_crc32: &[u32], first_pfn: u64) -> Vec<u64> {
    let numbered = (first_pfn..).zip(pages(memory).map(crc32fast::hash)).zip(page_crc32);
    numbered.filter(|((_, is), should)| is != *should).map(|((pfn, _), _)| pfn).collect()
}

/// The frame numbers, counted from `first_pfn`, of the pages that differ.
pub fn differing_pages(one: &[u8], other: &[u8], first_pfn: u64) -> Vec<u64> {
    let numbered = (first_pfn..).zip(pages(one).zip(pages(other)));
    numbered.filter(|(_, (one, other))| one != other).map(|(pfn, _)| pfn).collect()
}

fn pages(memory: &[u8]) -> std::slice::Chunks<'_, u8> {
    memory.chunks(usize::try_from(PAGE_BYTES).expect("a page is smaller than the address space"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_names_its_page() {
        let sent = vec![7; 4 * 4096];
        let mut memory = sent.clone();
        memory[2 * 4096] = 8;
        assert_eq!(differing_pages(&memory, &sent, 0x100), [0x102]);
        assert_eq!(wrong_pages(&memory, &page_checksums(&sent), 0x100), [0x102]);
        assert_ne!(digest(&memory), digest(&sent));
    }

    #[test]
    fn a_check_that_was_not_made_is_no_success_and_no_failure() {
        assert_eq!(Verification::default().memory, None);
        let wrong = Verification { buffer: Some(false), ..Verification::default() };
        assert!(!wrong.holds());
    }
}
