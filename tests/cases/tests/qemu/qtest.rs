// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A client of QEMU's qtest protocol: what a machine's CPU could do to memory, ports and devices, done from outside.
//!
//! ```text
//!  ▶ writel 0xfeb00004 0x1234        ◀ OK
//!  ▶ readl 0xfeb00004                ◀ OK 0x00000000ffffedcb
//!  ▶ read 0x1000000 0x2              ◀ OK 0x0a0b
//! ```
//!
//! QEMU offers it beside any accelerator: under TCG the machine's own CPU runs its firmware meanwhile. An access to a device's
//! BAR goes the way of a guest's access, through `vfio_region_write()` to the driver.
//!
//! Source: QEMU `softmmu/qtest.c`.

use std::cell::RefCell;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use workload::edu::Registers;

/// The port that selects a word of PCI configuration space (PCI 3.0, 3.2.2.3.2).
const CONFIG_ADDRESS: u16 = 0xcf8;
/// The port that accesses it.
const CONFIG_DATA: u16 = 0xcfc;

/// A connection.
#[derive(Debug)]
pub(crate) struct Qtest(RefCell<BufReader<UnixStream>>);

impl Qtest {
    /// Takes a connection over.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(RefCell::new(BufReader::new(stream)))
    }

    /// Reads the machine's memory.
    ///
    /// # Errors
    ///
    /// What the connection failed with; an answer of another length.
    pub(crate) fn read_memory(&self, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let answer = self.command(&format!("read {at:#x} {bytes:#x}"))?;
        let digits = answer.strip_prefix("0x").filter(|digits| digits.len() == 2 * bytes);
        let digits = digits.ok_or_else(|| unexpected(&answer))?;
        let byte = |i: usize| digits.get(i..i + 2).and_then(|it| u8::from_str_radix(it, 16).ok());
        let memory: Option<_> = (0..digits.len()).step_by(2).map(byte).collect();
        memory.ok_or_else(|| unexpected(&answer))
    }

    /// Writes the machine's memory.
    ///
    /// # Errors
    ///
    /// What the connection failed with.
    pub(crate) fn write_memory(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.command(&format!("write {at:#x} {:#x} 0x{digits}", bytes.len())).map(drop)
    }

    /// Sets bits of a word of a PCI device's configuration space, on bus 0.
    ///
    /// The firmware must be at its end: it uses the same two ports.
    ///
    /// # Errors
    ///
    /// What the connection failed with.
    pub(crate) fn set_config_bits(&self, slot: u32, register: u32, bits: u64) -> io::Result<()> {
        let word = 1 << 31 | slot << 11 | register;
        self.command(&format!("outl {CONFIG_ADDRESS:#x} {word:#x}"))?;
        let value = self.number(&format!("inl {CONFIG_DATA:#x}"))?;
        self.command(&format!("outl {CONFIG_DATA:#x} {:#x}", value | bits)).map(drop)
    }

    fn number(&self, command: &str) -> io::Result<u64> {
        let answer = self.command(command)?;
        let digits = answer.strip_prefix("0x").ok_or_else(|| unexpected(&answer))?;
        u64::from_str_radix(digits, 16).map_err(|_not_a_number| unexpected(&answer))
    }

    /// Sends a command; gives what follows `OK`.
    fn command(&self, command: &str) -> io::Result<String> {
        let mut stream = self.0.borrow_mut();
        stream.get_mut().write_all(format!("{command}\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_line(&mut answer)?;
        let result = answer.trim_end().strip_prefix("OK").map(|rest| rest.trim_start().to_owned());
        result.ok_or_else(|| unexpected(&answer))
    }
}

fn unexpected(answer: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("qtest answered {answer:?}"))
}

/// A BAR of a device in the machine.
#[derive(Debug)]
pub(crate) struct Bar<'a> {
    /// The machine.
    pub(crate) qtest: &'a Qtest,
    /// Where the machine's memory has the BAR.
    pub(crate) address: u64,
}

impl Registers for Bar<'_> {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let width = letter(bytes.len())?;
        let value = self.qtest.number(&format!("read{width} {:#x}", self.address + offset))?;
        let length = bytes.len();
        bytes.copy_from_slice(&value.to_le_bytes()[..length]);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let width = letter(bytes.len())?;
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        let (at, value) = (self.address + offset, u64::from_le_bytes(value));
        self.qtest.command(&format!("write{width} {at:#x} {value:#x}")).map(drop)
    }
}

/// The letter that stands for an access of this length.
fn letter(bytes: usize) -> io::Result<char> {
    match bytes {
        1 => Ok('b'),
        2 => Ok('w'),
        4 => Ok('l'),
        8 => Ok('q'),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{bytes} bytes at once"))),
    }
}
