// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The machine is suspended while a device is in each state (`pm_test`, the level *devices*).
//!
//! The guest does not live on from that: its root comes by virtio's 9p, and what this program says by virtio's console, and in
//! Linux 7.3 the one does not come back at all and the other says no more. So the program takes all that it needs into memory
//! before, says what it found in the kernel's log, which goes to the serial console, and crashes the guest. The line that it
//! says looks like a complaint of the kernel's, for those are shown to whoever runs the guest.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use migscope_abi::state::State;

use crate::session::{PATIENCE, Session};

/// What is said when all is well; `xtask` looks for it.
const GOOD: &str = "migscope-suspend: every state was kept";
const STATES: [State; 5] =
    [State::Running, State::PreCopy, State::StopAndCopy, State::Stopped, State::Resuming];

/// The program.
pub fn main() -> ExitCode {
    // Its message would go to where nobody hears it, and its backtrace read the program's file.
    panic::set_hook(Box::new(|_| {}));
    let outcome = panic::catch_unwind(AssertUnwindSafe(suspend_in_each_state));
    let line = match outcome {
        Ok(Ok(())) => GOOD.to_owned(),
        Ok(Err(error)) => format!("migscope-suspend: {error}"),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            format!("migscope-suspend: {}", text.unwrap_or("it panicked"))
        }
    };
    let said = fs::write("/dev/kmsg", format!("<4>WARNING: {}", line.replace('\n', " ")))
        .and_then(|()| fs::write("/proc/sysrq-trigger", "c"));
    eprintln!("the guest lives on: {said:?}");
    ExitCode::FAILURE
}

/// Reads all files that this program is mapped from, and keeps its memory where it is.
fn stay_in_memory() -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let files = maps.lines().filter_map(|line| line.split_once('/').map(|(_, path)| path));
    for file in files {
        // What cannot be read, such as a device, is not a part of the program.
        let _content = fs::read(format!("/{file}"));
    }
    rustix::mm::mlockall(rustix::mm::MlockAllFlags::CURRENT)?;
    Ok(())
}

fn suspend_in_each_state() -> io::Result<()> {
    let mut session = Session::first();
    session.store(1, 1000);
    let registers = session.device.edu().snapshot()?;
    stay_in_memory()?;
    fs::write("/sys/module/suspend/parameters/pm_test_delay", "1")?;
    fs::write("/sys/power/pm_test", "devices")?;
    let mut found = String::new();
    for state in STATES {
        session.bring_to(state);
        fs::write("/sys/power/state", "freeze")?;
        let now = session.state();
        if now != state {
            let _infallible = write!(found, "{} became {}; ", state.name(), now.name());
        }
        session.region.reset().map_err(io::Error::other)?;
    }
    if !found.is_empty() {
        return Err(io::Error::other(found));
    }
    // A transfer that was under way is in the log, and the device is what it was.
    session.bring_to(State::PreCopy);
    session.device.edu().start(session.store_to(5, 1000))?;
    fs::write("/sys/power/state", "freeze")?;
    session.device.edu().wait_for_transfer(PATIENCE)?;
    let dirty = session.dirty();
    if dirty != [5] {
        return Err(io::Error::other(format!("pages {dirty:?} are dirty, and not 5 alone")));
    }
    if session.image().is_empty() {
        return Err(io::Error::other("there is no image"));
    }
    let now = session.device.edu().snapshot()?;
    if now.liveness != registers.liveness || now.factorial != registers.factorial {
        return Err(io::Error::other(format!("{registers:?} became {now:?}")));
    }
    Ok(())
}
