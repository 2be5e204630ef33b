// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sums in a recording: what changed since the last ones.
//!
//! ```text
//!   row       which numbers changed (bit set) │ difference │ difference …
//!   devices   how many are gone │ key … │ how many changed │ key, row │ key, row …
//! ```

use super::bytes::{Bad, Bytes, put, put_difference, put_length};
use crate::device_key::DeviceKey;
use migscope_abi::ring::{DeviceSums, Left, Stay, Withheld};
use std::collections::BTreeMap;

/// Most devices; as many as the probes tell apart.
pub(super) const DEVICES: usize = 1024;
/// Numbers in the sums of a device.
const NUMBERS: usize = 34;

/// The sums of a device as a row of numbers.
type Row = [u64; NUMBERS];

/// The order in which the numbers of [`DeviceSums`] stand in a recording, which is a contract: new ones come to its end.
fn row(sums: &DeviceSums) -> Row {
    let DeviceSums {
        data_bytes: [saved_bytes, resumed_bytes],
        iterations: [saved, resumed],
        dirty_queries: [queries_none, queries_all, queries_bitmap, queries_error],
        dirty_pages,
        dirty_bytes,
        dma_transfers: [transfers_to, transfers_from],
        dma_bytes: [bytes_to, bytes_from],
        pending_bytes,
        pending_reads,
        state,
        last_seen_ns,
        data_busy_ns: [save_busy_ns, resume_busy_ns],
        query_busy_ns,
        stay: Stay { data_began_ns, data_ended_ns, query_began_ns, query_ended_ns },
        left:
            Left {
                initial_bytes,
                dirty_bytes: left_dirty_bytes,
                precopy_tellings,
                reinits,
                stop_copy_bytes,
                stop_copy_tellings,
                stop_copy_refusals,
            },
        withheld: Withheld { bytes: withheld_bytes, answers: withheld_answers },
    } = *sums;
    [
        saved_bytes,
        resumed_bytes,
        saved,
        resumed,
        queries_none,
        queries_all,
        queries_bitmap,
        queries_error,
        dirty_pages,
        dirty_bytes,
        transfers_to,
        transfers_from,
        bytes_to,
        bytes_from,
        pending_bytes,
        pending_reads,
        // The two that are no states are the largest numbers of all; so they become the smallest.
        state.wrapping_add(2),
        last_seen_ns,
        save_busy_ns,
        resume_busy_ns,
        query_busy_ns,
        data_began_ns,
        data_ended_ns,
        query_began_ns,
        query_ended_ns,
        initial_bytes,
        left_dirty_bytes,
        precopy_tellings,
        reinits,
        stop_copy_bytes,
        stop_copy_tellings,
        stop_copy_refusals,
        withheld_bytes,
        withheld_answers,
    ]
}

/// The sums that a row tells.
fn sums(row: Row) -> DeviceSums {
    let [
        saved_bytes,
        resumed_bytes,
        saved,
        resumed,
        queries_none,
        queries_all,
        queries_bitmap,
        queries_error,
        dirty_pages,
        dirty_bytes,
        transfers_to,
        transfers_from,
        bytes_to,
        bytes_from,
        pending_bytes,
        pending_reads,
        state,
        last_seen_ns,
        save_busy_ns,
        resume_busy_ns,
        query_busy_ns,
        data_began_ns,
        data_ended_ns,
        query_began_ns,
        query_ended_ns,
        initial_bytes,
        left_dirty_bytes,
        precopy_tellings,
        reinits,
        stop_copy_bytes,
        stop_copy_tellings,
        stop_copy_refusals,
        withheld_bytes,
        withheld_answers,
    ] = row;
    DeviceSums {
        data_bytes: [saved_bytes, resumed_bytes],
        iterations: [saved, resumed],
        dirty_queries: [queries_none, queries_all, queries_bitmap, queries_error],
        dirty_pages,
        dirty_bytes,
        dma_transfers: [transfers_to, transfers_from],
        dma_bytes: [bytes_to, bytes_from],
        pending_bytes,
        pending_reads,
        state: state.wrapping_sub(2),
        last_seen_ns,
        data_busy_ns: [save_busy_ns, resume_busy_ns],
        query_busy_ns,
        stay: Stay { data_began_ns, data_ended_ns, query_began_ns, query_ended_ns },
        left: Left {
            initial_bytes,
            dirty_bytes: left_dirty_bytes,
            precopy_tellings,
            reinits,
            stop_copy_bytes,
            stop_copy_tellings,
            stop_copy_refusals,
        },
        withheld: Withheld { bytes: withheld_bytes, answers: withheld_answers },
    }
}

/// Appends what changed in a row of at most 64 numbers.
pub(super) fn put_row<const N: usize>(out: &mut Vec<u8>, now: &[u64; N], before: &[u64; N]) {
    const { assert!(N <= 64) };
    let pairs = || now.iter().zip(before);
    let changed = (0_u32..).zip(pairs()).filter(|(_, (now, before))| now != before);
    put(out, changed.fold(0, |bits, (place, _)| bits | 1 << place));
    for (now, before) in pairs().filter(|(now, before)| now != before) {
        put_difference(out, *now, *before);
    }
}

/// Reads what changed in a row. Numbers past its end are those of a newer recording, and left out.
pub(super) fn take_row<const N: usize>(
    bytes: &mut Bytes<'_>,
    row: &mut [u64; N],
) -> Result<(), Bad> {
    let changed = bytes.number()?;
    for place in 0..64 {
        if changed >> place & 1 == 1 {
            match row.get_mut(place) {
                Some(number) => *number = bytes.after(*number)?,
                None => drop(bytes.number()?),
            }
        }
    }
    Ok(())
}

/// Appends the sums of one device, whole.
pub(super) fn put_sums(out: &mut Vec<u8>, sums: &DeviceSums) {
    put_row(out, &row(sums), &[0; NUMBERS]);
}

/// Reads the sums of one device.
pub(super) fn take_sums(bytes: &mut Bytes<'_>) -> Result<DeviceSums, Bad> {
    let mut row = [0; NUMBERS];
    take_row(bytes, &mut row)?;
    Ok(sums(row))
}

/// The sums of all devices, as last written or read.
#[derive(Clone, Debug, Default)]
pub(super) struct Devices(BTreeMap<DeviceKey, Row>);

impl Devices {
    /// Appends what changed.
    ///
    /// # Errors
    ///
    /// More devices than a recording may have; then nothing was appended.
    pub(super) fn put(
        &mut self,
        out: &mut Vec<u8>,
        now: &BTreeMap<DeviceKey, DeviceSums>,
    ) -> Result<(), Bad> {
        if now.len() > DEVICES {
            return Err(Bad::TooMany("devices"));
        }
        let gone: Vec<_> = self.0.keys().filter(|key| !now.contains_key(key)).copied().collect();
        put_length(out, gone.len());
        for key in gone {
            put(out, key.0);
            self.0.remove(&key);
        }
        let now: Vec<_> = now.iter().map(|(key, sums)| (*key, row(sums))).collect();
        let changed = || now.iter().filter(|(key, row)| self.0.get(key) != Some(row));
        put_length(out, changed().count());
        for (key, row) in changed() {
            put(out, key.0);
            put_row(out, row, self.0.get(key).unwrap_or(&[0; NUMBERS]));
        }
        self.0.extend(now);
        Ok(())
    }

    /// Reads what changed, and gives all of them.
    pub(super) fn take(
        &mut self,
        bytes: &mut Bytes<'_>,
    ) -> Result<BTreeMap<DeviceKey, DeviceSums>, Bad> {
        for _ in 0..bytes.length("devices", DEVICES)? {
            self.0.remove(&DeviceKey(bytes.number()?)).ok_or(Bad::Place)?;
        }
        for _ in 0..bytes.length("devices", DEVICES)? {
            let row = self.0.entry(DeviceKey(bytes.number()?)).or_insert([0; NUMBERS]);
            take_row(bytes, row)?;
        }
        if self.0.len() > DEVICES {
            return Err(Bad::TooMany("devices"));
        }
        Ok(self.0.iter().map(|(key, row)| (*key, sums(*row))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_a_newer_recording_adds_are_passed_over() {
        let mut out = Vec::new();
        put_row(&mut out, &[1, 0, 3, 4], &[0; 4]);
        put(&mut out, 77);
        let (mut bytes, mut row) = (Bytes(&out), [0; 2]);
        take_row(&mut bytes, &mut row).expect("whole");
        assert_eq!((row, bytes.number()), ([1, 0], Ok(77)));
    }

    #[test]
    fn what_did_not_change_takes_two_bytes() {
        let now =
            BTreeMap::from([(DeviceKey(24), DeviceSums { state: 3, ..DeviceSums::default() })]);
        let mut devices = Devices::default();
        devices.put(&mut Vec::new(), &now).expect("few");
        let mut out = Vec::new();
        devices.put(&mut out, &now).expect("few");
        assert_eq!(out, [0, 0]);
    }
}
