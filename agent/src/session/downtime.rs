// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the downtime went.
//!
//! ```text
//!  source       pre_copy ┃▒ stop ▒│ stop_and_copy                         ┃ stopped
//!                        ┃        │  ▒ final dirty ▒   ▒▒ final data ▒▒   ┃
//!  destination  resuming ┃        │                                   │ transfer gap │▒ start ▒┃ running
//!                        ┃                                ▒ load ▒  ▒ load ▒         │         ┃
//!                        ┗━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ total ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┛
//! ```
//!
//! - *stop*: the write of the state that stopped the source's device
//! - *final dirty*: from the first dirty query after the stop until the last was answered
//! - *final data*: from the first access that moves device data after the stop until the last buffer was out
//! - *transfer gap*: from that last buffer until the write that starts the destination: the wire, the VMM, the memory that it moves,
//!   and taking in the last buffers
//! - *load*: the time that the destination's driver was busy taking data in. It overlaps the other parts, and with pre-copy some of it
//!   is before the stop: it says what the destination's driver costs, not how long the machine stood for it
//! - *start*: the write of the state that made the destination's device run
//!
//! What lies between the parts of the source is the VMM's own: it stops vCPUs, saves other devices, sends memory. Total and
//! gap are known only where both ends were seen; see [`super::pairing`].

use migscope_abi::ring::Stay;
use serde::{Deserialize, Serialize};

/// The parts of a downtime, in nanoseconds; what is not known is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downtime {
    /// Source: how long the write took that made the device leave a running state.
    pub stop_ns: Option<u64>,
    /// Source: from the first dirty query after the stop until the last was answered.
    pub final_dirty_ns: Option<u64>,
    /// Source: from the first access that moves device data after the stop until the last buffer was out.
    pub final_data_ns: Option<u64>,
    /// Source: from the beginning of the stop to the end of the session.
    pub source_ns: Option<u64>,
    /// Both: from the source's last buffer until the write that starts the destination.
    pub transfer_gap_ns: Option<u64>,
    /// Destination: how long its driver was busy taking data in, pre-copy included.
    pub load_ns: Option<u64>,
    /// Destination: how long the write took that made the device run.
    pub start_ns: Option<u64>,
    /// Destination: from entering resuming to running.
    pub destination_ns: Option<u64>,
    /// Both: from the beginning of the source's stop until the destination ran.
    pub total_ns: Option<u64>,
}

impl Downtime {
    /// The parts by the value of the label `part`.
    pub fn parts(&self) -> [(&'static str, Option<u64>); 9] {
        [
            ("stop", self.stop_ns),
            ("final_dirty", self.final_dirty_ns),
            ("final_data", self.final_data_ns),
            ("source", self.source_ns),
            ("transfer_gap", self.transfer_gap_ns),
            ("load", self.load_ns),
            ("start", self.start_ns),
            ("destination", self.destination_ns),
            ("total", self.total_ns),
        ]
    }

    /// Takes in the source's stay in the state in which it stood still. Parts that nothing happened in stay unknown where no probe
    /// would have seen it: the caller says whether queries and data are covered.
    pub(super) fn source_stood(&mut self, stay: &Stay, dirty_covered: bool, data_covered: bool) {
        let length = |began_ns: u64, ended_ns: u64| match (began_ns, ended_ns) {
            (0, _) | (_, 0) => 0,
            (began_ns, ended_ns) => ended_ns.saturating_sub(began_ns),
        };
        if dirty_covered {
            self.final_dirty_ns = Some(length(stay.query_began_ns, stay.query_ended_ns));
        }
        if data_covered {
            self.final_data_ns = Some(length(stay.data_began_ns, stay.data_ended_ns));
        }
    }
}

/// When the ends of a migration met, `CLOCK_MONOTONIC` in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// Source: when its last buffer was out, if one was read after the stop.
    pub last_buffer_ns: Option<u64>,
    /// Destination: when the write began that made the device run.
    pub start_began_ns: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_for_is_zero_and_nothing_seen_is_unknown() {
        let stay = Stay { data_began_ns: 100, data_ended_ns: 700, ..Stay::NONE };
        let mut downtime = Downtime::default();
        downtime.source_stood(&stay, true, true);
        assert_eq!((downtime.final_dirty_ns, downtime.final_data_ns), (Some(0), Some(600)));
        let mut downtime = Downtime::default();
        downtime.source_stood(&stay, false, true);
        assert_eq!((downtime.final_dirty_ns, downtime.final_data_ns), (None, Some(600)));
    }

    #[test]
    fn a_buffer_that_was_begun_and_never_ended_took_no_known_time() {
        let stay = Stay { data_began_ns: 100, ..Stay::NONE };
        let mut downtime = Downtime::default();
        downtime.source_stood(&stay, true, true);
        assert_eq!(downtime.final_data_ns, Some(0));
    }

    #[test]
    fn every_part_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            Downtime::default().parts().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 9);
    }
}
