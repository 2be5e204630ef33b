// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is written is read, and nothing else is.

use super::*;
use proptest::prelude::*;
use zerocopy::little_endian::U64;

fn frames() -> impl Strategy<Value = Frame> {
    let bytes = prop::collection::vec(any::<u8>(), 0..2000);
    prop_oneof![
        any::<(u64, u64, u64)>().prop_map(|(iova, memory, page)| Frame::Hello(Hello {
            iova: U64::new(iova),
            memory_bytes: U64::new(memory),
            page_bytes: U64::new(page),
        })),
        Just(Frame::Ready),
        Just(Frame::PassEnd),
        Just(Frame::End),
        (any::<u64>(), 1usize..4, any::<u8>()).prop_map(|(first_pfn, pages, byte)| {
            Frame::Pages(Pages { first_pfn, content: vec![byte; pages * 4096] })
        }),
        bytes.prop_map(Frame::DeviceData),
        any::<(u64, u64)>().prop_map(|(a, b)| Frame::Running(Running {
            boot_id: None,
            end_at_ns: a,
            load_ns: b,
            start_ns: a,
            running_at_ns: b,
        })),
    ]
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_frame(&mut bytes, frame).unwrap();
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read(frame in frames()) {
        let bytes = encoded(&frame);
        prop_assert_eq!(read_frame(&mut bytes.as_slice()).unwrap(), frame);
    }

    #[test]
    fn a_frame_with_any_byte_changed_is_refused(frame in frames(), at: prop::sample::Index, with in 1u8..) {
        let mut bytes = encoded(&frame);
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        prop_assert!(read_frame(&mut bytes.as_slice()).is_err());
    }

    #[test]
    fn a_frame_cut_short_is_refused(frame in frames(), at: prop::sample::Index) {
        let mut bytes = encoded(&frame);
        bytes.truncate(at.index(bytes.len()));
        prop_assert!(matches!(read_frame(&mut bytes.as_slice()), Err(StreamError::Truncated)));
    }

    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u16..12) {
        // A good start, or nearly all cases would end at the magic.
        if bytes.len() > 8 {
            bytes[..4].copy_from_slice(&MAGIC);
            bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
            bytes[6..8].copy_from_slice(&kind.to_le_bytes());
        }
        let _any = read_frame(&mut bytes.as_slice());
        let _any = Frame::parse(kind, bytes);
    }
}

#[test]
fn a_length_beyond_its_limit_is_refused_before_a_byte_is_read() {
    let header = Header {
        magic: MAGIC,
        version: U16::new(VERSION),
        kind: U16::new(4),
        payload_bytes: U32::new(u32::MAX),
        crc32: U32::new(0),
    };
    let error = read_frame(&mut header.as_bytes()).unwrap_err();
    assert!(matches!(error, StreamError::TooLong { bytes: u32::MAX, .. }), "{error}");
}

#[test]
fn another_version_is_refused_by_name() {
    let mut bytes = encoded(&Frame::Ready);
    bytes[4] = 2;
    assert!(matches!(read_frame(&mut bytes.as_slice()), Err(StreamError::Version(2))));
}

#[test]
fn a_farewell_is_the_peers_error() {
    let bytes = encoded(&Frame::Failed("no device".to_owned()));
    let error = read_frame(&mut bytes.as_slice()).unwrap_err();
    assert_eq!(error.to_string(), "the other end gave up: no device");
}
