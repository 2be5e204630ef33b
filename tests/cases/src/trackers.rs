// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Those who tell a VMM which pages of its machine are dirty, and a client of each that knows what it made dirty.
//!
//! ```text
//!   type1     a container; the kernel says "all", or "none" where only emulated devices are in it
//!   iommufd   the kernel's own test device, whose page table the client makes dirty
//!   kvm       a machine of one processor, whose code writes to the pages that the client chose
//! ```

pub mod iommufd;
pub mod kvm;
pub mod memory;
pub mod type1;

/// The bitmap in which these bits are set.
pub fn bitmap(bits: &[u64], of: u64) -> Vec<u64> {
    let mut words = vec![0_u64; usize::try_from(of.div_ceil(64)).expect("a short bitmap")];
    for bit in bits {
        words[usize::try_from(bit / 64).expect("a short bitmap")] |= 1 << (bit % 64);
    }
    words
}

/// The bits that are set.
pub fn bits(words: &[u64]) -> Vec<u64> {
    let set = |(at, word): (u64, &u64)| {
        let word = *word;
        (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
    };
    (0_u64..).zip(words).flat_map(set).collect()
}
