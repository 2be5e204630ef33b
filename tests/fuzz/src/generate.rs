// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a thread does in a round: a function of seed, round and thread, and of nothing that happens.

use fastrand::Rng;
use migscope_abi::region::{Field, HEADER_BYTES, Layout, STRUCT_BYTES};

use crate::call::{Call, PAGES, Pointer, Region, SLOTS};
use crate::model::{Setup, edu};

/// Offset of edu's factorial register.
const FACTORIAL: u64 = 0x08;

/// Something that a thread does: one call, or a few that only make sense together. What it reads and writes where the client's
/// own data go is decided when it is done.
#[derive(Clone, Debug)]
pub enum Operation {
    /// One call.
    Call(Call),
    /// One buffer of device data: `pending_bytes`, `data_offset`, `data_size`, the data.
    Save {
        /// The descriptor.
        slot: usize,
        /// Whether two things are tried first that must not end the buffer: to read a byte more than there is, and
        /// `pending_bytes` to a buffer that is not there.
        rude: bool,
    },
    /// Stop-and-copy, and all buffers.
    SaveAll {
        /// The descriptor.
        slot: usize,
        /// Whether pre-copy comes first.
        pre_copy: bool,
    },
    /// A piece of a saved image: `data_offset`, the data, `data_size`.
    Load {
        /// The descriptor.
        slot: usize,
        /// The most bytes of the piece.
        bytes: usize,
        /// Which byte of the image arrives damaged, if the piece has it.
        damage: Option<usize>,
    },
    /// Resuming, all pieces of a saved image, running.
    LoadAll {
        /// The descriptor.
        slot: usize,
        /// The most bytes of a piece.
        bytes: usize,
        /// As of [`Operation::Load`].
        damage: Option<usize>,
    },
    /// A dirty query, and the bitmap if there is one.
    Query {
        /// The descriptor.
        slot: usize,
        /// `start_pfn`, `page_size`, `total_pfns`.
        registers: [u64; 3],
        /// How many of the bitmap's bytes are read, at most.
        bytes: usize,
    },
    /// Pre-copy, a transfer, perhaps stop-and-copy, a dirty query, and the same once more.
    Dirty {
        /// The descriptor.
        slot: usize,
        /// As of [`Operation::Dma`].
        dma: [u64; 4],
        /// Whether the device is stopped before it is asked.
        stop: bool,
        /// As of [`Operation::Query`].
        query: [u64; 3],
        /// As of [`Operation::Query`], the first time.
        bytes: usize,
    },
    /// The DMA engine's registers, then its command.
    Dma {
        /// The descriptor.
        slot: usize,
        /// Source, destination, count, command.
        registers: [u64; 4],
    },
}

/// The mix of seed, round and thread: one generator's seed.
fn mix(seed: u64, round: u64, thread: u64) -> u64 {
    // The odd constants of splitmix64; that neighbours get unlike generators is all that is asked.
    let mixed = seed
        ^ round.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ thread.wrapping_add(1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// What `thread` does in `round`: `operations` operations, or none if the round is another thread's alone.
pub fn round(
    setup: &Setup,
    seed: u64,
    round: u64,
    thread: u64,
    operations: usize,
) -> Vec<Operation> {
    // In one round of four the first thread is alone: what needs many steps in a row comes to its end then.
    let alone = Rng::with_seed(mix(seed, round, u64::MAX)).u8(..4) == 0;
    if alone && thread != 0 {
        return Vec::new();
    }
    let mut random = Rng::with_seed(mix(seed, round, thread));
    (0..operations).map(|_| one(setup, &mut random, alone)).collect()
}

fn one(setup: &Setup, random: &mut Rng, alone: bool) -> Operation {
    let slot = if random.u8(..8) == 0 { 1 } else { 0 };
    let any_slot = random.usize(..SLOTS);
    if alone && random.bool() {
        return long(setup, random, slot);
    }
    match random.u8(..100) {
        0..20 => Operation::Call(write_state(random, slot)),
        20..38 => Operation::Call(read_register(random, slot)),
        38..46 => Operation::Call(write_register(setup, random, slot)),
        46..56 => Operation::Call(any_access(setup, random, slot)),
        56..64 => Operation::Save { slot, rude: random.bool() },
        64..68 => Operation::Load { slot, bytes: random.usize(1..5000), damage: damage(random) },
        68..76 => Operation::Query {
            slot,
            registers: query(setup, random),
            bytes: if random.bool() { usize::MAX } else { random.usize(..40) },
        },
        76..80 => Operation::Dma { slot, registers: dma(setup, random) },
        80..87 => Operation::Call(bar_access(setup, random, slot)),
        87 => Operation::Call(command(random, slot)),
        88 => Operation::Call(Call::Reset { slot }),
        89 | 90 => Operation::Call(ioctl(random, slot)),
        91 | 92 => Operation::Call(map(setup, random, slot)),
        93 => Operation::Call(Call::Close { slot: any_slot }),
        94..98 => Operation::Call(Call::Open { slot: any_slot }),
        _ => {
            let page = random.usize(..PAGES);
            Operation::Call(match random.bool() {
                true => Call::DmaMap { page },
                false => Call::DmaUnmap { page },
            })
        }
    }
}

/// What takes many steps in a row, none of which another thread may spoil.
fn long(setup: &Setup, random: &mut Rng, slot: usize) -> Operation {
    match random.u8(..5) {
        0 => Operation::SaveAll { slot, pre_copy: random.bool() },
        1 => {
            let bytes = random.usize(1..5000);
            Operation::LoadAll { slot, bytes, damage: damage(random) }
        }
        _ => {
            let mut dma = dma(setup, random);
            let mut query = query(setup, random);
            if random.u8(..4) != 0 {
                // A query that finds the page, among others.
                let page = random.u64(..8);
                let memory = setup.memory.0 + page * 4096 + random.u64(..4096);
                dma = [edu::BUFFER, memory, 1 + random.u64(..4095), 1 | edu::TO_MEMORY];
                let shift = random.u64(..2);
                let start = (memory >> 12 >> shift) - random.u64(..4);
                query = [start, 4096 << shift, 1 + random.u64(..70)];
            }
            let bytes = if random.bool() { usize::MAX } else { random.usize(..9) };
            Operation::Dirty { slot, dma, stop: random.bool(), query, bytes }
        }
    }
}

/// A byte of an image: those of an edu whose buffer is empty have less than 200.
fn damage(random: &mut Rng) -> Option<usize> {
    random.bool().then(|| random.usize(..200))
}

fn pointer(random: &mut Rng) -> Pointer {
    match random.u8(..16) {
        0 => Pointer::Null,
        1 => Pointer::Kernel,
        2 => Pointer::Half,
        _ => Pointer::Good,
    }
}

fn field(random: &mut Rng) -> (u64, usize) {
    let field = Field::ALL[random.usize(..9)];
    let (offset, width) = field.register().expect("the first nine are registers");
    (offset, usize::try_from(width).expect("a width fits"))
}

fn write_state(random: &mut Rng, slot: usize) -> Call {
    let value: u32 = match random.u8(..27) {
        0..7 => 3,
        7..11 => 2,
        11..18 => 1,
        18..20 => 0,
        20..24 => 4,
        24 => random.u32(5..8),
        25 => 1 << random.u32(3..32),
        _ => random.u32(..),
    };
    crate::call::write(slot, 0, value.to_le_bytes().to_vec())
}

fn read_register(random: &mut Rng, slot: usize) -> Call {
    let (offset, bytes) = field(random);
    Call::Read { slot, region: Region::Migration, offset, bytes, pointer: pointer(random) }
}

fn write_register(setup: &Setup, random: &mut Rng, slot: usize) -> Call {
    let (offset, width) = field(random);
    let value = match random.u8(..6) {
        0 => random.u64(..),
        1 => u64::from(setup.layout.data_bytes) + random.u64(..3) - 1,
        2 => 1 << random.u64(..64),
        3 => random.u64(..64),
        4 => setup.memory.0 >> 12,
        _ => random.u64(..5000),
    };
    // A state is not written by the way: see `write_state`.
    let pointer = if offset == 0 { Pointer::Null } else { pointer(random) };
    let data = value.to_le_bytes()[..width].to_vec();
    Call::Write { slot, region: Region::Migration, offset, data, pointer }
}

/// An offset near something, in a region that begins with the struct.
fn near(random: &mut Rng, layout: Layout) -> u64 {
    let places = [
        0,
        STRUCT_BYTES,
        HEADER_BYTES,
        layout.bitmap_offset(),
        layout.region_bytes(),
        random.u64(..layout.region_bytes() + 64),
        random.u64(..STRUCT_BYTES),
        (1 << 40) - 16,
    ];
    let place = places[random.usize(..places.len())];
    (place + random.u64(..16)).saturating_sub(random.u64(..16)).min((1 << 40) - 1)
}

fn any_access(setup: &Setup, random: &mut Rng, slot: usize) -> Call {
    let region = Region::ALL[[0, 0, 0, 0, 0, 2, 3][random.usize(..7)]];
    let bytes = match random.u8(..8) {
        0 => 0,
        1..5 => 1 << random.u32(..5),
        5 | 6 => random.usize(..40),
        _ => random.usize(..20_000),
    };
    let mut offset = near(random, setup.layout);
    let pointer = pointer(random);
    if region == Region::Config {
        // Configuration space is the kernel's own business; a look at its first bytes is enough.
        return Call::Read { slot, region, offset: 0, bytes: bytes.min(4), pointer };
    }
    // A write of a state has its own generator, and a good one of random bytes would mostly be refused.
    let write = random.bool() && offset != 0;
    if region == Region::Beyond {
        offset = random.u64(..1 << 20);
    }
    if write {
        let data = std::iter::repeat_with(|| random.u8(..)).take(bytes).collect();
        Call::Write { slot, region, offset, data, pointer }
    } else {
        Call::Read { slot, region, offset, bytes, pointer }
    }
}

/// A range around the memory, mostly.
fn query(setup: &Setup, random: &mut Rng) -> [u64; 3] {
    let (first, last) = (setup.memory.0 >> 12, setup.memory.1 >> 12);
    let shift = [0, 0, 0, 0, 1, 2, 4, 9][random.usize(..8)];
    let start = match random.u8(..8) {
        0 => 0,
        1 => random.u64(..1 << 40),
        2 => u64::MAX - random.u64(..4),
        3..6 => first >> shift,
        _ => random.u64(first..=last) >> shift,
    };
    let page = match random.u8(..12) {
        0 => random.u64(..8192),
        1 => 1 << random.u32(..64),
        _ => 4096 << shift,
    };
    let total = match random.u8(..10) {
        0 => 0,
        1 => random.u64(..),
        2 => 1 << random.u32(..40),
        3..6 => 1 + random.u64(..4),
        _ => 1 + random.u64(..=(last - first) >> shift),
    };
    [start, page, total]
}

fn dma(setup: &Setup, random: &mut Rng) -> [u64; 4] {
    let bytes = [1, 8, 64, 4095][random.usize(..4)];
    let bytes = if random.u8(..10) == 0 { random.u64(..8192) } else { bytes };
    let inside = edu::BUFFER + random.u64(..edu::BUFFER_BYTES);
    let inside = if random.u8(..4) == 0 { inside } else { edu::BUFFER };
    // In the memory that is mapped, or beyond what the engine drives: nothing in between, which would only fault.
    let memory = match random.u8(..12) {
        0 => random.u64(1 << 28..),
        1..4 => random.u64(setup.memory.0..setup.memory.1 - 8192),
        // In the first few pages, where a query finds it.
        _ => setup.memory.0 + random.u64(..0x8000),
    };
    let to_memory = random.u8(..4) != 0;
    let (source, destination) = if to_memory { (inside, memory) } else { (memory, inside) };
    [source, destination, bytes, 1 | if to_memory { edu::TO_MEMORY } else { 0 }]
}

fn bar_access(setup: &Setup, random: &mut Rng, slot: usize) -> Call {
    let region = Region::Bar0;
    let followed = [edu::LIVENESS, edu::DMA[0], edu::DMA[1], edu::DMA[2], edu::DMA_COMMAND];
    let (offset, bytes, pointer) = match random.u8(..8) {
        0 => {
            // Computing goes on in the background; what it gives is not followed.
            let n = if random.bool() { random.u32(..50) } else { random.u32(..1_000_000) };
            let (offset, data, pointer) = (FACTORIAL, n.to_le_bytes().to_vec(), Pointer::Good);
            return Call::Write { slot, region, offset, data, pointer };
        }
        1..5 => {
            let offset = followed[random.usize(..followed.len())];
            let wide = offset != edu::LIVENESS && random.bool();
            (offset, if wide { 8 } else { 4 }, pointer(random))
        }
        5 => (random.u64(..0x20), random.usize(..9), Pointer::Good),
        6 => (setup.bar_bytes.saturating_sub(random.u64(..16)), random.usize(..16), Pointer::Good),
        _ => (0x100 + random.u64(..0x1000), random.usize(..64), Pointer::Good),
    };
    // The registers of interrupts are left alone, and a command is written by `Dma`.
    if random.bool() || offset == edu::DMA_COMMAND || (5..0x80).contains(&offset) {
        return Call::Read { slot, region, offset, bytes, pointer };
    }
    let inside = offset + u64::try_from(bytes).unwrap_or(0);
    let bytes = if offset < 8 && inside > 8 { 4 } else { bytes };
    let value = match edu::DMA.iter().position(|register| *register == offset) {
        Some(register) => dma(setup, random)[register],
        None => random.u64(..),
    };
    let data = value.to_le_bytes().into_iter().cycle().take(bytes).collect();
    Call::Write { slot, region, offset, data, pointer }
}

/// Memory decoding on or off; the device stays a bus master.
fn command(random: &mut Rng, slot: usize) -> Call {
    let memory = if random.u8(..3) == 0 { 0 } else { u16::from(crate::model::COMMAND_MEMORY) };
    let data = (memory | 0x0004).to_le_bytes().to_vec();
    let (region, offset) = (Region::Config, crate::model::COMMAND);
    Call::Write { slot, region, offset, data, pointer: Pointer::Good }
}

fn ioctl(random: &mut Rng, slot: usize) -> Call {
    match random.u8(..6) {
        0 => Call::DeviceInfo { slot, pointer: pointer(random) },
        1..4 => Call::RegionInfo {
            slot,
            region: Region::ALL[random.usize(..4)],
            short: random.u8(..4) == 0,
        },
        4 => Call::Feature { slot },
        _ => Call::NoIoctl { slot },
    }
}

fn map(setup: &Setup, random: &mut Rng, slot: usize) -> Call {
    let region = Region::ALL[[0, 0, 0, 1, 1, 2, 3][random.usize(..7)]];
    let length = match region {
        Region::Migration => setup.layout.region_bytes(),
        Region::Bar0 => setup.bar_bytes,
        Region::Config | Region::Beyond => 8192,
    };
    let area = match setup.areas.as_slice() {
        areas if !areas.is_empty() && region == Region::Migration && random.bool() => {
            areas[random.usize(..areas.len())]
        }
        _ => (random.u64(..=length >> 12) << 12, 0),
    };
    let bytes = if random.bool() { 4096 } else { random.usize(1..40_000) };
    Call::Map { slot, region, offset: area.0, bytes }
}
