// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Images, taken apart and put together: so that a test can say what is in one, and make one that no driver would.
//!
//! ```text
//!   record: magic 4 │ version 2 │ kind 2 │ sequence 4 │ length 4 │ checksum 4 │ reserved 4 │ payload
//!   header ─▶ device memory ─▶ the device's parts ─▶ end: bytes 8 │ records 4 │ CRC-32 of all heads 4
//!   memory: first page 8 │ pages 4 │ encoding 4 │ 0: the pages, 1: a word that fills them
//! ```
//!
//! The format is `driver/image.rs` and `driver/memory.rs`, written down a second time: the driver is judged by this one.

use workload::content::PAGE;

/// Length of a record's head, in bytes.
pub const HEAD_BYTES: usize = 24;
/// Length of what begins the payload of a record of device memory, in bytes.
pub const RUN_BYTES: usize = 16;
/// Length of the header's payload, in bytes.
pub const IDENTITY_BYTES: usize = 16;
/// The kind of the header.
pub const HEADER: u16 = 0;
/// The kind of device memory.
pub const MEMORY: u16 = 0x100;
/// The kind of the end.
pub const END: u16 = u16::MAX;

const MAGIC: &[u8; 4] = b"MSCI";
const VERSION: u16 = 2;
/// Where a head has its checksum.
const CHECKSUM: std::ops::Range<usize> = 16..20;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which kind.
    pub kind: u16,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Record {
    /// Device memory: pages as they are.
    pub fn data(first: u64, pages: &[u8]) -> Self {
        let count = u32::try_from(pages.len() / PAGE).expect("fits");
        Self::run(first, count, 0, pages)
    }

    /// Device memory: pages that one word fills.
    pub fn fill(first: u64, pages: u32, word: u64) -> Self {
        Self::run(first, pages, 1, &word.to_le_bytes())
    }

    /// Device memory, whatever it says.
    pub fn run(first: u64, pages: u32, encoding: u32, rest: &[u8]) -> Self {
        let mut payload = first.to_le_bytes().to_vec();
        payload.extend_from_slice(&pages.to_le_bytes());
        payload.extend_from_slice(&encoding.to_le_bytes());
        payload.extend_from_slice(rest);
        Self { kind: MEMORY, payload }
    }

    /// What it says, if it is device memory.
    ///
    /// # Panics
    ///
    /// When it is and says what cannot be.
    pub fn memory(&self) -> Option<Run> {
        if self.kind != MEMORY {
            return None;
        }
        let (head, rest) = self.payload.split_at(RUN_BYTES);
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four"));
        let (first, pages) = (u64::from_le_bytes(head[..8].try_into().expect("eight")), number(8));
        let fill = match number(12) {
            0 => {
                assert_eq!(rest.len(), usize::try_from(pages).expect("fits") * PAGE);
                None
            }
            1 => Some(u64::from_le_bytes(rest.try_into().expect("one word"))),
            other => panic!("no encoding is {other}"),
        };
        assert!(pages > 0, "a record of no pages");
        Some(Run { first, pages: u64::from(pages), fill })
    }
}

/// What a record of device memory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first page.
    pub first: u64,
    /// How many pages.
    pub pages: u64,
    /// The word that fills them, if one does.
    pub fill: Option<u64>,
}

/// Takes whole records apart, and gives the sequence number of the first. Damage is not looked for.
///
/// # Panics
///
/// When they are not whole records.
pub fn split(mut bytes: &[u8]) -> (Vec<Record>, Option<u32>) {
    let mut records = Vec::new();
    let mut sequence = None;
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES).expect("a whole head");
        assert_eq!(&head[..4], MAGIC);
        assert_eq!(head[4..6], VERSION.to_le_bytes());
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four"));
        sequence = sequence.or(Some(number(8)));
        let length = usize::try_from(number(12)).expect("fits");
        let (payload, after) = rest.split_at_checked(length).expect("a whole payload");
        let kind = u16::from_le_bytes([head[6], head[7]]);
        records.push(Record { kind, payload: payload.to_vec() });
        bytes = after;
    }
    (records, sequence)
}

/// Puts an image together of all records but the end, which is made here: everything in it is in order.
///
/// # Panics
///
/// When there are more records than can be counted.
pub fn join(records: &[Record]) -> Vec<u8> {
    let mut image = Vec::new();
    let mut heads = crc32fast::Hasher::new();
    for (sequence, record) in (0..).zip(records) {
        let head = head(record, sequence);
        heads.update(&head);
        image.extend_from_slice(&head);
        image.extend_from_slice(&record.payload);
    }
    let count = u32::try_from(records.len()).expect("fits");
    let mut payload = u64::try_from(image.len()).expect("fits").to_le_bytes().to_vec();
    payload.extend_from_slice(&count.to_le_bytes());
    payload.extend_from_slice(&heads.finalize().to_le_bytes());
    let end = Record { kind: END, payload };
    image.extend_from_slice(&head(&end, count));
    image.extend_from_slice(&end.payload);
    image
}

fn head(record: &Record, sequence: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(MAGIC);
    head[4..6].copy_from_slice(&VERSION.to_le_bytes());
    head[6..8].copy_from_slice(&record.kind.to_le_bytes());
    head[8..12].copy_from_slice(&sequence.to_le_bytes());
    let length = u32::try_from(record.payload.len()).expect("fits");
    head[12..16].copy_from_slice(&length.to_le_bytes());
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&head);
    checksum.update(&record.payload);
    head[CHECKSUM].copy_from_slice(&checksum.finalize().to_le_bytes());
    head
}

/// Gives a record whose payload was changed its right checksum.
pub fn reseal(record: &mut [u8]) {
    record[CHECKSUM].fill(0);
    let checksum = crc32fast::hash(record);
    record[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_comes_apart() {
        let records = vec![
            Record { kind: HEADER, payload: vec![1; IDENTITY_BYTES] },
            Record::fill(3, 4, 5),
            Record::data(0, &[7; 2 * PAGE]),
        ];
        let image = join(&records);
        let (mut apart, first) = split(&image);
        assert_eq!((apart.pop().map(|end| end.kind), first), (Some(END), Some(0)));
        assert_eq!(apart, records);
        assert_eq!(apart[1].memory(), Some(Run { first: 3, pages: 4, fill: Some(5) }));
        assert_eq!(apart[2].memory(), Some(Run { first: 0, pages: 2, fill: None }));
        let mut sealed = image[..HEAD_BYTES + IDENTITY_BYTES].to_vec();
        sealed[CHECKSUM].fill(9);
        reseal(&mut sealed);
        assert_eq!(sealed, image[..sealed.len()]);
    }
}
