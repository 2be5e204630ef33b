// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host and the guest's side of xtask tell each other.
//!
//! The job travels in the initramfs, before the guest runs; events travel on the control port, one
//! JSON object a line. `OsString` serialises as its bytes, so arguments arrive exactly as they were
//! typed, whatever is in them; no shell ever sees them.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

/// Where the initramfs leaves the job, in the guest's root.
pub(crate) const JOB: &str = "/run/migscope/job.json";

/// The virtio ports, by the name that QEMU gives them.
pub(crate) const CONTROL: &str = "migscope.control";
/// The command's standard output.
pub(crate) const STDOUT: &str = "migscope.stdout";
/// The command's standard error.
pub(crate) const STDERR: &str = "migscope.stderr";

/// What the guest has to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) argv: Vec<OsString>,
    pub(crate) directory: OsString,
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The folder that becomes `/lib/modules/RELEASE`.
    pub(crate) modules: OsString,
    /// Modules of that folder that are loaded before anything else is done.
    pub(crate) load: Vec<String>,
    /// `vfio_mediate.ko`, if it is to be loaded.
    pub(crate) driver: Option<OsString>,
    /// PCI addresses of the devices that the driver gets.
    pub(crate) devices: Vec<String>,
    /// The kernel watches itself: look at what it found when the command has ended, see
    /// [`watch`](super::watch).
    pub(crate) watched: bool,
    pub(crate) network: bool,
    /// The command talks to a terminal on the virtio console instead of the two ports.
    pub(crate) terminal: Option<Terminal>,
}

/// A terminal's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terminal {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

/// What happened in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// `xtask guest` runs.
    Booted,
    /// The driver is loaded; the time that init_module took, and that binding the devices took.
    DriverLoaded { load_ns: u64, bind_ns: u64 },
    /// The KUnit suites that the driver brought, which ran while it was loaded.
    KUnit { suites: Vec<Suite> },
    /// The command starts.
    Started,
    /// The driver is gone again; what the kernel has against that, if anything.
    Watched { findings: Vec<String> },
    /// The command has ended and its output is through.
    Ended {
        status: Status,
        /// `/proc/sys/kernel/tainted`.
        taint: u64,
    },
    /// The guest could not do its job.
    Failed { message: String },
}

/// A KUnit suite that has run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suite {
    pub(crate) name: String,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// Its results as the kernel keeps them, in KTAP.
    pub(crate) results: String,
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// With this exit code.
    Exited(u8),
    /// By this signal.
    Signaled(u8),
}

impl Status {
    /// As a shell tells it: a signal is 128 and its number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128_u8.saturating_add(signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn arguments_survive_byte_for_byte() {
        let all_but_nul: Vec<u8> = (1..=255).collect();
        let argv: Vec<OsString> = [&b""[..], b" ", b"'\"$(x)\\", b"\n", b"\xff\xfe", &all_but_nul]
            .map(|bytes| OsString::from_vec(bytes.to_vec()))
            .into();
        let job = Job {
            argv,
            directory: OsString::from_vec(b"/tmp/\xff".to_vec()),
            environment: vec![("A".into(), OsString::from_vec(vec![0xff]))],
            modules: "/m".into(),
            load: vec!["vfio-pci".to_owned()],
            driver: None,
            watched: false,
            devices: vec!["0000:00:10.0".to_owned()],
            network: false,
            terminal: Some(Terminal { rows: 24, columns: 80 }),
        };
        let text = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
    }

    #[test]
    fn a_signal_gives_the_code_that_a_shell_gives() {
        assert_eq!(Status::Exited(3).code(), 3);
        assert_eq!(Status::Signaled(9).code(), 137);
    }
}
