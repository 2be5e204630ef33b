// SPDX-License-Identifier: GPL-2.0 OR MIT
//! How many bits are set in a bitmap of the process: page by page, with a bound.
//!
//! What is kept from page to page is in a map and not on the stack: of a map's values the verifier knows nothing, so it has seen the second
//! page once it has seen the first, and does not follow every way through all of them.
#![expect(
    unsafe_code,
    reason = "the process's memory and a map's value are reached through raw pointers"
)]

use crate::maps::{PIECE, PIECE_WORDS, WALK, Walk};
use aya_ebpf::helpers::{bpf_probe_read_user_buf, generated::bpf_loop};
use core::{ffi::c_void, hint::black_box, ptr::null_mut};

/// Pages of a bitmap that are looked at: 32 MiB stand for 1 TiB in pages of 4 KiB, and take some ten milliseconds.
const MOST_PIECES: u32 = 8192;
const PIECE_BYTES: u64 = PIECE_WORDS as u64 * 8;
/// Words that are counted at a time.
const GROUP_WORDS: usize = 8;

/// Counts the bits that are set in the first `bits` bits at `address`; `None` for a bitmap beyond the bound.
///
/// Memory that is not resident was never written, and holds zeros; it cannot be read from here, and counts as such. So that a page which is
/// there does not go with one that is not, each piece lies in one page.
#[inline(always)]
pub(crate) fn count(address: u64, bits: u64) -> Option<u64> {
    let walk = look(address, bits)?;
    // SAFETY: this CPU's own value of a per-CPU map, see `count_piece`.
    Some(unsafe { (*walk).bits })
}

/// The same of a bitmap that was just written: `None` also if any of it cannot be read.
#[inline(always)]
pub(crate) fn count_written(address: u64, bits: u64) -> Option<u64> {
    let walk = look(address, bits)?;
    // SAFETY: as in `count`.
    let walk = unsafe { &*walk };
    (walk.missing == 0).then_some(walk.bits)
}

/// Goes through the bitmap; gives what was found.
#[inline(always)]
fn look(address: u64, bits: u64) -> Option<*const Walk> {
    let bytes = bits.div_ceil(8).saturating_add(address & (PIECE_BYTES - 1));
    let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).ok()?;
    if pieces > MOST_PIECES {
        return None;
    }
    let walk = WALK.get_ptr_mut(0)?;
    // SAFETY: this CPU's own value of a per-CPU map, see `count_piece`.
    unsafe { walk.write(Walk { at: address, left_bits: bits, bits: 0, missing: 0 }) };
    let callback = count_piece as extern "C" fn(u64, *mut c_void) -> i64;
    // SAFETY: the helper calls `count_piece` with its own count and a null pointer, which it does not look at.
    let done = unsafe { bpf_loop(pieces, callback as *mut c_void, null_mut(), 0) };
    (done >= 0).then_some(walk.cast_const())
}

/// Counts what lies in one page.
#[inline(never)]
extern "C" fn count_piece(_index: u64, _nothing: *mut c_void) -> i64 {
    let (Some(piece), Some(walk)) = (PIECE.get_ptr_mut(0), WALK.get_ptr_mut(0)) else {
        return 1;
    };
    // SAFETY: this CPU's own values of two per-CPU maps. Two programs that count at the same time on one CPU do not exist: all that do are
    // probes of functions, of which the kernel runs one at a time on a CPU (`trace_call_bpf`, `bpf_prog_active`).
    let (piece, walk) = unsafe { (&mut *piece, &mut *walk) };
    let to_page_end = PIECE_BYTES - (walk.at & (PIECE_BYTES - 1));
    let whole = walk.left_bits.div_ceil(8).min(to_page_end);
    let bits = walk.left_bits.min(whole * 8);
    // Where the last bit stands. The group of words around it is read in part only.
    let last = black_box((bits.wrapping_sub(1) / 64) as usize) % PIECE_WORDS;
    let (groups, _) = piece.as_chunks_mut::<GROUP_WORDS>();
    if let Some(group) = groups.get_mut(last / GROUP_WORDS) {
        *group = [0; GROUP_WORDS];
    }
    // Once more, for a verifier that does not see what follows from the first.
    let bytes = black_box(whole).min(PIECE_BYTES) as usize;
    // SAFETY: `piece` is that long, and any bytes are numbers.
    let room = unsafe { core::slice::from_raw_parts_mut(piece.as_mut_ptr().cast::<u8>(), bytes) };
    // SAFETY: the helper takes any address, fails where there is nothing to read, and writes no more than `room` is long.
    let read = unsafe { bpf_probe_read_user_buf(walk.at as *const u8, room) };
    if read.is_ok() {
        // What stands behind the last bit is nobody's.
        if let Some(word) = piece.get_mut(last) {
            *word &= u64::MAX >> (63 - (bits.wrapping_sub(1) & 63));
        }
        let callback = count_group as extern "C" fn(u64, *mut c_void) -> i64;
        #[expect(clippy::cast_possible_truncation, reason = "there are 64")]
        let groups = (last / GROUP_WORDS + 1) as u32;
        // SAFETY: as in `look`. It fails for more turns than there are groups only.
        let _ = unsafe { bpf_loop(groups, callback as *mut c_void, null_mut(), 0) };
    } else {
        walk.missing = walk.missing.wrapping_add(1);
    }
    walk.at = walk.at.wrapping_add(whole);
    walk.left_bits = walk.left_bits.saturating_sub(bits);
    0
}

/// Counts a few words of the piece. A loop over all of them the verifier would follow turn by turn.
#[inline(never)]
extern "C" fn count_group(index: u64, _nothing: *mut c_void) -> i64 {
    let (Some(piece), Some(walk)) = (PIECE.get_ptr(0), WALK.get_ptr_mut(0)) else {
        return 1;
    };
    // SAFETY: as in `count_piece`, which waits meanwhile.
    let (piece, walk) = unsafe { (&*piece, &mut *walk) };
    let (groups, _) = piece.as_chunks::<GROUP_WORDS>();
    #[expect(clippy::cast_possible_truncation, reason = "a number of a group")]
    let index = black_box(index as usize) % (PIECE_WORDS / GROUP_WORDS);
    if let Some(group) = groups.get(index) {
        let mut bits = 0_u64;
        for word in group {
            bits = bits.wrapping_add(ones(*word));
        }
        walk.bits = walk.bits.wrapping_add(bits);
    }
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
