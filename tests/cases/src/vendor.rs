// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vendor's module of `tests/vm/provider`: loaded with parameters, looked at and changed through sysfs, unloaded.

use std::env;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::raw::c_int;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::OFlags;
use rustix::system::{delete_module, finit_module};

/// Its name.
pub const NAME: &str = "mediate_testdev";
const C_NAME: &CStr = c"mediate_testdev";
/// Names the file; set by `cargo xtask test` and `cargo xtask vm run --device pci-testdev`.
const FILE: &str = "MIGSCOPE_PROVIDER";

/// The loaded module; dropping it unloads it.
#[derive(Debug)]
pub struct Vendor(());

impl Vendor {
    /// Loads it, with parameters as `insmod` takes them.
    ///
    /// # Errors
    ///
    /// What its initialisation failed with.
    ///
    /// # Panics
    ///
    /// When the file is not there.
    pub fn load(parameters: &str) -> io::Result<Self> {
        let path = env::var_os(FILE).unwrap_or_else(|| panic!("{FILE} names the vendor's module"));
        let file = File::open(&path).expect("the vendor's module was built");
        let parameters = CString::new(parameters).expect("parameters are text");
        finit_module(&file, &parameters, 0)?;
        Ok(Self(()))
    }

    /// Unloads it.
    ///
    /// # Errors
    ///
    /// What the kernel refused with; the module is still there then.
    pub fn unload(self) -> Result<(), (Self, io::Error)> {
        unload().map_err(|error| (self, error))
    }

    /// Reads a parameter.
    ///
    /// # Panics
    ///
    /// When there is none of this name.
    pub fn get(&self, parameter: &str) -> String {
        let text = fs::read_to_string(path(parameter)).expect("a parameter");
        text.trim().to_owned()
    }

    /// Reads a parameter that is a number.
    ///
    /// # Panics
    ///
    /// When it is none.
    pub fn count(&self, parameter: &str) -> u32 {
        self.get(parameter).parse().expect("a number")
    }

    /// Changes a parameter.
    ///
    /// # Panics
    ///
    /// When the module refuses.
    pub fn set(&self, parameter: &str, value: &str) {
        self.try_set(parameter, value).expect("the module takes the parameter");
    }

    /// Changes a parameter.
    ///
    /// # Errors
    ///
    /// What the module refused with.
    pub fn try_set(&self, parameter: &str, value: &str) -> io::Result<()> {
        fs::write(path(parameter), value)
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        match unload() {
            // `unload()` was called, and did it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) if !thread::panicking() => panic!("the vendor's module stays: {error}"),
            _ => {}
        }
    }
}

/// Unloads the module without waiting for its users.
///
/// # Errors
///
/// What the kernel refused with.
pub fn unload() -> io::Result<()> {
    let flags = c_int::try_from(OFlags::NONBLOCK.bits()).expect("a small flag");
    Ok(delete_module(C_NAME, flags)?)
}

fn path(parameter: &str) -> PathBuf {
    Path::new("/sys/module").join(NAME).join("parameters").join(parameter)
}

/// How many references a module has.
///
/// # Panics
///
/// When it is not loaded.
pub fn references(module: &str) -> i32 {
    let path = Path::new("/sys/module").join(module).join("refcnt");
    let text = fs::read_to_string(path).expect("the module is loaded");
    text.trim().parse().expect("a number")
}
