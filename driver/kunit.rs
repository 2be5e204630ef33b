// SPDX-License-Identifier: GPL-2.0
//! KUnit suites over [`abi`](crate::abi): the rules that stand between user space and the driver, tried by the compiler
//! and with the flags that the module itself is built with.
//!
//! A suite runs when the module is loaded into a kernel with `CONFIG_KUNIT=y`, and is not compiled for any other. `abi`
//! is a crate of its own elsewhere and knows no kernel, so its suites are here; those of the driver's own files are in
//! them.

use kernel::prelude::*;

#[kunit_tests(vfio_mediate_state)]
mod state {
    use crate::abi::{
        rule::Rule,
        state::State, //
    };

    /// From a state, to 0 to 4. `x` is a forbidden arc.
    const ARCS: [(State, &[u8; 5]); 5] = [
        (State::Stopped, b"...x."),
        (State::Running, b"....."),
        (State::StopAndCopy, b"...xx"),
        (State::PreCopy, b"....x"),
        (State::Resuming, b"..xx."),
    ];

    #[test]
    fn arcs_are_as_the_table_says() {
        for (from, row) in ARCS {
            for (to, mark) in (0_u32..).zip(row) {
                let next = from.next(to).map(|state| state as u32);
                assert_eq!(next, if *mark == b'.' { Ok(to) } else { Err(Rule::ForbiddenArc) });
            }
        }
    }

    #[test]
    fn nothing_leads_to_error_or_out_of_it() {
        for state in State::ALL {
            assert!(state.next(State::Error as u32).is_err());
            assert!(State::Error.next(state as u32).is_err());
        }
    }

    #[test]
    fn reserved_bits_are_refused() {
        for state in State::ALL {
            for bit in 3..u32::BITS {
                assert_eq!(state.next(1 | 1 << bit), Err(Rule::ReservedBits));
            }
        }
    }
}

#[kunit_tests(vfio_mediate_region)]
mod region {
    use crate::abi::{
        region::{
            Field,
            Layout,
            Op, //
        },
        rule::Rule, //
    };

    const LAYOUT: Layout = Layout { data_bytes: 65536, bitmap_bytes: 4096 };

    #[test]
    fn registers_are_hit_at_their_place_and_in_their_width_only() {
        for field in Field::ALL {
            let Some((at, width)) = field.register() else { continue };
            let hit = [Op::Read, Op::Write].map(|op| LAYOUT.locate(at, width, op));
            assert!(hit.into_iter().flatten().count() > 0);
            assert!(hit.into_iter().flatten().all(|place| place.field == field && place.at == 0));
            for op in [Op::Read, Op::Write] {
                assert_eq!(LAYOUT.locate(at, width - 1, op), Err(Rule::FieldWidth));
                assert_eq!(LAYOUT.locate(at + 1, 1, op), Err(Rule::Misaligned));
            }
        }
    }

    #[test]
    fn windows_end_where_the_next_thing_begins() {
        let (data, bitmap) = (LAYOUT.data_offset(), LAYOUT.bitmap_offset());
        let place = |offset, bytes| {
            LAYOUT.locate(offset, bytes, Op::Read).map(|place| (place.field, place.at))
        };
        assert_eq!(place(data, 65536), Ok((Field::Data, 0)));
        assert_eq!(place(bitmap - 1, 1), Ok((Field::Data, 65535)));
        assert_eq!(place(bitmap - 1, 2), Err(Rule::OutOfBounds));
        assert_eq!(place(bitmap, 4096), Ok((Field::Bitmap, 0)));
        assert_eq!(place(bitmap, 4097), Err(Rule::OutOfBounds));
        assert_eq!(place(data - 1, 2), Err(Rule::OutOfBounds));
        assert_eq!(LAYOUT.locate(bitmap, 8, Op::Write), Err(Rule::ReadOnly));
    }

    #[test]
    fn no_offset_and_no_length_wrap_around() {
        for offset in [0, 64, LAYOUT.data_offset(), LAYOUT.region_bytes(), u64::MAX] {
            for bytes in [0, u64::MAX - offset, (u64::MAX - offset).wrapping_add(1), u64::MAX] {
                if offset != u64::MAX || bytes != 1 {
                    assert_eq!(LAYOUT.locate(offset, bytes, Op::Read), Err(Rule::OutOfBounds));
                }
            }
        }
    }
}

#[kunit_tests(vfio_mediate_query)]
mod query {
    use crate::abi::{
        dirty::Query,
        rule::Rule, //
    };

    #[test]
    fn a_page_is_a_power_of_two_from_4096_bytes_on() {
        for page_bytes in [0, 1, 2048, 4095, 4097, 12288, u64::MAX] {
            assert_eq!(Query::new(0, page_bytes, 1).err(), Some(Rule::PageSize));
        }
        for shift in 12..u64::BITS {
            let query = Query { start_pfn: 0, page_shift: shift, pages: 1 };
            assert_eq!(Query::new(0, 1 << shift, 1), Ok(query));
        }
    }

    #[test]
    fn the_last_byte_has_an_address() {
        for shift in 12..u64::BITS {
            let pages = 1 << (u64::BITS - shift);
            assert!(Query::new(0, 1 << shift, pages).is_ok());
            assert!(Query::new(pages - 1, 1 << shift, 1).is_ok());
            assert_eq!(Query::new(1, 1 << shift, pages).err(), Some(Rule::RangeOverflow));
            assert_eq!(Query::new(pages, 1 << shift, 1).err(), Some(Rule::RangeOverflow));
        }
        assert_eq!(Query::new(u64::MAX, 4096, 2).err(), Some(Rule::RangeOverflow));
        assert_eq!(Query::new(0, 4096, 0).err(), Some(Rule::EmptyRange));
    }
}
