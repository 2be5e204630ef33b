// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The 64-byte struct and its windows, driven by the sequences of the RFC.
//!
//! ```text
//!   saving     a pending_bytes ─▶ b data_offset ─▶ c data_size ─▶ d data ─▶ a …   until a says 0
//!   resuming   a data_offset ─▶ b data ─▶ c data_size ─▶ a …                      while there are buffers
//!   dirty      see `dirty`
//! ```
//!
//! Field widths, offsets and directions are those of `migscope_abi::region`. Every access goes through [`Region::read`] or
//! [`Region::write`], which is where it is counted.

use std::io;

use migscope_abi::region::{Field, Op, STRUCT_BYTES};
use migscope_abi::state::{MASK, State};

use crate::account::{Cause, RegionAccount, Tally, Transition};
use crate::clock;
use crate::mapping::MappedArea;

mod window;

pub use window::DataAccess;

/// The seam: the device's file at the region's place, or a script in a test.
pub trait RegionIo {
    /// One read at `offset` in the region; says how many bytes came.
    ///
    /// # Errors
    ///
    /// The errno that the driver gave.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// One write at `offset` in the region; says how many bytes were taken.
    ///
    /// # Errors
    ///
    /// The errno that the driver gave.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// `VFIO_DEVICE_RESET`.
    ///
    /// # Errors
    ///
    /// The errno that the driver gave.
    fn reset(&self) -> io::Result<()>;

    /// Maps what the region offers to be mapped, if that is not done yet. A region that offers nothing has nothing to do.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    fn map(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// What is mapped, in the order of the offsets.
    fn mapped_areas(&self) -> &[MappedArea] {
        &[]
    }
}

/// What can go wrong with the region.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The driver refused an access.
    #[error("the driver refused to {} `{}`", .op.name(), .field.name())]
    Access {
        /// Which field.
        field: Field,
        /// Which direction.
        op: Op,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The driver did part of an access.
    #[error("the driver did {done} of {wanted} bytes of an access to `{}`", .field.name())]
    Short {
        /// Which field.
        field: Field,
        /// Bytes asked for.
        wanted: usize,
        /// Bytes done.
        done: usize,
    },
    /// The driver offers a mapping and does not make it.
    #[error("a part of the region that may be mapped could not be mapped")]
    Map(#[source] io::Error),
    /// The driver refused a change of state.
    #[error("the device does not go from {from} to {requested}; it is now in {now}")]
    Transition {
        /// State before.
        from: &'static str,
        /// State asked for.
        requested: &'static str,
        /// State after.
        now: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `device_state` holds a number that is no state.
    #[error("`device_state` reads as {0:#x}, which is no state")]
    UnknownState(u32),
    /// The driver points out of its own region.
    #[error(
        "the driver announces {bytes} bytes at offset {offset:#x} of a region of {region_bytes} bytes"
    )]
    Window {
        /// What `data_offset` said.
        offset: u64,
        /// How many bytes there should be.
        bytes: u64,
        /// Length of the region.
        region_bytes: u64,
    },
    /// The driver has data and gives none: to go on would lose it.
    #[error(
        "`pending_bytes` says {pending_bytes} but `data_size` is 0 while the device stands still"
    )]
    Withheld {
        /// What is pending.
        pending_bytes: u64,
    },
    /// More pages than were asked for.
    #[error("`copied_pfns` says {copied} but only {asked} pages were asked for")]
    TooManyPages {
        /// What it said.
        copied: u64,
        /// What was asked for.
        asked: u64,
    },
    /// Bits of pages that the report does not cover.
    #[error("the bitmap has bits set past the {copied} pages that it covers")]
    StrayBits {
        /// Pages that it covers.
        copied: u64,
    },
}

impl RegionError {
    /// The errno that the driver gave, where it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Access { source, .. } | Self::Transition { source, .. } | Self::Map(source) => {
                source.raw_os_error()
            }
            _ => None,
        }
    }
}

/// The client's side of a migration region.
#[derive(Debug)]
pub struct Region<Io> {
    io: Io,
    region_bytes: u64,
    chunk_bytes: usize,
    data_access: DataAccess,
    tally: Tally,
    /// Length of the buffer that was read and that the next `pending_bytes` ends.
    unended_bytes: u64,
}

impl<Io: RegionIo> Region<Io> {
    /// The largest system call on a window that is made unless [`Self::set_chunk_bytes`] says otherwise.
    pub const DEFAULT_CHUNK_BYTES: usize = 1 << 20;

    /// Takes hold of a region of `region_bytes`.
    pub fn new(io: Io, region_bytes: u64) -> Self {
        let chunk_bytes = Self::DEFAULT_CHUNK_BYTES;
        Self {
            io,
            region_bytes,
            chunk_bytes,
            data_access: DataAccess::Trapped,
            tally: Tally::default(),
            unended_bytes: 0,
        }
    }

    /// From now on the system calls on a window are of at most `bytes` bytes, at least one.
    pub fn set_chunk_bytes(&mut self, bytes: usize) {
        self.chunk_bytes = bytes.max(1);
    }

    /// What is under the region, for accesses that are not to be counted.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// Length of the region, in bytes.
    pub fn region_bytes(&self) -> u64 {
        self.region_bytes
    }

    /// What was done so far.
    pub fn account(&self) -> RegionAccount {
        self.tally.account()
    }

    pub(crate) fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// One read of `field`, which stands at `offset`.
    fn read(&mut self, field: Field, offset: u64, into: &mut [u8]) -> Result<usize, RegionError> {
        let result = self.io.read_at(offset, into);
        self.tally.access(field, Op::Read, result.is_ok());
        result.map_err(|source| RegionError::Access { field, op: Op::Read, source })
    }

    /// One write of `field`, which stands at `offset`.
    fn write(&mut self, field: Field, offset: u64, bytes: &[u8]) -> Result<usize, RegionError> {
        let result = self.io.write_at(offset, bytes);
        self.tally.access(field, Op::Write, result.is_ok());
        result.map_err(|source| RegionError::Access { field, op: Op::Write, source })
    }

    fn read_register<const N: usize>(&mut self, field: Field) -> Result<[u8; N], RegionError> {
        let (offset, _) = field.register().expect("windows are not read as registers");
        let mut bytes = [0; N];
        match self.read(field, offset, &mut bytes)? {
            done if done == N => Ok(bytes),
            done => Err(RegionError::Short { field, wanted: N, done }),
        }
    }

    pub(crate) fn read_u64(&mut self, field: Field) -> Result<u64, RegionError> {
        self.read_register(field).map(u64::from_ne_bytes)
    }

    pub(crate) fn write_u64(&mut self, field: Field, value: u64) -> Result<(), RegionError> {
        self.write_register(field, &value.to_ne_bytes())
    }

    fn write_register(&mut self, field: Field, bytes: &[u8]) -> Result<(), RegionError> {
        let (offset, _) = field.register().expect("windows are not written as registers");
        match self.write(field, offset, bytes)? {
            done if done == bytes.len() => Ok(()),
            done => Err(RegionError::Short { field, wanted: bytes.len(), done }),
        }
    }

    /// Checks that the driver stays in its region, and gives the length as one of memory.
    pub(crate) fn window(&self, offset: u64, bytes: u64) -> Result<usize, RegionError> {
        let region_bytes = self.region_bytes;
        let error = RegionError::Window { offset, bytes, region_bytes };
        match offset.checked_add(bytes) {
            Some(end) if offset >= STRUCT_BYTES && end <= region_bytes => {
                usize::try_from(bytes).map_err(|_too_long| error)
            }
            _ => Err(error),
        }
    }

    /// Reads `device_state`.
    ///
    /// # Errors
    ///
    /// [`RegionError::Access`], or [`RegionError::UnknownState`].
    pub fn state(&mut self) -> Result<State, RegionError> {
        let raw = u32::from_ne_bytes(self.read_register(Field::DeviceState)?);
        State::try_from(raw & MASK).map_err(RegionError::UnknownState)
    }

    /// Brings the device into a state: reads, changes the three bits, writes (RFC, `device_state`: "User should perform
    /// read-modify-write operation on this field"). Gives the state before.
    ///
    /// # Errors
    ///
    /// [`RegionError::Transition`] when the driver refuses; it holds the state that the device is in after that.
    pub fn set_state(&mut self, to: State) -> Result<State, RegionError> {
        let raw = u32::from_ne_bytes(self.read_register(Field::DeviceState)?);
        let from = State::try_from(raw & MASK).map_err(RegionError::UnknownState)?;
        let requested = raw & !MASK | to as u32;
        let at_monotonic_ns = clock::monotonic_ns();
        let written = self.write_register(Field::DeviceState, &requested.to_ne_bytes());
        let duration_ns = clock::monotonic_ns().saturating_sub(at_monotonic_ns);
        let mut transition = Transition {
            from: from.name().to_owned(),
            to: to.name().to_owned(),
            requested,
            cause: Cause::Write,
            result: 0,
            at_monotonic_ns,
            duration_ns,
        };
        // Staged data does not outlive a change of state.
        match written {
            Ok(()) => {
                self.unended_bytes = 0;
                self.tally.account.transitions.push(transition);
                Ok(from)
            }
            Err(RegionError::Access { source, .. }) => {
                let now = self.state().map_or("unknown", State::name);
                transition.to = now.to_owned();
                transition.result = -source.raw_os_error().unwrap_or(0);
                self.tally.account.transitions.push(transition);
                let (from, requested) = (from.name(), to.name());
                Err(RegionError::Transition { from, requested, now, source })
            }
            Err(error) => Err(error),
        }
    }

    /// Resets the device: it runs again, and whatever was under way is gone.
    ///
    /// # Errors
    ///
    /// What the driver refused with.
    pub fn reset(&mut self) -> Result<(), RegionError> {
        let from = self.state().map_or("unknown", State::name);
        let at_monotonic_ns = clock::monotonic_ns();
        let result = self.io.reset();
        let duration_ns = clock::monotonic_ns().saturating_sub(at_monotonic_ns);
        self.unended_bytes = 0;
        let errno = result.as_ref().err().and_then(io::Error::raw_os_error).unwrap_or(0);
        let to = if result.is_ok() { State::Running.name() } else { from };
        self.tally.account.transitions.push(Transition {
            from: from.to_owned(),
            to: to.to_owned(),
            requested: State::Running as u32,
            cause: Cause::Reset,
            result: -errno,
            at_monotonic_ns,
            duration_ns,
        });
        let requested = State::Running.name();
        result.map_err(|source| RegionError::Transition { from, requested, now: to, source })
    }

    /// Saving, step a: how many bytes are still to come. It also ends the buffer that was read before.
    ///
    /// # Errors
    ///
    /// [`RegionError::Access`].
    pub fn pending_bytes(&mut self) -> Result<u64, RegionError> {
        let pending = self.read_u64(Field::PendingBytes)?;
        let ended = std::mem::take(&mut self.unended_bytes);
        if ended > 0 {
            self.tally.iteration(ended);
        }
        self.tally.account.pending_bytes = Some(pending);
        Ok(pending)
    }

    /// Reads `data_offset`; while saving the driver stages a buffer on it.
    ///
    /// # Errors
    ///
    /// [`RegionError::Access`].
    pub fn data_offset(&mut self) -> Result<u64, RegionError> {
        self.read_u64(Field::DataOffset)
    }

    /// Saving, steps b to d: one buffer, as the driver staged it; empty when it has nothing now.
    ///
    /// # Errors
    ///
    /// [`RegionError::Access`], [`RegionError::Short`], or [`RegionError::Window`].
    pub fn save_buffer(&mut self) -> Result<Vec<u8>, RegionError> {
        let offset = self.data_offset()?;
        let bytes = self.read_u64(Field::DataSize)?;
        let mut buffer = vec![0; self.window(offset, bytes)?];
        self.read_window(Field::Data, offset, &mut buffer)?;
        self.unended_bytes = bytes;
        Ok(buffer)
    }

    /// Saving, steps a to d: one buffer, or `None` when nothing is pending.
    ///
    /// # Errors
    ///
    /// Those of the steps, and [`RegionError::Withheld`] when the device stands still, has data and gives none.
    pub fn next_buffer(&mut self, state: State) -> Result<Option<Vec<u8>>, RegionError> {
        let pending_bytes = self.pending_bytes()?;
        if pending_bytes == 0 {
            return Ok(None);
        }
        let buffer = self.save_buffer()?;
        match (buffer.is_empty(), state) {
            (false, _) => Ok(Some(buffer)),
            // While it runs the device may have counted what is only to be had once it stands.
            (true, State::PreCopy) => Ok(None),
            (true, _) => Err(RegionError::Withheld { pending_bytes }),
        }
    }

    /// Resuming, steps a to c: hands one buffer to the driver, which has taken it in when this returns.
    ///
    /// # Errors
    ///
    /// [`RegionError::Access`] with the driver's verdict on the buffer, or [`RegionError::Window`] when it does not fit.
    pub fn load_buffer(&mut self, buffer: &[u8]) -> Result<(), RegionError> {
        let began_ns = clock::monotonic_ns();
        let offset = self.data_offset()?;
        let bytes = u64::try_from(buffer.len()).expect("a length fits");
        self.window(offset, bytes)?;
        self.write_window(Field::Data, offset, buffer)?;
        self.write_u64(Field::DataSize, bytes)?;
        self.tally.account.load_ns += clock::monotonic_ns().saturating_sub(began_ns);
        if bytes > 0 {
            self.tally.iteration(bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
