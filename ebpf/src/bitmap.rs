// SPDX-License-Identifier: GPL-2.0 OR MIT
//! How many bits are set in a bitmap of the process: page by page, with a bound.
#![expect(
    unsafe_code,
    reason = "the process's memory and a map's value are reached through raw pointers"
)]

use crate::maps::{PIECE, PIECE_WORDS};
use aya_ebpf::helpers::{bpf_probe_read_user_buf, generated::bpf_loop};
use core::ffi::c_void;

/// Pieces of a bitmap that are looked at: 32 MiB stand for 1 TiB in pages of 4 KiB, and take some ten milliseconds.
const MOST_PIECES: u32 = 65_536;
const PIECE_BYTES: u64 = PIECE_WORDS as u64 * 8;

/// What is looked at, and what was found.
#[repr(C)]
struct Walk {
    at: u64,
    left_bytes: u64,
    bits: u64,
    /// Pieces that could not be read.
    missing: u64,
}

/// Counts the bits that are set in the first `bits` bits at `address`; `None` for a bitmap beyond the bound.
///
/// Memory that is not resident was never written, and holds zeros; it cannot be read from here, and counts as such.
#[inline(always)]
pub(crate) fn count(address: u64, bits: u64) -> Option<u64> {
    look(address, bits).map(|walk| walk.bits)
}

/// The same of a bitmap that was just written: `None` also if any of it cannot be read.
#[inline(always)]
pub(crate) fn count_written(address: u64, bits: u64) -> Option<u64> {
    look(address, bits).filter(|walk| walk.missing == 0).map(|walk| walk.bits)
}

#[inline(always)]
fn look(address: u64, bits: u64) -> Option<Walk> {
    let left_bytes = bits.div_ceil(64).saturating_mul(8);
    let pieces = u32::try_from(left_bytes.div_ceil(PIECE_BYTES)).ok()?;
    if pieces > MOST_PIECES {
        return None;
    }
    let mut walk = Walk { at: address, left_bytes, bits: 0, missing: 0 };
    let callback = count_piece as extern "C" fn(u64, *mut Walk) -> i64;
    // SAFETY: the helper calls `count_piece` with its own count and `walk`, which outlives the call, and with nothing else.
    let done =
        unsafe { bpf_loop(pieces, callback as *mut c_void, (&raw mut walk).cast::<c_void>(), 0) };
    (done >= 0).then_some(walk)
}

/// Counts one piece, or what is left.
#[inline(never)]
extern "C" fn count_piece(_index: u64, walk: *mut Walk) -> i64 {
    // SAFETY: `walk` is what `count` gave to the helper: alive, aligned, and nobody else's.
    let walk = unsafe { &mut *walk };
    let Some(piece) = PIECE.get_ptr_mut(0) else {
        return 1;
    };
    // SAFETY: this CPU's own value of a per-CPU map. Two programs that count at the same time on one CPU do not exist: all that do are
    // probes of functions, of which the kernel runs one at a time on a CPU (`trace_call_bpf`, `bpf_prog_active`).
    let piece = unsafe { &mut *piece };
    let bytes = walk.left_bytes.min(PIECE_BYTES) as usize;
    if bytes < PIECE_WORDS * 8 {
        *piece = [0; PIECE_WORDS];
    }
    // SAFETY: `piece` is that long, and any bytes are numbers.
    let room = unsafe { core::slice::from_raw_parts_mut(piece.as_mut_ptr().cast::<u8>(), bytes) };
    // SAFETY: the helper takes any address, fails where there is nothing to read, and writes no more than `room` is long.
    let read = unsafe { bpf_probe_read_user_buf(walk.at as *const u8, room) };
    if read.is_ok() {
        let mut bits = 0_u64;
        for word in piece.iter() {
            bits = bits.wrapping_add(ones(*word));
        }
        walk.bits = walk.bits.wrapping_add(bits);
    } else {
        walk.missing = walk.missing.wrapping_add(1);
    }
    walk.at = walk.at.wrapping_add(PIECE_BYTES);
    walk.left_bytes = walk.left_bytes.saturating_sub(PIECE_BYTES);
    0
}

/// The bits that are set, in sums of twos, fours and eights (BPF has no instruction for it).
#[inline(always)]
fn ones(word: u64) -> u64 {
    let twos = word.wrapping_sub((word >> 1) & 0x5555_5555_5555_5555);
    let fours = (twos & 0x3333_3333_3333_3333).wrapping_add((twos >> 2) & 0x3333_3333_3333_3333);
    let eights = fours.wrapping_add(fours >> 4) & 0x0f0f_0f0f_0f0f_0f0f;
    eights.wrapping_mul(0x0101_0101_0101_0101) >> 56
}
