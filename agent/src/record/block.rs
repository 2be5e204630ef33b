// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The blocks of a recording: the frame around the records, by which damage is found and passed.

/// Most bytes of records in one block. It is closed when there are [`FULL_BYTES`], and the longest record fits beside those.
pub(super) const PAYLOAD_BYTES: usize = 8 << 20;
/// From this many bytes on a block is written.
pub(super) const FULL_BYTES: usize = 64 << 10;
/// Length of a head, in bytes.
pub(super) const HEAD_BYTES: usize = 28;

/// How a head begins. No ASCII text and no UTF-8 has these bytes.
pub(super) const MARK: [u8; 3] = [0xf5, 0x4d, 0xc1];

/// The sums in this block start over from zero.
const KEY: u8 = 1;
/// The recording ends here.
const END: u8 = 2;

/// The head of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Whether sums start over.
    pub(super) key: bool,
    /// Whether it is the last one.
    pub(super) end: bool,
    /// Number in the file, from 0.
    pub(super) number: u32,
    /// Length of the payload, in bytes.
    pub(super) length: u32,
    /// `CLOCK_MONOTONIC` of the latest input of all blocks before it, in nanoseconds.
    pub(super) base_ns: u64,
    /// Checksum of the payload.
    pub(super) crc: u32,
}

impl Head {
    /// The head as it stands in the file.
    pub(super) fn write(&self) -> [u8; HEAD_BYTES] {
        let flags = if self.key { KEY } else { 0 } | if self.end { END } else { 0 };
        let mut head = [0; HEAD_BYTES];
        let (covered, sum) = head.split_at_mut(HEAD_BYTES - 4);
        let parts: [&[u8]; 6] = [
            &MARK,
            &[flags],
            &self.number.to_le_bytes(),
            &self.length.to_le_bytes(),
            &self.base_ns.to_le_bytes(),
            &self.crc.to_le_bytes(),
        ];
        for (to, from) in covered.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        sum.copy_from_slice(&crc32fast::hash(covered).to_le_bytes());
        head
    }

    /// Reads a head; `None` for bytes that are none, or a damaged one. Flags that are not known are left alone.
    pub(super) fn read(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let [m0, m1, m2, flags, rest @ ..] = *bytes;
        if [m0, m1, m2] != MARK {
            return None;
        }
        let [
            n0,
            n1,
            n2,
            n3,
            l0,
            l1,
            l2,
            l3,
            t0,
            t1,
            t2,
            t3,
            t4,
            t5,
            t6,
            t7,
            c0,
            c1,
            c2,
            c3,
            sum @ ..,
        ] = rest;
        let (covered, _) = bytes.split_at(HEAD_BYTES - 4);
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let fits = usize::try_from(length).is_ok_and(|length| length <= PAYLOAD_BYTES);
        (fits && crc32fast::hash(covered) == u32::from_le_bytes(sum)).then_some(Self {
            key: flags & KEY != 0,
            end: flags & END != 0,
            number: u32::from_le_bytes([n0, n1, n2, n3]),
            length,
            base_ns: u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_and_every_flipped_bit_is_seen() {
        let head =
            Head { key: true, end: false, number: 7, length: 300, base_ns: 1 << 45, crc: 99 };
        let good = head.write();
        assert_eq!(Head::read(&good), Some(head));
        for bit in 0..HEAD_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::read(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_no_head_even_with_a_sound_checksum() {
        let length = u32::try_from(PAYLOAD_BYTES + 1).expect("small");
        let head = Head { key: true, end: false, number: 0, length, base_ns: 0, crc: 0 };
        assert_eq!(Head::read(&head.write()), None);
    }
}
