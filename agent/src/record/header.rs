// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The head of a recording: where and when it was made, and how its clock is to be read.

use super::{
    bytes::{Bytes, put, put_bytes},
    error::RecordError,
};
use crate::{clock::monotonic_ns, host::Paths};
use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How every recording begins.
const MAGIC: &[u8; 8] = b"migscope";
/// The format that is written, and the only one that is read.
pub(super) const MAJOR: u16 = 1;
/// Grows with each addition to it.
const MINOR: u16 = 0;
/// Most bytes of fields. Names of hosts and kernels have 64 bytes at most (`uname(2)`).
const FIELDS_BYTES: usize = 4096;
/// Magic, versions and length.
const FIXED_BYTES: usize = 16;
const CRC_BYTES: usize = 4;

/// Most bytes of a header.
pub(super) const HEADER_BYTES: usize = FIXED_BYTES + FIELDS_BYTES + CRC_BYTES;

/// The fields, by their tags.
mod tag {
    pub(super) const CREATED_UNIX_NS: u64 = 1;
    pub(super) const CREATED_MONOTONIC_NS: u64 = 2;
    pub(super) const HOST: u64 = 3;
    pub(super) const KERNEL: u64 = 4;
    pub(super) const MIGSCOPE: u64 = 5;
    pub(super) const BOOT_ID: u64 = 6;
    pub(super) const PART: u64 = 7;
}

/// Where and when a recording was made. A text that is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Wall clock when the file was begun, in nanoseconds since 1970 (UTC).
    pub created_unix_ns: u64,
    /// `CLOCK_MONOTONIC` at that moment, in nanoseconds.
    pub created_monotonic_ns: u64,
    /// Name of the host.
    pub host: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Version of migscope that wrote it.
    pub migscope: String,
    /// `/proc/sys/kernel/random/boot_id`: times of two recordings can be compared when it is the same.
    pub boot_id: String,
    /// Number of this file in its recording, from 0: how often it had been rotated.
    pub part: u64,
}

impl Header {
    /// The header of file `part` of a recording that begins on this host now.
    pub fn here(paths: &Paths, part: u64) -> Self {
        let name = rustix::system::uname();
        let boot_id = fs::read_to_string(paths.procfs.join("sys/kernel/random/boot_id"));
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            created_unix_ns: u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX),
            created_monotonic_ns: monotonic_ns(),
            host: name.nodename().to_string_lossy().into_owned(),
            kernel: name.release().to_string_lossy().into_owned(),
            migscope: env!("CARGO_PKG_VERSION").into(),
            boot_id: boot_id.unwrap_or_default().trim().into(),
            part,
        }
    }

    /// The wall clock at a moment of the recording (`CLOCK_MONOTONIC`, nanoseconds), as it went when the file was begun: a clock that
    /// was set later shows another time. `None` for a moment that no clock can show.
    pub fn wall_clock(&self, monotonic_ns: u64) -> Option<SystemTime> {
        let created = UNIX_EPOCH.checked_add(Duration::from_nanos(self.created_unix_ns))?;
        match monotonic_ns.checked_sub(self.created_monotonic_ns) {
            Some(later_ns) => created.checked_add(Duration::from_nanos(later_ns)),
            None => {
                created.checked_sub(Duration::from_nanos(self.created_monotonic_ns - monotonic_ns))
            }
        }
    }

    /// The header as it stands in the file. Texts are cut to what has room.
    pub(super) fn write(&self) -> Vec<u8> {
        let Self { created_unix_ns, created_monotonic_ns, host, kernel, migscope, boot_id, part } =
            self;
        let mut fields = Vec::new();
        for (tag, number) in [
            (tag::CREATED_UNIX_NS, created_unix_ns),
            (tag::CREATED_MONOTONIC_NS, created_monotonic_ns),
            (tag::PART, part),
        ] {
            let mut body = Vec::new();
            put(&mut body, *number);
            put(&mut fields, tag);
            put_bytes(&mut fields, &body);
        }
        for (tag, text) in [
            (tag::HOST, host),
            (tag::KERNEL, kernel),
            (tag::MIGSCOPE, migscope),
            (tag::BOOT_ID, boot_id),
        ] {
            let end = text.floor_char_boundary(TEXT_BYTES);
            put(&mut fields, tag);
            put_bytes(&mut fields, text.get(..end).unwrap_or_default().as_bytes());
        }
        let length = u32::try_from(fields.len()).expect("seven fields of at most 512 bytes");
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&MAJOR.to_le_bytes());
        out.extend_from_slice(&MINOR.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend(fields);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header from the first bytes of a file, [`HEADER_BYTES`] of them or all that there are. Gives its length in bytes too.
    ///
    /// # Errors
    ///
    /// [`RecordError`]: no recording, another format, damaged, or cut off.
    pub(super) fn read(file: &[u8]) -> Result<(Self, usize), RecordError> {
        let known = file.len().min(MAGIC.len());
        if file.is_empty() || file.get(..known) != MAGIC.get(..known) {
            return Err(RecordError::NotARecording);
        }
        let cut_off = || RecordError::CutOff { at: 0, after_ns: None };
        let fixed = file.first_chunk::<FIXED_BYTES>().ok_or_else(cut_off)?;
        let [_, _, _, _, _, _, _, _, major0, major1, _, _, length @ ..] = *fixed;
        let found = u16::from_le_bytes([major0, major1]);
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        let whole = (length <= FIELDS_BYTES).then_some(FIXED_BYTES + length);
        // A version is told even when the rest of the header is not as it is known here.
        let refused = || match found {
            MAJOR => RecordError::Header,
            found => RecordError::Version { found, known: MAJOR },
        };
        let whole = whole.ok_or_else(refused)?;
        let (covered, rest) = file.split_at_checked(whole).ok_or_else(cut_off)?;
        let crc = rest.first_chunk::<CRC_BYTES>().ok_or_else(cut_off)?;
        if crc32fast::hash(covered) != u32::from_le_bytes(*crc) || found != MAJOR {
            return Err(refused());
        }
        let fields = covered.get(FIXED_BYTES..).ok_or(RecordError::Header)?;
        let header = Self::fields(Bytes(fields)).map_err(|_bad| RecordError::Header)?;
        Ok((header, whole + CRC_BYTES))
    }

    fn fields(mut fields: Bytes<'_>) -> Result<Self, super::bytes::Bad> {
        let mut header = Self::default();
        while !fields.is_empty() {
            let tag = fields.number()?;
            let length = fields.number()?;
            let body = fields.take(length)?;
            let text = || String::from_utf8_lossy(body).into_owned();
            match tag {
                tag::CREATED_UNIX_NS => header.created_unix_ns = Bytes(body).number()?,
                tag::CREATED_MONOTONIC_NS => header.created_monotonic_ns = Bytes(body).number()?,
                tag::HOST => header.host = text(),
                tag::KERNEL => header.kernel = text(),
                tag::MIGSCOPE => header.migscope = text(),
                tag::BOOT_ID => header.boot_id = text(),
                tag::PART => header.part = Bytes(body).number()?,
                _ => {}
            }
        }
        Ok(header)
    }
}

/// Most bytes of a text in a header.
const TEXT_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            created_unix_ns: 1_700_000_000_000_000_000,
            created_monotonic_ns: 5_000_000_000,
            host: "a-host".into(),
            kernel: "7.3.4".into(),
            migscope: "0.1.0".into(),
            boot_id: "3c0b".into(),
            part: 3,
        }
    }

    #[test]
    fn a_header_comes_back_whatever_follows_it() {
        let mut bytes = header().write();
        let length = bytes.len();
        bytes.extend([7; 99]);
        assert_eq!(Header::read(&bytes).expect("whole"), (header(), length));
    }

    #[test]
    fn a_later_major_version_is_refused_by_its_number() {
        let mut bytes = header().write();
        bytes[8] = 2;
        let refusal = Header::read(&bytes).expect_err("unknown");
        assert!(matches!(refusal, RecordError::Version { found: 2, known: 1 }), "{refusal}");
    }

    #[test]
    fn a_later_minor_version_and_its_fields_are_read_over() {
        let mut bytes = header().write();
        let length = bytes.len() - CRC_BYTES;
        bytes.truncate(length);
        bytes[10] = 9;
        bytes.extend([100, 2, 0xff, 0xff]);
        let fields = u32::try_from(bytes.len() - FIXED_BYTES).expect("short");
        bytes[12..16].copy_from_slice(&fields.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend(crc.to_le_bytes());
        assert_eq!(Header::read(&bytes).expect("whole").0, header());
    }

    #[test]
    fn every_flipped_bit_is_seen_and_every_cut_is_told() {
        let good = header().write();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::read(&bytes).is_err(), "bit {bit}");
        }
        for length in 1..good.len() {
            let cut = Header::read(&good[..length]).expect_err("cut");
            assert!(matches!(cut, RecordError::CutOff { at: 0, after_ns: None }), "{cut}");
        }
    }

    #[test]
    fn times_before_and_after_the_beginning_have_a_wall_clock() {
        let header = header();
        let created = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(header.wall_clock(7_000_000_000), Some(created + Duration::from_secs(2)));
        assert_eq!(header.wall_clock(4_000_000_000), Some(created - Duration::from_secs(1)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), begun: bool) {
            if begun {
                bytes.splice(0..0, *b"migscope\x01\0\0\0");
            }
            let _ = Header::read(&bytes);
        }
    }
}
