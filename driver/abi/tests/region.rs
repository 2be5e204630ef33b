// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Which access hits what: a table for the struct, properties for everything else.

use migscope_abi::region::{Direction, Field, Layout, Op, Place, HEADER_BYTES};
use migscope_abi::rule::Rule;
use proptest::prelude::*;

const LAYOUT: Layout = Layout { data_bytes: 0x10000, bitmap_bytes: 0x2000 };

/// The struct of the RFC, byte for byte: field, offset, width, r and w as the text gives them.
const STRUCT: [(Field, u64, u64, &str); 9] = [
    (Field::DeviceState, 0x00, 4, "rw"),
    (Field::Reserved, 0x04, 4, "rw"),
    (Field::PendingBytes, 0x08, 8, "r"),
    (Field::DataOffset, 0x10, 8, "r"),
    (Field::DataSize, 0x18, 8, "rw"),
    (Field::StartPfn, 0x20, 8, "w"),
    (Field::PageSize, 0x28, 8, "w"),
    (Field::TotalPfns, 0x30, 8, "w"),
    (Field::CopiedPfns, 0x38, 8, "r"),
];

#[test]
fn registers_take_their_native_width_and_direction_only() {
    for (field, offset, width, directions) in STRUCT {
        for (op, letter, refusal) in
            [(Op::Read, 'r', Rule::WriteOnly), (Op::Write, 'w', Rule::ReadOnly)]
        {
            let expected =
                if directions.contains(letter) { Ok(Place { field, at: 0 }) } else { Err(refusal) };
            assert_eq!(LAYOUT.locate(offset, width, op), expected, "{field:?} {op:?}");
            for bytes in (1..=8).filter(|bytes| *bytes != width && offset + bytes <= 64) {
                assert_eq!(LAYOUT.locate(offset, bytes, op), Err(Rule::FieldWidth), "{field:?}");
            }
        }
    }
}

#[test]
fn offsets_where_no_register_starts_are_misaligned() {
    for offset in (0..64).filter(|offset| !STRUCT.iter().any(|row| row.1 == *offset)) {
        assert_eq!(LAYOUT.locate(offset, 1, Op::Read), Err(Rule::Misaligned), "{offset}");
    }
}

#[test]
fn every_byte_of_a_field_is_the_fields() {
    for (field, offset, width, _) in STRUCT {
        for byte in offset..offset + width {
            assert_eq!(LAYOUT.field_at(byte), field, "{byte:#x}");
        }
    }
    let (data, bitmap, end) = (LAYOUT.data_offset(), LAYOUT.bitmap_offset(), LAYOUT.region_bytes());
    let bytes = [data, bitmap - 1, bitmap, end - 1, 64, data - 1, end, u64::MAX];
    assert_eq!(
        bytes.map(|byte| LAYOUT.field_at(byte).name()),
        ["data", "data", "bitmap", "bitmap", "none", "none", "none", "none"]
    );
}

#[test]
fn nothing_lies_between_the_struct_and_the_window() {
    assert_eq!(LAYOUT.locate(64, 1, Op::Read), Err(Rule::OutOfBounds));
    assert_eq!(LAYOUT.locate(60, 8, Op::Read), Err(Rule::OutOfBounds));
    assert_eq!(LAYOUT.locate(HEADER_BYTES - 1, 2, Op::Read), Err(Rule::OutOfBounds));
}

#[test]
fn the_bitmap_is_the_drivers_word() {
    let offset = LAYOUT.bitmap_offset();
    assert_eq!(LAYOUT.locate(offset, 1, Op::Write), Err(Rule::ReadOnly));
    assert_eq!(LAYOUT.locate(offset, 1, Op::Read), Ok(Place { field: Field::Bitmap, at: 0 }));
    assert_eq!(Field::Bitmap.direction(), Direction::ReadOnly);
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![Just(Op::Read), Just(Op::Write)]
}

proptest! {
    #[test]
    fn whatever_is_located_lies_inside_its_window(
        offset in prop_oneof![0..0x14000u64, any::<u64>()],
        bytes in prop_oneof![0..0x14000u64, any::<u64>()],
        op in op(),
    ) {
        if let Ok(Place { field, at }) = LAYOUT.locate(offset, bytes, op) {
            let end = u128::from(at) + u128::from(bytes);
            prop_assert_eq!(LAYOUT.field_at(offset), field);
            match field {
                Field::Data => prop_assert!(
                    offset == HEADER_BYTES + at && end <= u128::from(LAYOUT.data_bytes)),
                Field::Bitmap => prop_assert!(
                    offset == LAYOUT.bitmap_offset() + at && end <= u128::from(LAYOUT.bitmap_bytes)),
                _ => prop_assert_eq!(field.register(), Some((offset, bytes))),
            }
        }
    }

    #[test]
    fn every_byte_range_of_a_window_can_be_read(at in 0..0x10000u64, bytes in 1..0x10000u64) {
        let fits = at + bytes <= u64::from(LAYOUT.data_bytes);
        let located = LAYOUT.locate(HEADER_BYTES + at, bytes, Op::Read);
        prop_assert_eq!(located.is_ok(), fits);
    }
}
