// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The few calls of bpf(2) that the benchmark makes: programs that others loaded, their costs, and records that stand in kernel memory.
//!
//! ```text
//!   Place:  map of one value ◀── its address ── a program of five instructions that writes the value's address into it
//!             │ records, copied in
//!             ▼
//!   BPF_PROG_TEST_RUN of a probe, whose argument is the address of a record
//! ```
//!
//! A probe's argument is a pointer to a record in the kernel, which it reads with `bpf_probe_read_kernel`. The value of a map is such
//! memory: it stays where it is, and may hold a record like any other. Its address is nobody's secret from one who may load programs.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// `BPF_PROG_TYPE_TRACEPOINT` and `BPF_PROG_TYPE_RAW_TRACEPOINT`, `include/uapi/linux/bpf.h`.
pub(super) const TRACEPOINT: u32 = 5;
pub(super) const RAW_TRACEPOINT: u32 = 17;

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PSEUDO_MAP_VALUE: u64 = 2;

const BPF_MAP_CREATE: c_long = 0;
const BPF_MAP_LOOKUP_ELEM: c_long = 1;
const BPF_MAP_UPDATE_ELEM: c_long = 2;
const BPF_PROG_LOAD: c_long = 5;
const BPF_PROG_TEST_RUN: c_long = 10;
const BPF_PROG_GET_NEXT_ID: c_long = 11;
const BPF_PROG_GET_FD_BY_ID: c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: c_long = 15;
const BPF_ENABLE_STATS: c_long = 32;

/// Words of `union bpf_attr` that the benchmark ever sets; what the kernel knows beyond them counts as zero.
const ATTR_WORDS: usize = 12;
/// Length of `struct bpf_prog_info` up to `run_cnt`, in bytes, and where in it things are.
const INFO_BYTES: usize = 208;
const INFO_KIND_BYTES: usize = 4;
const INFO_NAME: std::ops::Range<usize> = 64..80;
const INFO_RUN_TIME_NS: usize = 192;
const INFO_RUN_CNT: usize = 200;

/// `union bpf_attr`, as words.
#[derive(Default)]
#[repr(C, align(8))]
struct Attr([u64; ATTR_WORDS]);

/// Two fields of 32 bits side by side.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// A descriptor as a field holds it.
fn number(fd: &OwnedFd) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}

/// Calls bpf(2).
///
/// # Safety
///
/// Addresses in `attr` must be of memory that is valid for what `command` does with it, for as long as the call lasts.
unsafe fn call(command: c_long, attr: &mut Attr) -> io::Result<i32> {
    // SAFETY: `bpf` wants an attribute that is valid for reads and writes of the length given; what it points to is the caller's promise.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<Attr>())
    };
    i32::try_from(done).ok().filter(|done| *done >= 0).ok_or_else(io::Error::last_os_error)
}

/// The same for commands that make a descriptor.
///
/// # Safety
///
/// As for [`call`], and `command` must give a new descriptor.
unsafe fn open(command: c_long, attr: &mut Attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; the descriptor is new, and nobody else's.
    unsafe { Ok(OwnedFd::from_raw_fd(call(command, attr)?)) }
}

/// Makes the kernel count the run time of all programs until it is dropped.
pub(super) fn enable_stats() -> io::Result<OwnedFd> {
    // SAFETY: an attribute of zeros asks for `BPF_STATS_RUN_TIME` and has no address.
    unsafe { open(BPF_ENABLE_STATS, &mut Attr::default()) }
}

/// What the kernel counted of a program since counting began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// How long, all runs together.
    pub(super) ns: u64,
    /// How often.
    pub(super) runs: u64,
}

impl Cost {
    /// What came on top of `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            ns: self.ns.saturating_sub(earlier.ns),
            runs: self.runs.saturating_sub(earlier.runs),
        }
    }
}

/// A program in the kernel, whoever loaded it.
#[derive(Debug)]
pub(super) struct Program {
    fd: OwnedFd,
    /// `enum bpf_prog_type`.
    pub(super) kind: u32,
    /// Its first 15 letters.
    pub(super) name: String,
}

impl Program {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let info = info(&fd)?;
        let kind = u32::from_ne_bytes(info[..INFO_KIND_BYTES].try_into().expect("four bytes"));
        let name = info[INFO_NAME].split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        Ok(Self { fd, kind, name })
    }

    /// What it has cost so far.
    pub(super) fn cost(&self) -> io::Result<Cost> {
        let info = info(&self.fd)?;
        let [ns, runs] = [INFO_RUN_TIME_NS, INFO_RUN_CNT]
            .map(|at| u64::from_ne_bytes(info[at..at + 8].try_into().expect("eight bytes")));
        Ok(Cost { ns, runs })
    }

    /// Runs it once, with this as its only argument.
    pub(super) fn run(&self, argument: u64) -> io::Result<()> {
        // `ctx_in` has all arguments that a raw tracepoint may have.
        let arguments = [argument, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut attr = Attr::default();
        attr.0[0] = u64::from(number(&self.fd));
        attr.0[5] = u64::from(u32::try_from(size_of_val(&arguments)).expect("small"));
        attr.0[6] = arguments.as_ptr().expose_provenance() as u64;
        // SAFETY: the kernel reads `ctx_size_in` bytes of `ctx_in`: the length of `arguments`, which outlives the call.
        unsafe { call(BPF_PROG_TEST_RUN, &mut attr) }.map(drop)
    }
}

fn info(fd: &OwnedFd) -> io::Result<[u8; INFO_BYTES]> {
    let mut info = [0_u8; INFO_BYTES];
    let mut attr = Attr::default();
    attr.0[0] = pair(number(fd), u32::try_from(INFO_BYTES).expect("small"));
    attr.0[1] = info.as_mut_ptr().expose_provenance() as u64;
    // SAFETY: the kernel writes at most `info_len` bytes to `info`: the length of the array, which outlives the call.
    unsafe { call(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// All programs that are loaded, the oldest first.
pub(super) fn programs() -> io::Result<Vec<Program>> {
    let mut programs = Vec::new();
    let mut last = 0;
    loop {
        let mut attr = Attr::default();
        attr.0[0] = u64::from(last);
        // SAFETY: the attribute has no address.
        match unsafe { call(BPF_PROG_GET_NEXT_ID, &mut attr) } {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(programs),
            Err(error) => return Err(error),
        }
        last = u32::try_from(attr.0[0] >> 32).expect("half a word");
        let mut attr = Attr::default();
        attr.0[0] = u64::from(last);
        // SAFETY: the attribute has no address; the command gives a new descriptor.
        match unsafe { open(BPF_PROG_GET_FD_BY_ID, &mut attr) } {
            Ok(fd) => programs.push(Program::new(fd)?),
            // It was unloaded in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// Loads a raw-tracepoint program of these instructions, which uses no helper.
fn load(name: &str, instructions: &[u64]) -> io::Result<Program> {
    let license = c"GPL";
    let mut attr = Attr::default();
    attr.0[0] = pair(RAW_TRACEPOINT, u32::try_from(instructions.len()).expect("few"));
    attr.0[1] = instructions.as_ptr().expose_provenance() as u64;
    attr.0[2] = license.as_ptr().expose_provenance() as u64;
    let mut letters = [0; 16];
    for (letter, byte) in letters.iter_mut().take(15).zip(name.bytes()) {
        *letter = byte;
    }
    attr.0[6..8].copy_from_slice(
        &[0, 8].map(|at| u64::from_ne_bytes(letters[at..at + 8].try_into().expect("eight bytes"))),
    );
    // SAFETY: the kernel reads as many instructions as said, and a C string; both outlive the call. It gives a new descriptor.
    unsafe { open(BPF_PROG_LOAD, &mut attr) }.and_then(Program::new)
}

/// `mov r0, 0` and `exit`.
const LEAVE: [u64; 2] = [0xb7, 0x95];

/// A program that does nothing: what is counted of it is what counting costs.
pub(super) fn nothing() -> io::Result<Program> {
    load("bench_nothing", &LEAVE)
}

/// Memory of the kernel in which records can stand.
pub(super) struct Place {
    map: OwnedFd,
    address: u64,
    bytes: usize,
}

impl Place {
    /// As much as `bytes`.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let mut attr = Attr::default();
        attr.0[0] = pair(BPF_MAP_TYPE_ARRAY, 4);
        attr.0[1] = pair(u32::try_from(bytes).map_err(io::Error::other)?, 1);
        // SAFETY: the attribute has no address; the command gives a new descriptor.
        let map = unsafe { open(BPF_MAP_CREATE, &mut attr) }?;
        // r1 = the address of the value, in two halves; *r1 = r1. Opcode, registers, offset and operand are 8, 8, 16 and 32 bits.
        let load_address =
            0x18 | (BPF_PSEUDO_MAP_VALUE << 4 | 1) << 8 | u64::from(number(&map)) << 32;
        let store = 0x7b | 0x11 << 8;
        let tell = load("bench_address", &[load_address, 0, store, LEAVE[0], LEAVE[1]])?;
        tell.run(0)?;
        let mut place = Self { map, address: 0, bytes };
        let mut value = vec![0_u8; bytes];
        place.copy(BPF_MAP_LOOKUP_ELEM, &mut value)?;
        let told = value.first_chunk().ok_or_else(|| io::Error::other("a place too small"))?;
        place.address = u64::from_ne_bytes(*told);
        Ok(place)
    }

    /// Puts these bytes there; gives the address of the first. Afterwards nothing that stood there before does.
    pub(super) fn put(&self, bytes: &[u8]) -> io::Result<u64> {
        let mut value = bytes.to_vec();
        if value.len() > self.bytes {
            return Err(io::Error::other("more than there is place for"));
        }
        value.resize(self.bytes, 0);
        self.copy(BPF_MAP_UPDATE_ELEM, &mut value)?;
        Ok(self.address)
    }

    /// Copies the map's value, which is as long as `value`, into it or out of it.
    fn copy(&self, command: c_long, value: &mut [u8]) -> io::Result<()> {
        assert_eq!(value.len(), self.bytes);
        let key = 0_u32;
        let mut attr = Attr::default();
        attr.0[0] = u64::from(number(&self.map));
        attr.0[1] = std::ptr::from_ref(&key).expose_provenance() as u64;
        attr.0[2] = value.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: the kernel reads a key of four bytes, and reads or writes a value of the map's length, which is that of `value`; both
        // outlive the call.
        unsafe { call(command, &mut attr) }.map(drop)
    }
}
