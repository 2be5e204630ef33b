// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Migrations that are simulated page by page, in steps of a millisecond.
//!
//! ```text
//!   load (writers) ──writes──▶ dirty log ──sync──▶ to send ──link──▶ destination
//!                                                    ▲ devices: initial, stale, stop-copy data
//!   every 100 ms, late by up to 5: one reading of what an observer would know
//! ```
//!
//! Nothing of the agent's models is in here: there are pages, which are written or not, a cursor that goes over those
//! that are to be sent, and a VMM that decides by what it has been told. Two kinds of VMM are simulated: one that looks
//! again as soon as what it knows of would fit into the downtime (QEMU's `migration_iteration_run`), and one that sends a
//! pass to its end first (Cloud Hypervisor).

mod device;
mod family;
mod link;
mod load;
mod oracle;
mod pages;
mod vmm;

pub(crate) use family::{Family, Split};
pub(crate) use oracle::{Knows, error_at};

use crate::trace::Trace;

/// Migration `number` of `count` of a family, and how many were left out for it: those that ended otherwise than the
/// family says. It is the same whatever is simulated beside it.
pub(crate) fn migration(family: Family, split: Split, number: u64, count: u64) -> (Trace, u64) {
    let mut left_out = 0;
    loop {
        let trace = family.simulate(split, number + left_out * count);
        if trace.header.outcome.converged == family.converges() {
            return (trace, left_out);
        }
        left_out += 1;
    }
}

/// The whole part of a number that is not negative and small enough.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates, and the numbers here are bytes and nanoseconds of a simulated minute"
)]
fn whole(number: f64) -> u64 {
    number as u64
}
