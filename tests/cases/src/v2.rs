// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A client of the v2 protocol (`include/uapi/linux/vfio.h`) for any driver, which keeps an account of its own: what a VMM does, without
//! a VMM.
//!
//! ```text
//!   source       running ─▶ pre_copy ─▶ (pre_copy_p2p) ─▶ stop_copy ─▶ stop        data file: read to its end
//!   destination  running ─▶ resuming ─▶ (running_p2p)  ─▶ running                  data file: written
//! ```

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use migscope_abi::v2::{FEATURE_GET, FEATURE_SET, MIG_DATA_SIZE, MIG_DEVICE_STATE, MigState};

use crate::vfio::{PrecopyInfo, Vfio};

/// The largest read, as QEMU's (`hw/vfio/migration.c`, `VFIO_MIG_DATA_BUFFER_SIZE`).
const BUFFER_BYTES: usize = 1 << 20;
/// "Nothing more for now."
const ENOMSG: i32 = 42;

/// What the client did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Changes of state that were asked for: which, and the errno.
    pub asked: Vec<(MigState, Option<i32>)>,
    /// Bytes read or written.
    pub bytes: u64,
    /// Times that a source's data came to an end, for now or for good, after there had been some; writes of a destination.
    pub bursts: u64,
}

/// An open device and its file for data.
#[derive(Debug)]
pub struct Client {
    /// The device.
    pub vfio: Vfio,
    /// What was done.
    pub account: Account,
    data: Option<File>,
    burst_bytes: u64,
}

impl Client {
    /// A client that has done nothing.
    pub fn new(vfio: Vfio) -> Self {
        Self { vfio, account: Account::default(), data: None, burst_bytes: 0 }
    }

    /// Asks for a state.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn set_state(&mut self, state: MigState) -> io::Result<()> {
        let asked = self.set_number(state as u32);
        let errno = asked.as_ref().err().and_then(io::Error::raw_os_error);
        self.account.asked.push((state, errno));
        asked
    }

    /// Asks for a state that may be none.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn set_number(&mut self, state: u32) -> io::Result<()> {
        let mut words = [state, u32::MAX];
        self.vfio.feature(FEATURE_SET | MIG_DEVICE_STATE, &mut words)?;
        let [_, descriptor] = words;
        if let Ok(descriptor) = i32::try_from(descriptor) {
            self.data = Some(self.vfio.given(descriptor));
        }
        Ok(())
    }

    /// The state that the device says it is in.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn state(&self) -> io::Result<u32> {
        let mut words = [0, 0];
        self.vfio.feature(FEATURE_GET | MIG_DEVICE_STATE, &mut words)?;
        Ok(words[0])
    }

    /// What is left to move once the device stands, in bytes.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn data_size(&self) -> io::Result<u64> {
        let mut words = [0, 0];
        self.vfio.feature(FEATURE_GET | MIG_DATA_SIZE, &mut words)?;
        Ok(u64::from(words[1]) << 32 | u64::from(words[0]))
    }

    /// What the device says is left in pre-copy.
    ///
    /// # Errors
    ///
    /// What the driver refused with.
    ///
    /// # Panics
    ///
    /// Without a file for data.
    pub fn precopy_info(&self) -> io::Result<PrecopyInfo> {
        PrecopyInfo::ask(self.data.as_ref().expect("a file for data"))
    }

    /// Reads until there is no more, for now or for good.
    ///
    /// # Panics
    ///
    /// Without a file for data, and when a read fails otherwise.
    pub fn read_all(&mut self) -> Vec<Vec<u8>> {
        let data = self.data.as_mut().expect("a file for data");
        let mut buffers = Vec::new();
        loop {
            let mut buffer = vec![0; BUFFER_BYTES];
            match data.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => {
                    buffer.truncate(bytes);
                    self.account.bytes += bytes as u64;
                    self.burst_bytes += bytes as u64;
                    buffers.push(buffer);
                }
                Err(error) if error.raw_os_error() == Some(ENOMSG) => break,
                Err(error) => panic!("device data: {error}"),
            }
        }
        if self.burst_bytes > 0 {
            self.burst_bytes = 0;
            self.account.bursts += 1;
        }
        buffers
    }

    /// Writes a buffer.
    ///
    /// # Errors
    ///
    /// What the driver refused with.
    ///
    /// # Panics
    ///
    /// Without a file for data.
    pub fn write(&mut self, buffer: &[u8]) -> io::Result<()> {
        self.data.as_mut().expect("a file for data").write_all(buffer)?;
        self.account.bytes += buffer.len() as u64;
        self.account.bursts += 1;
        Ok(())
    }
}
