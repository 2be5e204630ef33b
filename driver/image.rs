// SPDX-License-Identifier: GPL-2.0
//! The device image: what a source sends and a destination takes, as one stream of records.
//!
//! ```text
//!   header ─▶ the device's parts, in the device's order ─▶ end
//!
//!   record: magic 4 │ version 2 │ kind 2 │ sequence 4 │ length 4 │ checksum 4 │ reserved 4 │ payload
//! ```
//!
//! All integers are little-endian. The checksum is the CRC-32 of the record's head, with a checksum of zero, and payload. The
//! header names the device and is sent in pre-copy already: a destination of another kind refuses early, before anything was
//! stopped. The end carries the totals, so that a missing piece is found when the last byte is taken in and not when the
//! device is to run: a VMM can refuse the stream at that point, but hardly the start of the machine.
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
const VERSION: u16 = 1;

/// A kind of record. Between [`Kind::HEADER`] and [`Kind::END`] the kinds are the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(pub(crate) u16);

impl Kind {
    /// [`Identity`].
    const HEADER: Self = Self(0);
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

/// Length of a record's head, in bytes.
const HEAD_BYTES: usize = size_of::<Head>();

impl Head {
    fn sum(&self, payload: &[u8]) -> u32 {
        let bare = Self { checksum: U32::ZERO, ..*self };
        !crc32(crc32(!0, bare.as_bytes()), payload)
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
}

impl Identity {
    /// The identity of a device model.
    pub(crate) const fn new(vendor: u16, device: u16, version: u32) -> Self {
        Self { vendor: U16::new(vendor), device: U16::new(device), version: U32::new(version) }
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
    /// CRC-32 of these bytes.
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

    fn add(&mut self, record: &[u8]) {
        self.bytes += usize_as_u64(record.len());
        self.records += 1;
        self.crc = crc32(self.crc, record);
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

    fn push(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Rule> {
        let length = u32::try_from(payload.len()).map_err(|_| Rule::ImageRecord)?;
        let mut head = Head {
            magic: U32::new(MAGIC),
            version: U16::new(VERSION),
            kind: U16::new(kind.0),
            sequence: U32::new(self.sum.records),
            length: U32::new(length),
            checksum: U32::ZERO,
            reserved: U32::ZERO,
        };
        head.checksum = U32::new(head.sum(payload));
        self.unsent.reserve(HEAD_BYTES + payload.len(), GFP_KERNEL).map_err(|_| Rule::NoMemory)?;
        let start = self.unsent.len();
        // The space is there, so a record is in the stream as a whole or not at all.
        self.unsent
            .extend_from_slice(head.as_bytes(), GFP_KERNEL)
            .and_then(|()| self.unsent.extend_from_slice(payload, GFP_KERNEL))
            .map_err(|_| Rule::NoMemory)?;
        self.sum.add(self.unsent.get(start..).unwrap_or_default());
        Ok(())
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

    /// Copies what can be sent into the window, and gives its length. It stays to be sent until [`Writer::sent`].
    pub(crate) fn stage(&self, window: &mut [u8]) -> usize {
        let bytes = self.unsent.len().min(window.len());
        if let (Some(to), Some(from)) = (window.get_mut(..bytes), self.unsent.get(..bytes)) {
            to.copy_from_slice(from);
        }
        bytes
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

    /// Takes in a piece of the stream; `check` decides on the payload of a part.
    ///
    /// # Errors
    ///
    /// The rule that the stream breaks, or [`Rule::NoMemory`]. The piece was not taken then: the reader is what it was.
    pub(crate) fn feed(
        &mut self,
        piece: &[u8],
        identity: &Identity,
        parts: &[Part],
        check: impl Fn(Kind, &[u8]) -> Result<(), Rule>,
    ) -> Result<(), Rule> {
        let before = (self.partial.len(), self.records.len(), self.sum, self.ended);
        let mut used = 0;
        let fed = self
            .partial
            .extend_from_slice(piece, GFP_KERNEL_ACCOUNT)
            .map_err(|_| Rule::NoMemory)
            .and_then(|()| {
                while let Some(bytes) = self.take_record(used, identity, parts, &check)? {
                    used += bytes;
                }
                Ok(())
            });
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
        check: impl Fn(Kind, &[u8]) -> Result<(), Rule>,
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
        // A device that is reset in pre-copy, as by a guest that reboots, is saved from the start again. All that has come by
        // then is a header.
        if self.sum.records == 1 && head.kind.get() == Kind::HEADER.0 {
            self.sum = Sum::ZERO;
        }
        let (kind, expected, max_bytes) = self.expect(parts);
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
        if head.sum(payload) != head.checksum.get() {
            return Err(Rule::ImageChecksum);
        }
        match kind {
            Kind::HEADER => check_identity(payload, identity)?,
            Kind::END => {
                if payload != self.sum.totals().as_bytes() {
                    return Err(Rule::ImageRecord);
                }
                self.ended = true;
            }
            kind => {
                check(kind, payload)?;
                let mut kept = KVVec::new();
                kept.extend_from_slice(payload, GFP_KERNEL_ACCOUNT)
                    .and_then(|()| {
                        self.records.push(Record { kind, payload: kept }, GFP_KERNEL_ACCOUNT)
                    })
                    .map_err(|_| Rule::NoMemory)?;
            }
        }
        let record_bytes = HEAD_BYTES + length;
        self.sum.add(bytes.get(..record_bytes).unwrap_or_default());
        Ok(Some(record_bytes))
    }

    /// The kind, sequence number and largest payload of the record that must come next.
    fn expect(&self, parts: &[Part]) -> (Kind, u32, usize) {
        let (kind, max_bytes) = match (self.sum.records, parts.get(self.records.len())) {
            (0, _) => (Kind::HEADER, size_of::<Identity>()),
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
    if (identity.vendor, identity.device) != (own.vendor, own.device) {
        return Err(Rule::ImageDevice);
    }
    if identity.version != own.version {
        return Err(Rule::ImageVersion);
    }
    Ok(())
}
