// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A process that writes a mapping it got from its parent by `fork()`, and may die of it.
//!
//! A write that the kernel refuses is a SIGBUS, of which there is no surviving in a test. So a child does it, and its parent sees
//! how it ended. It is a virtual processor of its own, too: one that nobody can ask to pause.
#![expect(unsafe_code, reason = "no safe call makes a process that shares its parent's mappings")]

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use workload::content::Write;
use workload::mapping::{Mapping, WORD_BYTES};

use crate::session::PATIENCE;

/// How often it is looked whether a child has ended.
const POLL: Duration = Duration::from_millis(5);

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It wrote everything.
    Done,
    /// It tried to write what is not to be written.
    BusError,
    /// Its parent had it killed.
    Killed,
}

/// How often it goes through the writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounds {
    /// Once.
    One,
    /// Until it is stopped; the number of the round is added to each word.
    Endless,
}

/// A running child; it ends with the value, since the mapping that it has keeps a device open.
#[derive(Debug)]
pub struct Child(Option<Pid>);

impl Child {
    /// Starts a child that makes these writes in their order, and after each stores to the first word of `progress` how many it
    /// has made.
    ///
    /// # Errors
    ///
    /// What `fork()` failed with.
    ///
    /// # Panics
    ///
    /// When a write, or the first word of `progress`, lies outside of its mapping.
    pub fn writing(
        memory: &Mapping,
        writes: &[Write],
        rounds: Rounds,
        progress: &Mapping,
    ) -> io::Result<Self> {
        let place = |write: &Write| usize::try_from(write.at()).expect("a place of a mapping");
        let stores: Vec<(usize, u64)> =
            writes.iter().map(|write| (place(write), write.word)).collect();
        let inside = |(at, _): &(usize, u64)| *at + WORD_BYTES <= memory.bytes();
        assert!(stores.iter().all(inside), "a write outside of the mapping");
        assert!(progress.bytes() >= WORD_BYTES);
        // SAFETY: in the child of a process with several threads only what is async-signal-safe may be called. The child calls
        // nothing of the kind: it stores to memory that is mapped, by atomic operations, and leaves by `_exit`. A place that is
        // outside would panic, which allocates: the parent has looked before.
        match unsafe { libc::fork() } {
            0 => {
                store_all(memory, &stores, rounds, progress);
                // SAFETY: `_exit` may be called at any time; the parent's buffers and destructors are not run twice.
                unsafe { libc::_exit(0) }
            }
            child => match Pid::from_raw(child) {
                Some(child) if !child.is_init() => Ok(Self(Some(child))),
                _ => Err(io::Error::last_os_error()),
            },
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// What waiting failed with; [`io::ErrorKind::TimedOut`] when it does not end by itself, and then it is killed; the status of a
    /// child that ended in another way.
    pub fn wait(mut self) -> io::Result<End> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some((_, status)) = waitpid(self.0, WaitOptions::NOHANG)? {
                self.0 = None;
                return end(status);
            }
            std::thread::sleep(POLL);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the child writes on"))
    }

    /// Kills it.
    ///
    /// # Errors
    ///
    /// As [`Self::wait`].
    pub fn kill(self) -> io::Result<End> {
        if let Some(child) = self.0 {
            kill_process(child, Signal::KILL)?;
        }
        self.wait()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            // A child that has ended and was not waited for can be killed once more.
            let _killed = kill_process(child, Signal::KILL);
            let _ended = waitpid(Some(child), WaitOptions::empty());
        }
    }
}

fn end(status: WaitStatus) -> io::Result<End> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), None) => Ok(End::Done),
        (None, Some(libc::SIGBUS)) => Ok(End::BusError),
        (None, Some(libc::SIGKILL)) => Ok(End::Killed),
        _ => Err(io::Error::other(format!("the child ended with {status:?}"))),
    }
}

/// The child's whole life.
fn store_all(memory: &Mapping, stores: &[(usize, u64)], rounds: Rounds, progress: &Mapping) {
    let mut made = 0;
    let mut round = 0;
    loop {
        for (at, word) in stores {
            memory.store(*at, word.wrapping_add(round));
            made += 1;
            progress.store(0, made);
        }
        if rounds == Rounds::One {
            return;
        }
        round += 1;
    }
}
