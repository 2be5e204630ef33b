// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long the guest will be down:
//!
//! ```text
//!   T_down = (R + Σ S) / B  +  transitions of the source  +  what the destination does after the last byte
//!            └ memory ┘└ devices' stop-copy part ┘           └ resources, RESUMING to RUNNING
//! ```
//!
//! The published models stop after the first quotient (QEMU, KubeVirt, Cloud Hypervisor: see `baseline.rs`), but in QEMU's
//! figures for switchover-ack 1480 of 1900 ms were the destination of an mlx5 device (cover letter of 21 June 2023).
//! Times that do not scale with bytes cannot be told from this migration's pre-copy; they are taken from an earlier one
//! of a like device, and without one the source's are assumed and the destination's left out, which the result says.

use super::assessment::{Downtime, FixedFrom};
use super::rate::{nanoseconds, seconds};
use super::reading::Facts;

/// The source's fixed part where none was seen: what Cloud Hypervisor's breakdown of a 298 ms downtime has beside the
/// last pass (state 7, sending it 19, completion 1 ms; cloud-hypervisor #7979).
pub const ASSUMED_TRANSITIONS_NS: u64 = 27_000_000;
/// How far what an earlier migration took may lie off, as a share.
const SEEN_ERROR: f64 = 0.4;
/// How many times as long as assumed it may take: the load of the destination is in it.
const ASSUMED_HIGH: f64 = 10.0;

/// What is left to move in the downtime. Bytes, bytes a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// Everything.
    pub(super) bytes: f64,
    /// The devices' part of it, where it is known.
    pub(super) stop_copy: Option<f64>,
    /// How many more bytes there may be.
    pub(super) more: f64,
    pub(super) throughput: f64,
    /// How far the throughput may lie off, as a share.
    pub(super) error: f64,
    /// Seconds of the downtime that have gone by.
    pub(super) gone: f64,
}

/// Adds the parts up.
pub(super) fn expect(rest: &Rest, facts: &Facts) -> Option<Downtime> {
    if rest.throughput <= 0.0 {
        return None;
    }
    let transitions_ns = facts.transitions_ns.unwrap_or(ASSUMED_TRANSITIONS_NS);
    let load_ns = facts.destination.and_then(|destination| destination.load_ns);
    let fixed_ns = transitions_ns.saturating_add(load_ns.unwrap_or(0));
    let fixed = seconds(fixed_ns);
    let (fixed_low, fixed_high, from) = match (facts.transitions_ns, load_ns) {
        (Some(_), Some(_)) => {
            (fixed * (1.0 - SEEN_ERROR), fixed * (1.0 + SEEN_ERROR), FixedFrom::Seen)
        }
        (None, None) => (fixed / 4.0, fixed * ASSUMED_HIGH, FixedFrom::Assumed),
        _ => (
            fixed * (1.0 - SEEN_ERROR),
            fixed * (1.0 + SEEN_ERROR) + seconds(ASSUMED_TRANSITIONS_NS) * ASSUMED_HIGH,
            FixedFrom::Partly,
        ),
    };
    // Of what has gone by, the stop is the part that is fixed: what is to come cannot be less than nothing.
    let to_come = |fixed: f64, moving: f64| rest.gone + moving + (fixed - rest.gone).max(0.0);
    let moving = |bytes: f64, faster: f64| bytes.max(0.0) / (rest.throughput * faster);
    let error = rest.error.clamp(0.0, 0.8);
    let less = rest.bytes - rest.more;
    Some(Downtime {
        expected_ns: nanoseconds(to_come(fixed, moving(rest.bytes, 1.0))),
        low_ns: nanoseconds(to_come(fixed_low, moving(less, 1.0 + error))),
        high_ns: nanoseconds(to_come(fixed_high, moving(rest.bytes + rest.more, 1.0 - error))),
        devices_ns: rest.stop_copy.map(|bytes| nanoseconds(moving(bytes, 1.0))),
        fixed_ns,
        fixed_from: from,
    })
}
