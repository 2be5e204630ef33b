// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether what was read of a map still holds: nothing changes in it but by a record, and records are counted.
//!
//! Each reading of a map that can be spared is worth something beyond its time: while it lasts no probe of a function runs on its CPU, and if
//! the agent is set aside in the middle of it, none does until it goes on (`bpf_prog_active`).

/// For how long no record may have come until the maps are taken to be at rest. A record is counted when its program begins, and
/// programs can be preempted: one that still adds up must not be missed.
const REST_NS: u64 = 1_000_000_000;
/// How often the maps are read all the same, whatever has kept a program from its end.
const RENEW_NS: u64 = 10_000_000_000;

/// How many records had come when maps were read last, and since when. Times are `CLOCK_MONOTONIC`.
#[derive(Default)]
pub(super) struct Rest {
    records: u64,
    since_ns: u64,
    read_ns: u64,
}

impl Rest {
    /// Whether the last reading holds, now that `records` have come.
    pub(super) fn holds(&mut self, records: u64, now_ns: u64) -> bool {
        if self.records != records {
            self.records = records;
            self.since_ns = now_ns;
        }
        // Read after it had been quiet for long enough.
        self.read_ns.saturating_sub(self.since_ns) >= REST_NS
            && now_ns.saturating_sub(self.read_ns) < RENEW_NS
    }

    /// The maps are read now.
    pub(super) fn was_read(&mut self, now_ns: u64) {
        self.read_ns = now_ns;
    }

    /// The last reading holds no more.
    pub(super) fn is_over(&mut self) {
        self.read_ns = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks every quarter of a second, reads where the last reading does not hold, and gives how often that was.
    fn readings(rest: &mut Rest, records: u64, from_s: u64, to_s: u64) -> u32 {
        let mut readings = 0;
        for quarter in from_s * 4..to_s * 4 {
            let now_ns = quarter * REST_NS / 4;
            if !rest.holds(records, now_ns) {
                rest.was_read(now_ns);
                readings += 1;
            }
        }
        readings
    }

    #[test]
    fn maps_are_read_for_a_second_after_the_last_record_and_every_ten_seconds() {
        let mut rest = Rest::default();
        assert_eq!(readings(&mut rest, 0, 100, 110), 1, "none has come yet");
        assert_eq!(readings(&mut rest, 1, 110, 120), 5);
        assert_eq!(readings(&mut rest, 1, 120, 130), 1);
    }

    #[test]
    fn what_comes_while_maps_are_read_again_and_again_is_not_missed() {
        let mut rest = Rest::default();
        for second in 100..110 {
            let all = readings(&mut rest, second, second, second + 1);
            assert_eq!(all, 4, "second {second}");
        }
    }

    #[test]
    fn a_reading_that_is_over_is_made_anew() {
        let mut rest = Rest::default();
        readings(&mut rest, 7, 100, 103);
        assert!(rest.holds(7, 103 * REST_NS));
        rest.is_over();
        assert!(!rest.holds(7, 103 * REST_NS));
    }
}
