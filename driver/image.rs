// SPDX-License-Identifier: GPL-2.0
//! The device image: what a source sends and a destination takes, as one stream of records.
//!
//! ```text
//!   header ─▶ device memory, any number of records ─▶ the device's parts, in the device's order ─▶ end
//!             (in any state that saves)                (in stop-and-copy)
//!
//!   record: magic 4 │ version 2 │ kind 2 │ sequence 4 │ length 4 │ checksum 4 │ reserved 4 │ payload
//! ```
//!
//! All integers are little-endian. The checksum is the CRC-32 of the record's head, with a checksum of zero, and payload. The
//! header names the device and is sent in pre-copy already: a destination of another kind refuses early, before anything was
//! stopped. The end carries the totals, among them a CRC-32 of all heads, and so of all checksums: a piece that is missing or
//! from another stream is found when the last byte is taken in and not when the device is to run. A VMM can refuse the stream
//! at that point, but hardly the start of the machine.
//!
//! Parts are kept until the image is complete. Device memory ([`memory`](crate::memory)) is too large for that: its records go
//! to the device as they come. Before the first part a second header may come, and then all begins anew: the source was reset.
//!
//! The stream is cut into windows without regard for records. [`Writer`] makes it, [`Reader`] takes it; neither knows a device.

use kernel::{
    num::casts::usize_as_u64,
    prelude::*, //
};
use zerocopy::byteorder::little_endian::{
    U16,
    U32,
    U64, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

use crate::{
    abi::rule::Rule,
    ffi::crc32, //
};

/// "MSCI" as the bytes lie in the stream.
const MAGIC: u32 = u32::from_le_bytes(*b"MSCI");
/// The version of the framing.
const VERSION: u16 = 2;

/// A kind of record. Between [`Kind::HEADER`] and [`Kind::MEMORY`] the kinds are the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(pub(crate) u16);

impl Kind {
    /// [`Identity`].
    const HEADER: Self = Self(0);
    /// [`memory`](crate::memory).
    const MEMORY: Self = Self(0x100);
    /// [`Totals`].
    const END: Self = Self(u16::MAX);
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: U32,
    version: U16,
    kind: U16,
    sequence: U32,
    length: U32,
    checksum: U32,
    reserved: U32,
}

/// The longest payload of a record of device memory, in bytes.
pub(crate) const MAX_MEMORY_BYTES: usize = (1 << 20) + 16;

/// Length of a record's head, in bytes.
pub(crate) const HEAD_BYTES: usize = size_of::<Head>();

impl Head {
    fn sum(&self, crc: impl FnOnce(u32) -> u32) -> u32 {
        let bare = Self { checksum: U32::ZERO, ..*self };
        !crc(crc32(!0, bare.as_bytes()))
    }
}

/// Whose image it is: the payload of the header.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Eq, Unaligned)]
#[repr(C)]
pub(crate) struct Identity {
    vendor: U16,
    device: U16,
    /// Version of the device's own records.
    version: U32,
    /// Pages of device memory.
    pages: U64,
}

impl Identity {
    /// The identity of a device model without device memory.
    pub(crate) const fn new(vendor: u16, device: u16, version: u32) -> Self {
        Self {
            vendor: U16::new(vendor),
            device: U16::new(device),
            version: U32::new(version),
            pages: U64::ZERO,
        }
    }

    /// The same, of a device with so much memory.
    pub(crate) const fn with_memory(self, pages: u64) -> Self {
        Self { pages: U64::new(pages), ..self }
    }
}

/// What must have come before the end: the payload of the end.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Eq, Unaligned)]
#[repr(C)]
struct Totals {
    /// Bytes of all records before the end.
    bytes: U64,
    /// Records before the end.
    records: U32,
    /// CRC-32 of their heads.
    checksum: U32,
}

/// A part of a device's state, in the order in which parts are sent.
pub(crate) struct Part {
    /// The record that carries it.
    pub(crate) kind: Kind,
    /// The most that its payload can have, in bytes.
    pub(crate) max_bytes: usize,
}

/// Running totals of a stream.
#[derive(Clone, Copy)]
struct Sum {
    bytes: u64,
    records: u32,
    crc: u32,
}

impl Sum {
    const ZERO: Self = Self { bytes: 0, records: 0, crc: !0 };

    fn add(&mut self, head: &Head) {
        self.bytes += usize_as_u64(HEAD_BYTES) + u64::from(head.length.get());
        self.records = self.records.wrapping_add(1);
        self.crc = crc32(self.crc, head.as_bytes());
    }

    fn totals(&self) -> Totals {
        Totals {
            bytes: U64::new(self.bytes),
            records: U32::new(self.records),
            checksum: U32::new(!self.crc),
        }
    }
}

/// Makes the stream.
pub(crate) struct Writer {
    /// Records, or the rest of one, that were not yet sent.
    unsent: KVVec<u8>,
    sum: Sum,
    /// Parts whose records were made.
    made: usize,
    ended: bool,
}

impl Writer {
    /// A stream in which the header waits to be sent.
    ///
    /// # Errors
    ///
    /// [`Rule::NoMemory`].
    pub(crate) fn new(identity: &Identity) -> Result<Self, Rule> {
        let mut writer = Self { unsent: KVVec::new(), sum: Sum::ZERO, made: 0, ended: false };
        writer.push(Kind::HEADER, identity.as_bytes())?;
        Ok(writer)
    }

    /// The head of the next record, whose payload `crc` goes on over.
    fn head(&self, kind: Kind, length: usize, crc: impl FnOnce(u32) -> u32) -> Result<Head, Rule> {
        let mut head = Head {
            magic: U32::new(MAGIC),
            version: U16::new(VERSION),
            kind: U16::new(kind.0),
            sequence: U32::new(self.sum.records),
            length: U32::new(u32::try_from(length).map_err(|_| Rule::ImageRecord)?),
            checksum: U32::ZERO,
            reserved: U32::ZERO,
        };
        head.checksum = U32::new(head.sum(crc));
        Ok(head)
    }

    fn push(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Rule> {
        let head = self.head(kind, payload.len(), |seed| crc32(seed, payload))?;
        self.unsent.reserve(HEAD_BYTES + payload.len(), GFP_KERNEL).map_err(|_| Rule::NoMemory)?;
        // The space is there, so a record is in the stream as a whole or not at all.
        self.unsent
            .extend_from_slice(head.as_bytes(), GFP_KERNEL)
            .and_then(|()| self.unsent.extend_from_slice(payload, GFP_KERNEL))
            .map_err(|_| Rule::NoMemory)?;
        self.sum.add(&head);
        Ok(())
    }

    /// Begins a record of device memory that is sent past this writer, and gives its head: `length` bytes follow, which `crc`
    /// goes on over. Nothing may wait to be sent.
    ///
    /// # Errors
    ///
    /// [`Rule::ImageRecord`] if the record cannot be.
    pub(crate) fn memory_record(
        &mut self,
        length: usize,
        crc: impl FnOnce(u32) -> u32,
    ) -> Result<[u8; HEAD_BYTES], Rule> {
        let head = self.head(Kind::MEMORY, length, crc)?;
        self.sum.add(&head);
        let mut bytes = [0; HEAD_BYTES];
        bytes.copy_from_slice(head.as_bytes());
        Ok(bytes)
    }

    /// Bytes that can be sent now.
    pub(crate) fn ready_bytes(&self) -> u64 {
        usize_as_u64(self.unsent.len())
    }

    /// Bytes that will have to be sent after those, at most.
    pub(crate) fn later_bytes(&self, parts: &[Part]) -> u64 {
        if self.ended {
            return 0;
        }
        let parts = parts.get(self.made..).unwrap_or_default();
        let payloads: usize = parts.iter().map(|part| HEAD_BYTES + part.max_bytes).sum();
        usize_as_u64(payloads + HEAD_BYTES + size_of::<Totals>())
    }

    /// Makes the next record if there is none to send, with `save` giving a part's payload.
    ///
    /// # Errors
    ///
    /// Those of `save`; [`Rule::NoMemory`]. Nothing has changed then, and the call can be made again.
    pub(crate) fn refill(
        &mut self,
        parts: &[Part],
        mut save: impl FnMut(Kind, &mut KVVec<u8>) -> Result<(), Rule>,
    ) -> Result<(), Rule> {
        if !self.unsent.is_empty() || self.ended {
            return Ok(());
        }
        match parts.get(self.made) {
            Some(part) => {
                let mut payload = KVVec::new();
                save(part.kind, &mut payload)?;
                self.push(part.kind, &payload)?;
                self.made += 1;
            }
            None => {
                let totals = self.sum.totals();
                self.push(Kind::END, totals.as_bytes())?;
                self.ended = true;
            }
        }
        Ok(())
    }

    /// What can be sent next, at most `max_bytes` of it. It stays to be sent until [`Writer::sent`].
    pub(crate) fn next(&self, max_bytes: usize) -> &[u8] {
        self.unsent.get(..max_bytes).unwrap_or(&self.unsent)
    }

    /// The first `bytes` bytes have arrived.
    pub(crate) fn sent(&mut self, bytes: usize) {
        let bytes = bytes.min(self.unsent.len());
        self.unsent.copy_within(bytes.., 0);
        self.unsent.truncate(self.unsent.len() - bytes);
    }
}

/// A part that has arrived.
pub(crate) struct Record {
    /// Which part.
    pub(crate) kind: Kind,
    /// Its payload, which the device has checked.
    pub(crate) payload: KVVec<u8>,
}

/// Who takes in what comes in the stream.
pub(crate) trait Taker {
    /// Decides on the payload of a part: [`Rule::ImageRecord`] if it cannot be one.
    fn check(&self, kind: Kind, payload: &[u8]) -> Result<(), Rule>;

    /// A header came: what came before does not count, if this piece of the stream is taken.
    ///
    /// # Errors
    ///
    /// [`Rule::NoMemory`].
    fn begin_anew(&mut self) -> Result<(), Rule>;

    /// The piece of the stream was taken, or it was refused.
    fn settle(&mut self, taken: bool);

    /// Takes a record of device memory.
    ///
    /// # Errors
    ///
    /// [`Rule::ImageRecord`] if it cannot be one; nothing was taken then.
    fn memory(&mut self, payload: &[u8]) -> Result<(), Rule>;

    /// The end has come: [`Rule::ImageIncomplete`] if a page of device memory has not.
    fn all_memory_is_here(&self) -> Result<(), Rule>;
}

/// Takes the stream.
pub(crate) struct Reader {
    /// Bytes of a record that has not yet arrived as a whole.
    partial: KVVec<u8>,
    records: KVVec<Record>,
    sum: Sum,
    ended: bool,
}

impl Reader {
    /// A reader to which nothing has come.
    pub(crate) fn new() -> Self {
        Self { partial: KVVec::new(), records: KVVec::new(), sum: Sum::ZERO, ended: false }
    }

    /// The parts, in their order; `None` while the image is incomplete.
    pub(crate) fn complete(&self) -> Option<&[Record]> {
        self.ended.then_some(&self.records)
    }

    /// Takes in a piece of the stream, which `read` copies to where it is told.
    ///
    /// # Errors
    ///
    /// Those of `read` and `taker`, the rule that the stream breaks, or [`Rule::NoMemory`]. The piece was not taken then: the
    /// reader is what it was. Only device memory may have been written; it is written again when the piece comes again.
    pub(crate) fn feed(
        &mut self,
        piece_bytes: usize,
        read: impl FnOnce(&mut [u8]) -> Result<(), Rule>,
        identity: &Identity,
        parts: &[Part],
        taker: &mut dyn Taker,
    ) -> Result<(), Rule> {
        let before = (self.partial.len(), self.records.len(), self.sum, self.ended);
        let mut used = 0;
        let fed = self
            .partial
            .resize(before.0 + piece_bytes, 0, GFP_KERNEL_ACCOUNT)
            .map_err(|_| Rule::NoMemory)
            .and_then(|()| read(self.partial.get_mut(before.0..).unwrap_or_default()))
            .and_then(|()| {
                while let Some(bytes) = self.take_record(used, identity, parts, taker)? {
                    used += bytes;
                }
                Ok(())
            });
        taker.settle(fed.is_ok());
        match fed {
            Ok(()) => {
                self.partial.copy_within(used.., 0);
                self.partial.truncate(self.partial.len() - used);
            }
            Err(_) => {
                self.partial.truncate(before.0);
                self.records.truncate(before.1);
                (self.sum, self.ended) = (before.2, before.3);
            }
        }
        fed
    }

    /// Takes the record that starts at `at`, if it is there as a whole, and gives its length.
    fn take_record(
        &mut self,
        at: usize,
        identity: &Identity,
        parts: &[Part],
        taker: &mut dyn Taker,
    ) -> Result<Option<usize>, Rule> {
        let bytes = self.partial.get(at..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(None);
        }
        if self.ended {
            return Err(Rule::ImageRecord);
        }
        let Ok((head, rest)) = Head::read_from_prefix(bytes) else {
            return Ok(None);
        };
        // A device that is reset in pre-copy, as by a guest that reboots, is saved from the start again.
        if self.records.is_empty() && head.kind.get() == Kind::HEADER.0 {
            self.sum = Sum::ZERO;
        }
        let (kind, expected, max_bytes) = self.expect(parts, Kind(head.kind.get()));
        let length = usize::try_from(head.length.get()).map_err(|_| Rule::ImageRecord)?;
        if head.magic.get() != MAGIC {
            return Err(Rule::ImageMagic);
        }
        if head.version.get() != VERSION {
            return Err(Rule::ImageVersion);
        }
        let in_place = head.kind.get() == kind.0
            && head.sequence.get() == expected
            && head.reserved.get() == 0
            && length <= max_bytes;
        if !in_place {
            return Err(Rule::ImageRecord);
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        if head.sum(|seed| crc32(seed, payload)) != head.checksum.get() {
            return Err(Rule::ImageChecksum);
        }
        match kind {
            Kind::HEADER => {
                check_identity(payload, identity)?;
                taker.begin_anew()?;
            }
            Kind::MEMORY => taker.memory(payload)?,
            Kind::END => {
                taker.all_memory_is_here()?;
                if payload != self.sum.totals().as_bytes() {
                    return Err(Rule::ImageRecord);
                }
                self.ended = true;
            }
            kind => {
                taker.check(kind, payload)?;
                let mut kept = KVVec::new();
                kept.extend_from_slice(payload, GFP_KERNEL_ACCOUNT)
                    .and_then(|()| {
                        self.records.push(Record { kind, payload: kept }, GFP_KERNEL_ACCOUNT)
                    })
                    .map_err(|_| Rule::NoMemory)?;
            }
        }
        self.sum.add(&head);
        Ok(Some(HEAD_BYTES + length))
    }

    /// The kind, sequence number and largest payload of the record that must come next, given the kind that does come.
    fn expect(&self, parts: &[Part], comes: Kind) -> (Kind, u32, usize) {
        let (kind, max_bytes) = match (self.sum.records, parts.get(self.records.len())) {
            (0, _) => (Kind::HEADER, size_of::<Identity>()),
            (_, _) if comes == Kind::MEMORY && self.records.is_empty() => {
                (Kind::MEMORY, MAX_MEMORY_BYTES)
            }
            (_, Some(part)) => (part.kind, part.max_bytes),
            (_, None) => (Kind::END, size_of::<Totals>()),
        };
        (kind, self.sum.records, max_bytes)
    }
}

fn check_identity(payload: &[u8], own: &Identity) -> Result<(), Rule> {
    let Ok(identity) = Identity::read_from_bytes(payload) else {
        return Err(Rule::ImageRecord);
    };
    let kind = |it: &Identity| (it.vendor, it.device, it.pages);
    if kind(&identity) != kind(own) {
        return Err(Rule::ImageDevice);
    }
    if identity.version != own.version {
        return Err(Rule::ImageVersion);
    }
    Ok(())
}

#[kunit_tests(vfio_mediate_image)]
mod tests {
    use super::*;

    const OWN: Identity = Identity::new(0x1234, 0x11e8, 1);
    const PARTS: [Part; 2] =
        [Part { kind: Kind(1), max_bytes: 40 }, Part { kind: Kind(2), max_bytes: 0 }];

    /// A device without memory that takes any part.
    struct NoMemory;

    impl Taker for NoMemory {
        fn check(&self, _kind: Kind, _payload: &[u8]) -> Result<(), Rule> {
            Ok(())
        }

        fn begin_anew(&mut self) -> Result<(), Rule> {
            Ok(())
        }

        fn settle(&mut self, _taken: bool) {}

        fn memory(&mut self, _payload: &[u8]) -> Result<(), Rule> {
            Err(Rule::ImageRecord)
        }

        fn all_memory_is_here(&self) -> Result<(), Rule> {
            Ok(())
        }
    }

    /// The stream of an image in which byte *n* of the first part is *n*.
    fn stream() -> Result<KVVec<u8>, Rule> {
        let mut writer = Writer::new(&OWN)?;
        let mut stream = KVVec::new();
        while writer.ready_bytes() + writer.later_bytes(&PARTS) > 0 {
            writer.refill(&PARTS, |kind, payload| {
                let bytes: u8 = if kind == Kind(1) { 40 } else { 0 };
                (0..bytes)
                    .try_for_each(|byte| payload.push(byte, GFP_KERNEL).map_err(|_| Rule::NoMemory))
            })?;
            let piece = writer.next(13);
            let bytes = piece.len();
            stream.extend_from_slice(piece, GFP_KERNEL).map_err(|_| Rule::NoMemory)?;
            writer.sent(bytes);
        }
        Ok(stream)
    }

    /// What becomes of it, in pieces of 31 bytes: whether it is complete, or the rule it breaks.
    fn arrives(stream: &[u8], identity: &Identity) -> Result<bool, Rule> {
        let mut reader = Reader::new();
        for piece in stream.chunks(31) {
            let copy = |to: &mut [u8]| {
                to.copy_from_slice(piece);
                Ok(())
            };
            reader.feed(piece.len(), copy, identity, &PARTS, &mut NoMemory)?;
        }
        let records = reader.complete();
        Ok(records.is_some_and(|records| {
            let payload =
                |at: usize| records.get(at).map(|record| (record.kind, record.payload.len()));
            records.len() == 2
                && payload(0) == Some((Kind(1), 40))
                && payload(1) == Some((Kind(2), 0))
        }))
    }

    #[test]
    fn an_image_arrives_whole_or_not_at_all() -> Result<(), Rule> {
        let stream = stream()?;
        assert_eq!(arrives(&stream, &OWN), Ok(true));
        for end in 0..stream.len() {
            assert_eq!(arrives(stream.get(..end).unwrap_or_default(), &OWN), Ok(false));
        }
        Ok(())
    }

    #[test]
    fn no_damaged_byte_gets_through() -> Result<(), Rule> {
        let mut stream = stream()?;
        for at in 0..stream.len() {
            let damage = 1 << (at % 8);
            if let Some(byte) = stream.get_mut(at) {
                *byte ^= damage;
            }
            assert!(arrives(&stream, &OWN) != Ok(true));
            if let Some(byte) = stream.get_mut(at) {
                *byte ^= damage;
            }
        }
        Ok(())
    }

    #[test]
    fn another_devices_image_is_refused() -> Result<(), Rule> {
        let other = Identity::new(0x1af4, 0x1110, 1);
        assert_eq!(arrives(&stream()?, &other).err(), Some(Rule::ImageDevice));
        Ok(())
    }
}
