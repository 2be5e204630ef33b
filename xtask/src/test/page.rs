// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The live page in headless Chromium: before an agent that is told what to show, and before the agent in the guest while a device
//! migrates.
//!
//! Chromium runs on the host, and the guest's ports come out on its loopback: in the emulated guest it would be too slow.

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::counted;
use super::report::{Counts, Report};
use crate::build_driver;
use crate::kernel::{Kernel, Variant};
use crate::programs::{self, Programs};
use crate::vm::{self, Forward, Machine, Outcome, Streams, Task};
use crate::workspace::Workspace;

/// Any of them will do; the tests take the first that is there.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// The agent's port and that of the commands, in the guest.
const PORTS: [u16; 2] = [10477, 10478];
/// Far more than a boot and a migration need.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Where the tests put pictures, if at all.
const PICTURES: &str = "MIGSCOPE_SCREENSHOTS";

/// Both steps; without a browser they did not run.
pub(crate) fn steps(workspace: &Workspace, pictures: Option<&Path>, report: &mut Report) {
    let browser = browser();
    report.step("live page in Chromium", || match browser {
        Some(_) => counted(&mut cargo(workspace, "browser", pictures)?),
        None => Ok(not_run()),
    });
    report.step("live page of a migration in the guest", || match browser {
        Some(_) => in_guest(workspace, pictures),
        None => Ok(not_run()),
    });
}

fn not_run() -> Counts {
    eprintln!("not run: none of {} is installed (apt-get install chromium)", BROWSERS.join(", "));
    Counts { ignored: 1, ..Counts::default() }
}

fn browser() -> Option<&'static str> {
    let path = std::env::var_os("PATH")?;
    BROWSERS.into_iter().find(|name| std::env::split_paths(&path).any(|it| it.join(name).is_file()))
}

fn cargo(workspace: &Workspace, test: &str, pictures: Option<&Path>) -> Result<Command> {
    let mut command = programs::cargo(workspace)?;
    command.args(["test", "--package", "migscope", "--test", test]);
    // Each test has a Chromium of its own, and together they would be slower than one by one.
    command.args(["--", "--test-threads=1", "--nocapture"]);
    if let Some(folder) = pictures {
        command.env(PICTURES, folder);
    }
    Ok(command)
}

fn in_guest(workspace: &Workspace, pictures: Option<&Path>) -> Result<Counts> {
    let kernel = Kernel::ensure(workspace, Variant::Ours)?;
    let driver = build_driver::build(workspace, &kernel.build_tree())?;
    let programs = Programs::build(workspace)?;
    let mut test = cargo(workspace, "browser_guest", pictures)?;

    // Held until all are found, or two might be one.
    let free: Vec<_> = PORTS
        .iter()
        .map(|_| TcpListener::bind(("127.0.0.1", 0)).context("failed to find a free TCP port"))
        .collect::<Result<_>>()?;
    let mut forwards = Vec::new();
    for (listener, guest) in free.iter().zip(PORTS) {
        let host = listener.local_addr().context("failed to ask for a port's number")?.port();
        forwards.push(Forward { host, guest });
    }
    drop(free);
    if let [page, stage] = forwards.as_slice() {
        test.env("MIGSCOPE_PAGE", format!("http://127.0.0.1:{}/", page.host));
        test.env("MIGSCOPE_STAGE", format!("127.0.0.1:{}", stage.host));
    }
    let [agent, control] = PORTS.map(|port| format!("0.0.0.0:{port}"));
    let argv = vec![
        programs.stage.clone().into(),
        "--agent".into(),
        agent.into(),
        "--control".into(),
        control.into(),
    ];
    let task = Task {
        argv,
        environment: programs.environment(),
        driver: Some(&driver),
        timeout: Some(TIMEOUT),
    };
    let machine = Machine { forwards, ..Machine::default() };
    let streams =
        Streams::Separate { stdout: Box::new(io::stderr()), stderr: Box::new(io::stderr()) };
    // The guest here, the test beside it: it waits for the guest, and tells it to end.
    std::thread::scope(|scope| {
        let test = scope.spawn(move || counted(&mut test));
        let guest = vm::boot(workspace, &kernel, &machine, task, streams);
        let counts =
            test.join().map_err(|_panic| anyhow!("the thread that runs the test died"))??;
        match guest? {
            Outcome::Ended { status, .. } => Ok(counts.or_failed(status.code() == 0)),
            // What the test said comes first: a guest that nobody told to end is a consequence.
            _ if counts.failed > 0 => Ok(counts),
            Outcome::TimedOut { limit } => bail!("it did not end within {} s", limit.as_secs()),
            Outcome::GuestFailed { reason } => bail!("{reason}"),
        }
    })
}
