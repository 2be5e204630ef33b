// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The region: every access that is not one of its own is refused by its rule, and changes nothing.

use std::process::ExitCode;

use cases::fault::NoMemory;
use cases::guest;
use cases::refusal::Refusal;
use cases::session::{Session, offset_of};
use migscope_abi::region::{Direction, Field, HEADER_BYTES, Layout, Op, STRUCT_BYTES};
use migscope_abi::rule::Rule;
use migscope_abi::state::State;

fn main() -> ExitCode {
    guest::run(&[
        ("the_driver_refuses_exactly_what_the_layout_refuses", refuses_what_the_layout_refuses),
        ("a_register_takes_its_native_width_only", native_width_only),
        ("a_register_takes_its_native_alignment_only", native_alignment_only),
        ("an_access_ends_inside_its_window", ends_inside),
        ("an_offset_that_overflows_is_out_of_bounds", overflow),
        ("a_read_only_field_is_not_written", read_only),
        ("a_write_only_field_is_not_read", write_only),
        ("reserved_reads_as_zero_and_ignores_writes", reserved),
        ("data_is_read_while_saving_only", data_while_saving),
        ("data_is_written_while_resuming_only", data_while_resuming),
        ("data_is_not_read_before_data_offset_nor_past_data_size", not_staged),
        ("data_size_is_written_while_resuming_only_and_within_the_window", data_size),
        ("a_dirty_query_is_made_while_saving_only", query_while_saving),
        ("pending_bytes_reads_as_zero_unless_saving", pending_bytes),
        ("data_offset_and_data_size_read_the_same_until_the_buffer_is_ended", staged_once),
        ("data_is_read_in_any_width_and_alignment", any_width),
        ("an_access_whose_buffer_is_not_there_changes_nothing", bad_buffer),
    ])
}

const STATES: [State; 5] =
    [State::Stopped, State::Running, State::StopAndCopy, State::PreCopy, State::Resuming];
const REGISTERS: [Field; 9] = [
    Field::DeviceState,
    Field::Reserved,
    Field::PendingBytes,
    Field::DataOffset,
    Field::DataSize,
    Field::StartPfn,
    Field::PageSize,
    Field::TotalPfns,
    Field::CopiedPfns,
];

/// Every offset of the struct with every width up to 16 bytes, both ways: wherever `Layout::locate` finds a rule broken the
/// driver names the same rule, and the field that the access began in. What `locate` lets pass is tested field by field.
fn refuses_what_the_layout_refuses() {
    let mut session = Session::first();
    let layout = session.layout();
    for offset in 0..STRUCT_BYTES + 16 {
        for bytes in 1..=16 {
            for op in Op::ALL {
                if let Err(rule) = layout.locate(offset, bytes, op) {
                    let refusal = expect(&session, rule, offset, bytes, op);
                    let field = layout.field_at(offset).name();
                    assert_eq!(refusal.field, field, "{} of {bytes} at {offset:#x}", op.name());
                }
            }
        }
    }
}

fn expect(session: &Session, rule: Rule, offset: u64, bytes: u64, op: Op) -> Refusal {
    let length = usize::try_from(bytes).expect("a small length");
    let what = format!("{} of {bytes} bytes at {offset:#x}", op.name());
    let refusal = match op {
        Op::Read => session.refusal(&what, |session| session.read(offset, length)),
        Op::Write => session.refusal(&what, |session| session.write(offset, &vec![0; length])),
    };
    assert_eq!(refusal.rule, rule, "{what}: refused by another rule");
    refusal
}

fn native_width_only() {
    for state in STATES {
        let session = Session::first_in(state);
        for field in REGISTERS {
            let (offset, width) = field.register().expect("a register");
            for bytes in [1, 2, 4, 8].into_iter().filter(|bytes| *bytes != width) {
                for op in Op::ALL {
                    let at_the_end = offset + bytes > STRUCT_BYTES;
                    let rule = if at_the_end { Rule::OutOfBounds } else { Rule::FieldWidth };
                    expect(&session, rule, offset, bytes, op);
                }
            }
        }
    }
}

fn native_alignment_only() {
    let session = Session::first();
    for field in REGISTERS {
        let (offset, width) = field.register().expect("a register");
        for op in Op::ALL {
            let outside = offset + 1 + width > STRUCT_BYTES;
            let rule = if outside { Rule::OutOfBounds } else { Rule::Misaligned };
            expect(&session, rule, offset + 1, width, op);
        }
    }
}

fn ends_inside() {
    let mut session = Session::first();
    let layout = session.layout();
    let (data, bitmap, end) = (layout.data_offset(), layout.bitmap_offset(), layout.region_bytes());
    for op in Op::ALL {
        for (offset, bytes) in [
            // Between the struct and the data window.
            (STRUCT_BYTES, 4),
            (STRUCT_BYTES - 4, 8),
            (HEADER_BYTES - 8, 8),
            // Over the start of a window, and from one window into the next.
            (data - 4, 8),
            (bitmap - 4, 8),
            // Over the end of the region, at it, and after it.
            (end - 4, 8),
            (end, 1),
            (end + 0x1000, 8),
        ] {
            expect(&session, Rule::OutOfBounds, offset, bytes, op);
        }
    }
}

fn overflow() {
    // The region's place in the device's file has 40 bits, so larger offsets are another region's; VFIO itself refuses sums
    // that do not fit. The largest that can arrive here:
    let session = Session::first();
    for offset in [(1 << 40) - 1, (1 << 40) - 8] {
        expect(&session, Rule::OutOfBounds, offset, 8, Op::Read);
        expect(&session, Rule::OutOfBounds, offset, 8, Op::Write);
    }
    let largest = Layout { data_bytes: u32::MAX, bitmap_bytes: u32::MAX };
    assert_eq!(largest.locate(u64::MAX, 8, Op::Read), Err(Rule::OutOfBounds));
    assert!(session.read(u64::MAX - 4, 8).is_err());
}

fn read_only() {
    for state in STATES {
        let mut session = Session::first();
        let bitmap = session.layout().bitmap_offset();
        session.bring_to(state);
        for field in [Field::PendingBytes, Field::DataOffset, Field::CopiedPfns] {
            assert_eq!(field.direction(), Direction::ReadOnly);
            session.refuses(Rule::ReadOnly, field.name(), |session| session.put(field, 1));
        }
        session.refuses(Rule::ReadOnly, "bitmap", |session| session.write(bitmap, &[0; 8]));
    }
}

fn write_only() {
    for state in STATES {
        let session = Session::first_in(state);
        for field in [Field::StartPfn, Field::PageSize, Field::TotalPfns] {
            assert_eq!(field.direction(), Direction::WriteOnly);
            session.refuses(Rule::WriteOnly, field.name(), |session| session.get(field));
        }
    }
}

fn reserved() {
    let session = Session::first();
    let offset = offset_of(Field::Reserved);
    assert_eq!(session.write(offset, &[0xff; 4]).expect("it takes a write"), 4);
    assert_eq!(session.read(offset, 4).expect("it can be read"), [0; 4]);
}

fn data_while_saving() {
    for state in [State::Stopped, State::Running, State::Resuming] {
        let session = Session::first_in(state);
        session.refuses(Rule::NotSaving, state.name(), |session| session.read(HEADER_BYTES, 8));
    }
}

fn data_while_resuming() {
    for state in [State::Stopped, State::Running, State::StopAndCopy, State::PreCopy] {
        let session = Session::first_in(state);
        session.refuses(Rule::NotResuming, state.name(), |session| {
            session.write(HEADER_BYTES, &[0; 8])
        });
    }
}

fn not_staged() {
    let session = Session::first_in(State::StopAndCopy);
    session.refuses(Rule::NotStaged, "before data_offset", |session| session.read(HEADER_BYTES, 1));
    session.get(Field::PendingBytes).expect("pending_bytes can be read");
    let offset = session.get(Field::DataOffset).expect("data is staged");
    let bytes = session.get(Field::DataSize).expect("data_size can be read");
    assert!(bytes > 0);
    let length = usize::try_from(bytes).expect("a buffer fits");
    session.refuses(Rule::NotStaged, "past the end", |session| session.read(offset + bytes, 1));
    session.refuses(Rule::NotStaged, "over the end", |session| session.read(offset, length + 1));
    assert_eq!(session.read(offset, length).expect("the buffer can be read").len(), length);
    session.get(Field::PendingBytes).expect("pending_bytes can be read");
    session.refuses(Rule::NotStaged, "an ended buffer", |session| session.read(offset, 1));
}

fn data_size() {
    for state in [State::Stopped, State::Running, State::StopAndCopy, State::PreCopy] {
        let session = Session::first_in(state);
        session.refuses(Rule::NotResuming, state.name(), |session| session.put(Field::DataSize, 8));
    }
    let mut session = Session::first();
    let window = u64::from(session.layout().data_bytes);
    session.bring_to(State::Resuming);
    for bytes in [window + 1, 1 << 32, u64::MAX] {
        session.refuses(Rule::DataSize, "beyond the window", |session| {
            session.put(Field::DataSize, bytes)
        });
    }
}

fn query_while_saving() {
    for state in [State::Stopped, State::Running, State::Resuming] {
        let session = Session::first_in(state);
        for field in [Field::StartPfn, Field::PageSize, Field::TotalPfns] {
            session.refuses(Rule::NotSaving, field.name(), |session| session.put(field, 4096));
        }
        session.refuses(Rule::NotSaving, "copied_pfns", |session| session.get(Field::CopiedPfns));
    }
}

/// QEMU asks in any state.
fn pending_bytes() {
    for state in STATES {
        let session = Session::first_in(state);
        let pending = session.get(Field::PendingBytes).expect("it can be read in any state");
        assert_eq!(pending > 0, state.is_saving(), "{}", state.name());
    }
}

fn staged_once() {
    let session = Session::first_in(State::StopAndCopy);
    let pending = session.get(Field::PendingBytes).expect("pending_bytes can be read");
    assert_eq!(session.get(Field::PendingBytes).expect("twice"), pending);
    let offset = session.get(Field::DataOffset).expect("data is staged");
    let bytes = session.get(Field::DataSize).expect("data_size can be read");
    let length = usize::try_from(bytes).expect("a buffer fits");
    let buffer = session.read(offset, length).expect("the buffer can be read");
    assert_eq!(session.get(Field::DataOffset).expect("again"), offset);
    assert_eq!(session.get(Field::DataSize).expect("again"), bytes);
    assert_eq!(session.read(offset, length).expect("again"), buffer);
    let rest = session.get(Field::PendingBytes).expect("this ends the buffer");
    assert!(rest < pending, "{rest} are pending after a buffer of {bytes}, {pending} before it");
}

fn any_width() {
    let session = Session::first_in(State::StopAndCopy);
    session.get(Field::PendingBytes).expect("pending_bytes can be read");
    let offset = session.get(Field::DataOffset).expect("data is staged");
    let length = usize::try_from(session.get(Field::DataSize).expect("data_size")).expect("fits");
    let whole = session.read(offset, length).expect("in one piece");
    for width in [1, 2, 3, 4, 7, 8] {
        let mut pieces = Vec::new();
        for at in (0..length).step_by(width) {
            let at_offset = offset + u64::try_from(at).expect("fits");
            pieces.extend(session.read(at_offset, width.min(length - at)).expect("a piece"));
        }
        assert_eq!(pieces, whole, "in pieces of {width}");
    }
}

/// A register's value that did not reach the user was not read: no buffer is over, no page is clean.
fn bad_buffer() {
    let nowhere = NoMemory::map().expect("a page without permissions");
    let mut session = Session::first_in(State::PreCopy);
    let read = |session: &Session, what: &str, offset, bytes| {
        session.refuses(Rule::BadAddress, what, |session| {
            nowhere.read(&session.device, offset, bytes)
        });
    };
    session.store(3, 16);
    session.store(8, 16);
    let first = session.pfn(0);
    session.region.ask_dirty(first, 4096, 64).expect("an answer");
    read(&session, "copied_pfns", offset_of(Field::CopiedPfns), 8);
    session.region.ask_dirty(first, 4096, 64).expect("an answer");
    let bitmap = session.get(Field::DataOffset).expect("data_offset");
    read(&session, "bitmap", bitmap, 8);
    assert_eq!(session.dirty(), [3, 8]);

    session.region.set_state(State::StopAndCopy).expect("it stops");
    let pending = session.get(Field::PendingBytes).expect("pending_bytes");
    let offset = session.get(Field::DataOffset).expect("data_offset");
    let length = usize::try_from(session.get(Field::DataSize).expect("data_size")).expect("fits");
    let buffer = session.read(offset, length).expect("data");
    read(&session, "pending_bytes", offset_of(Field::PendingBytes), 8);
    read(&session, "data", offset, length);
    assert_eq!(session.read(offset, length).expect("the same buffer"), buffer);
    assert!(session.get(Field::PendingBytes).expect("now it is over") < pending);

    session.region.set_state(State::Running).expect("a cancel");
    session
        .refuses(Rule::BadAddress, "device_state", |session| nowhere.write(&session.device, 0, 4));
    session.bring_to(State::Resuming);
    for (field, offset, bytes) in
        [(Field::DataSize, offset_of(Field::DataSize), 8), (Field::Data, HEADER_BYTES, 64)]
    {
        session.refuses(Rule::BadAddress, field.name(), |session| {
            nowhere.write(&session.device, offset, bytes)
        });
    }
}
