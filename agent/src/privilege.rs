// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the process may do, and how it gives that up.
//!
//! ```text
//!   start, root ──┬─ no new privileges, Landlock, seccomp: the whole process, before there is a second thread
//!                 │
//!                 ├─ sampler thread   all ── first try ──▶ CAP_BPF, CAP_PERFMON ── told to (drop-now) ─────▶ none
//!                 │                                        while a probe may come                           │
//!                 └─ every other      none, from the start                             seccomp: no more BPF programs, for all threads
//! ```
//!
//! Capabilities belong to threads, and one thread cannot take away another's. So they are not spread in the first place: the one
//! thread that loads and attaches probes ([`crate::sampler`]) is started while the process has them, and all others, which talk to
//! the network, are started after the main thread has given up its own. There is no moment at which a thread that parses what a
//! stranger sent has any.
//!
//! **What goes on without.** The kernel lets whoever holds the descriptor of a map or a program read it, whatever
//! `kernel.unprivileged_bpf_disabled` says: since Linux 5.19 that setting guards the making of maps and programs only (`map_create()`,
//! `bpf_prog_load()`). Before, it guarded every `bpf()` call; so the reading of the maps is tried without capabilities first, and where it
//! fails CAP_BPF is kept, and the log says so ([`Holder::settle`]). The run time of programs is counted as long as a descriptor of
//! `BPF_ENABLE_STATS` is open, which took CAP_SYS_ADMIN to open and takes nothing to keep. `/proc/PID/cmdline`, `/proc/self/fdinfo` and sysfs
//! are readable for the user that we still are.
//!
//! **What does not.** A key or a web configuration that only root's power over other users' files opened cannot be read again: it
//! has to be readable for the user that the agent runs as. Programs cannot be loaded again without a restart.

mod capabilities;
mod confine;

pub use confine::{Confined, confine};

use crate::{logging::name, probes::attach::chain};
use clap::ValueEnum;
use rustix::thread::CapabilitySet;
use serde::Deserialize;
use std::{fmt, io};
use tracing::{debug, info, warn};

/// What becomes of the privileges.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One thread keeps CAP_BPF and CAP_PERFMON, for probes that come and go with devices and drivers; all others are given up.
    Drop,
    /// All are given up after the first try; a probe that was missing or had nothing to do stays so.
    DropNow,
    /// None is given up, for debugging.
    Keep,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        name(self, f)
    }
}

/// Giving up failed, so that the process has more privileges than it says.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The kernel refused.
    #[error("failed to give up {0}; run with --privileges keep if it may keep them")]
    Refused(&'static str, #[source] io::Error),
    /// The kernel did not refuse, and yet they are there.
    #[error("capabilities are still there after they were given up")]
    StillThere,
}

/// Gives up the calling thread's capabilities, all of them. Threads that it starts have none.
///
/// # Errors
///
/// [`PrivilegeError`].
pub fn give_up_all() -> Result<(), PrivilegeError> {
    capabilities::keep_only(CapabilitySet::empty())
}

/// The capabilities of the thread that attaches probes. All its methods are for that thread.
#[derive(Debug)]
pub struct Holder {
    mode: Mode,
    held: Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Whatever the process was started with.
    All,
    /// What attaching takes.
    ToAttach,
    /// Nothing, or what reading takes on an old kernel: nothing more can be attached.
    Settled,
}

impl Holder {
    /// For a thread that still has what the process was started with.
    pub fn new(mode: Mode) -> Self {
        Self { mode, held: Held::All }
    }

    /// Whether it is of any use to try to attach something.
    pub fn may_attach(&self) -> bool {
        self.held != Held::Settled
    }

    /// Gives up what is no longer needed, after a try to attach that left `complete` or not; `read` reads the probes' maps, which
    /// has to go on working.
    ///
    /// # Errors
    ///
    /// [`PrivilegeError`].
    pub fn settle(
        &mut self,
        complete: bool,
        read: impl FnMut() -> bool,
    ) -> Result<(), PrivilegeError> {
        let attach = CapabilitySet::BPF | CapabilitySet::PERFMON;
        match (self.mode, complete) {
            (Mode::Keep, _) => {}
            (Mode::Drop, false) if self.held == Held::All => {
                capabilities::keep_only(attach)?;
                self.held = Held::ToAttach;
                info!(
                    "probes come and go: CAP_BPF and CAP_PERFMON are kept by the thread that attaches them"
                );
            }
            (Mode::Drop, false) => {}
            (Mode::Drop | Mode::DropNow, _) if self.held != Held::Settled => {
                self.settle_for_good(complete, read)?;
            }
            (Mode::Drop | Mode::DropNow, _) => {}
        }
        Ok(())
    }

    fn settle_for_good(
        &mut self,
        complete: bool,
        read: impl FnMut() -> bool,
    ) -> Result<(), PrivilegeError> {
        self.held = Held::Settled;
        if capabilities::works_without(read)? {
            give_up_all()?;
            info!(complete, "all capabilities were given up");
        } else {
            capabilities::keep_only(CapabilitySet::BPF)?;
            warn!(
                "this kernel lets nobody read maps without CAP_BPF, which is kept; Linux 5.19 does"
            );
        }
        match confine::no_more_programs() {
            Ok(()) => debug!("no more BPF programs can be loaded or attached"),
            Err(error) => {
                info!(error = chain(&error), "seccomp does not guard bpf() here")
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_keeps_and_goes_on_trying() {
        let mut holder = Holder::new(Mode::Keep);
        for complete in [false, true] {
            holder.settle(complete, || panic!("nothing is to be tried")).expect("nothing to do");
            assert!(holder.may_attach());
        }
    }

    /// Capabilities are the thread's, so a test can give up its own. seccomp is the process's, and is tried in a process of its own
    /// (`tests/privileges.rs`).
    #[test]
    fn a_thread_that_gave_up_its_capabilities_has_none_left() {
        std::thread::spawn(|| {
            let attach = CapabilitySet::BPF | CapabilitySet::PERFMON;
            let before = capabilities::held().expect("readable");
            capabilities::keep_only(attach).expect("possible");
            assert_eq!(capabilities::held().expect("readable"), before & attach);
            give_up_all().expect("possible");
            assert_eq!(capabilities::held().expect("readable"), CapabilitySet::empty());
            give_up_all().expect("nothing is left to give up");
        })
        .join()
        .expect("no assertion failed");
    }

    #[test]
    fn what_is_tried_without_capabilities_has_none_and_gets_them_back() {
        std::thread::spawn(|| {
            let before = capabilities::held().expect("readable");
            let mut seen = None;
            let works = capabilities::works_without(|| {
                seen = capabilities::effective().ok();
                false
            });
            assert!(!works.expect("possible"));
            assert_eq!(seen, Some(CapabilitySet::empty()));
            assert_eq!(capabilities::held().expect("readable"), before);
        })
        .join()
        .expect("no assertion failed");
    }
}
