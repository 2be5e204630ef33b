// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An edu with a migration region, without a kernel: obeys the driver's contract, or breaks it where it is told to.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use migscope_abi::dirty::Query;
use migscope_abi::region::{Field, Layout, Op};
use migscope_abi::rule::Rule;
use migscope_abi::state::State;
use workload::edu::{self, Edu, Registers};

use crate::PAGE_BYTES;
use crate::device::Migratable;
use crate::memory::DmaMemory;
use crate::region::{Region, RegionIo};

const LAYOUT: Layout = Layout { data_bytes: 0x1000, bitmap_bytes: 0x1000 };
/// The fake hands its image out in pieces of this size.
const PIECE: usize = 1000;
const IMAGE_BYTES: usize = REGISTER_BYTES + 4096;
const REGISTER_BYTES: usize = 0xa0;

/// How the fake breaks the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not at all.
    #[default]
    Nothing,
    /// Every third page of the memory is never logged.
    ForgetsPages,
    /// A transfer is not finished when the device stops.
    KeepsRunning,
    /// A byte of the buffer changes on the way in.
    DamagesBuffer,
    /// A register is not restored.
    ForgetsRegister,
    /// The image is refused.
    RefusesImage,
}

struct Inner {
    state: State,
    registers: [u8; REGISTER_BYTES],
    buffer: [u8; 4096],
    running: bool,
    log: BTreeSet<u64>,
    image: Vec<u8>,
    staged: Vec<u8>,
    is_staged: bool,
    query: [u64; 3],
    bitmap: Option<Vec<u8>>,
}

/// The device; clones are the same one.
#[derive(Clone)]
pub(super) struct Fake {
    inner: Arc<Mutex<Inner>>,
    memory: Arc<DmaMemory>,
    fault: Fault,
    name: &'static str,
}

fn refused(rule: Rule) -> io::Error {
    io::Error::from_raw_os_error(rule.errno())
}

impl Inner {
    fn register(&self, offset: u64) -> u64 {
        let at = usize::try_from(offset).unwrap();
        u64::from_le_bytes(self.registers[at..at + 8].try_into().unwrap())
    }

    fn saved(&self) -> Vec<u8> {
        [self.registers.as_slice(), &self.buffer].concat()
    }
}

impl Fake {
    pub(super) fn new(name: &'static str, fault: Fault) -> Self {
        let memory = DmaMemory::new(DmaMemory::DEFAULT_IOVA, 64 * PAGE_BYTES).unwrap();
        let inner = Inner {
            state: State::Running,
            registers: [0; REGISTER_BYTES],
            buffer: [0; 4096],
            running: false,
            log: BTreeSet::new(),
            image: Vec::new(),
            staged: Vec::new(),
            is_staged: false,
            query: [0; 3],
            bitmap: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)), memory: Arc::new(memory), fault, name }
    }

    pub(super) fn state(&self) -> State {
        self.inner.lock().unwrap().state
    }

    /// Ends the transfer that is under way.
    fn finish(&self, inner: &mut Inner) {
        if !std::mem::take(&mut inner.running) {
            return;
        }
        let (src, dst) = (inner.register(edu::DMA_SRC), inner.register(edu::DMA_DST));
        let bytes = usize::try_from(inner.register(edu::DMA_COUNT)).unwrap();
        if inner.register(edu::DMA_CMD) & edu::CMD_TO_MEMORY != 0 {
            self.memory.write(dst, &inner.buffer[..bytes]).unwrap();
            let last = dst + u64::try_from(bytes).unwrap() - 1;
            for page in dst / PAGE_BYTES..=last / PAGE_BYTES {
                if self.fault != Fault::ForgetsPages || !page.is_multiple_of(3) {
                    inner.log.insert(page);
                }
            }
        } else {
            self.memory.read(src, &mut inner.buffer[..bytes]).unwrap();
        }
        inner.registers[0x98] &= !1;
    }

    fn set_state(&self, inner: &mut Inner, requested: u32) -> Result<(), Rule> {
        let to = inner.state.next(requested)?;
        if inner.state.is_running() && !to.is_running() {
            self.finish(inner);
            if self.fault == Fault::KeepsRunning {
                inner.registers[0x98] |= 1;
            }
        }
        if to == State::StopAndCopy {
            inner.image = inner.saved();
        }
        if inner.state == State::Resuming && to == State::Running {
            let image = std::mem::take(&mut inner.image);
            if image.len() != IMAGE_BYTES {
                return Err(Rule::ImageIncomplete);
            }
            let (registers, buffer) = image.split_at(REGISTER_BYTES);
            inner.registers.copy_from_slice(registers);
            inner.buffer.copy_from_slice(buffer);
            match self.fault {
                Fault::DamagesBuffer => inner.buffer[77] ^= 1,
                Fault::ForgetsRegister => inner.registers[4] ^= 1,
                _ => {}
            }
        }
        if !to.is_saving() {
            inner.log.clear();
        }
        inner.is_staged = false;
        inner.state = to;
        Ok(())
    }

    fn dirty(inner: &mut Inner) -> Result<u64, Rule> {
        let [start, page_bytes, total] = inner.query;
        let query = Query::new(start, page_bytes, total)?;
        let range = query.start_pfn..query.start_pfn + query.pages;
        if inner.log.range(range.clone()).next().is_none() {
            return Ok(0);
        }
        let mut bitmap = vec![0; usize::try_from(query.pages.div_ceil(8)).unwrap()];
        for page in range {
            if inner.log.remove(&page) {
                let bit = page - query.start_pfn;
                bitmap[usize::try_from(bit / 8).unwrap()] |= 1 << (bit % 8);
            }
        }
        inner.bitmap = Some(bitmap);
        Ok(query.pages)
    }
}

impl RegionIo for Fake {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let inner = &mut *self.inner.lock().unwrap();
        let bytes = u64::try_from(into.len()).unwrap();
        let place = LAYOUT.locate(offset, bytes, Op::Read).map_err(refused)?;
        let value = match place.field {
            Field::DeviceState => {
                into.copy_from_slice(&(inner.state as u32).to_ne_bytes());
                return Ok(4);
            }
            Field::PendingBytes => {
                if std::mem::take(&mut inner.is_staged) {
                    inner.staged.clear();
                }
                match inner.state {
                    State::StopAndCopy => u64::try_from(inner.image.len()).unwrap(),
                    // It will have to be moved, but not now.
                    State::PreCopy => u64::try_from(IMAGE_BYTES).unwrap(),
                    _ => 0,
                }
            }
            Field::DataOffset if inner.bitmap.is_some() => LAYOUT.bitmap_offset(),
            Field::DataOffset => {
                if inner.state.is_saving() && !inner.is_staged {
                    let rest = inner.image.split_off(inner.image.len().min(PIECE));
                    inner.staged = std::mem::replace(&mut inner.image, rest);
                    inner.is_staged = true;
                }
                LAYOUT.data_offset()
            }
            Field::DataSize => u64::try_from(inner.staged.len()).unwrap(),
            Field::CopiedPfns => Self::dirty(inner).map_err(refused)?,
            Field::Data => {
                let at = usize::try_from(place.at).unwrap();
                into.copy_from_slice(&inner.staged[at..at + into.len()]);
                return Ok(into.len());
            }
            Field::Bitmap => {
                let bitmap = inner.bitmap.take().unwrap();
                into.copy_from_slice(&bitmap[..into.len()]);
                return Ok(into.len());
            }
            _ => unreachable!("{place:?}"),
        };
        into.copy_from_slice(&value.to_ne_bytes());
        Ok(8)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let inner = &mut *self.inner.lock().unwrap();
        let length = u64::try_from(bytes.len()).unwrap();
        let place = LAYOUT.locate(offset, length, Op::Write).map_err(refused)?;
        let value = || u64::from_ne_bytes(bytes.try_into().unwrap());
        match place.field {
            Field::DeviceState => {
                let requested = u32::from_ne_bytes(bytes.try_into().unwrap());
                self.set_state(inner, requested).map_err(refused)?;
            }
            Field::DataSize if self.fault == Fault::RefusesImage => {
                return Err(refused(Rule::ImageMagic));
            }
            Field::DataSize => inner.image.append(&mut inner.staged),
            Field::StartPfn => inner.query[0] = value(),
            Field::PageSize => inner.query[1] = value(),
            Field::TotalPfns => inner.query[2] = value(),
            Field::Data => inner.staged.extend_from_slice(bytes),
            _ => unreachable!("{place:?}"),
        }
        Ok(bytes.len())
    }

    fn reset(&self) -> io::Result<()> {
        self.inner.lock().unwrap().state = State::Running;
        Ok(())
    }
}

impl Registers for Fake {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let inner = &mut *self.inner.lock().unwrap();
        if offset == edu::DMA_CMD && inner.state.is_running() {
            self.finish(inner);
        }
        let at = usize::try_from(offset).unwrap();
        bytes.copy_from_slice(&inner.registers[at..at + bytes.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let inner = &mut *self.inner.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        inner.registers[at..at + bytes.len()].copy_from_slice(bytes);
        inner.running |= offset == edu::DMA_CMD;
        Ok(())
    }
}

impl Migratable for Fake {
    type Io = Self;
    type Registers = Self;

    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn region(&self) -> Region<Self> {
        Region::new(self.clone(), LAYOUT.region_bytes())
    }

    fn edu(&self) -> Edu<Self> {
        Edu::new(self.clone())
    }

    fn memory(&self) -> &DmaMemory {
        &self.memory
    }

    fn enable(&self) -> io::Result<()> {
        Ok(())
    }
}
