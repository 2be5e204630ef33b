// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What memory and the device's buffer hold after the operations that are over.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use crate::PAGE_BYTES;
use crate::edu::BUFFER_BYTES;
use crate::plan::Operation;

/// Memory and buffer as they must be.
#[derive(Clone, Debug)]
pub struct Model {
    iova: u64,
    memory: Vec<u8>,
    buffer: Vec<u8>,
    /// For each page that was written: when the last transfer that wrote it was started.
    written: BTreeMap<u64, Instant>,
}

impl Model {
    /// A memory of `pages` pages at `iova`, filled from `seed`, no two pages alike, and a buffer that holds its first page.
    pub fn new(seed: u64, iova: u64, pages: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let page_bytes =
            usize::try_from(PAGE_BYTES).expect("a page is smaller than the address space");
        let mut memory = vec![0; pages * page_bytes];
        random.fill(&mut memory);
        let buffer = memory.iter().copied().take(buffer_bytes()).collect();
        Self { iova, memory, buffer, written: BTreeMap::new() }
    }

    /// The operation that makes the device's buffer what the model says it is at first.
    pub fn first_load(&self) -> Operation {
        Operation::Load { iova: self.iova, bytes: BUFFER_BYTES }
    }

    /// What memory holds.
    pub fn memory(&self) -> &[u8] {
        &self.memory
    }

    /// What the reachable part of the buffer holds.
    pub fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// The pages that were written, as page frame numbers of I/O addresses.
    pub fn dirtied(&self) -> impl Iterator<Item = u64> + '_ {
        self.written.keys().copied()
    }

    /// The pages that were written by a transfer that started after `instant`: a log that was kept from then on must have them.
    pub fn dirtied_since(&self, instant: Instant) -> impl Iterator<Item = u64> + '_ {
        self.written.iter().filter(move |(_, start)| **start > instant).map(|(page, _)| *page)
    }

    /// The pages that an operation writes.
    pub fn pages_of(operation: Operation) -> Range<u64> {
        match operation {
            Operation::Load { .. } | Operation::Store { bytes: 0, .. } => 0..0,
            Operation::Store { iova, bytes } => {
                let last = iova + u64::from(bytes) - 1;
                iova / PAGE_BYTES..last / PAGE_BYTES + 1
            }
        }
    }

    /// Does to the model what the operation, whose command was given at `started`, does to the device.
    ///
    /// # Panics
    ///
    /// When the operation reaches out of the memory: it was not planned for this one.
    pub fn apply(&mut self, operation: Operation, started: Instant) {
        let (Operation::Load { iova, bytes } | Operation::Store { iova, bytes }) = operation;
        let at = usize::try_from(iova - self.iova).expect("an address of this memory");
        let bytes = usize::try_from(bytes).expect("at most a page");
        match operation {
            Operation::Load { .. } => {
                self.buffer[..bytes].copy_from_slice(&self.memory[at..at + bytes]);
            }
            Operation::Store { .. } => {
                self.memory[at..at + bytes].copy_from_slice(&self.buffer[..bytes]);
            }
        }
        self.written.extend(Self::pages_of(operation).map(|page| (page, started)));
    }
}

fn buffer_bytes() -> usize {
    usize::try_from(BUFFER_BYTES).expect("the buffer is smaller than the address space")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Plan, Spec};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const IOVA: u64 = 0x10_0000;
    const PAGES: usize = 32;

    proptest! {
        /// The model's dirty set is the truth that dirty logs are judged by, so it must itself be right.
        #[test]
        fn exactly_the_pages_that_changed_or_could_have_are_dirtied(seed: u64, steps in 0usize..200) {
            let mut plan = Plan::new(Spec { seed, ..Spec::default() }, IOVA, 32).unwrap();
            let before = Model::new(seed, IOVA, PAGES);
            let mut model = before.clone();
            let mut touched = BTreeSet::new();
            for _ in 0..steps {
                let operation = plan.step();
                if let Operation::Store { iova, bytes } = operation {
                    touched.extend((iova..iova + u64::from(bytes)).map(|byte| byte / PAGE_BYTES));
                }
                model.apply(operation, Instant::now());
            }
            prop_assert_eq!(&touched, &model.dirtied().collect());
            for (pfn, (new, old)) in
                (IOVA / PAGE_BYTES..).zip(model.memory().chunks(4096).zip(before.memory().chunks(4096)))
            {
                prop_assert!(new == old || touched.contains(&pfn));
            }
        }
    }
}
