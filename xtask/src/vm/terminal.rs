// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The caller's terminal, lent to a guest.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::job::Terminal;

/// A terminal in raw mode; as before when dropped.
pub(crate) struct Raw {
    before: Termios,
    size: Terminal,
}

impl Raw {
    pub(crate) fn enter() -> Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd())
            .context("standard input is no terminal; `vm run -- CMD` needs none")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        let size = size()?;
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).context("failed to set the terminal up")?;
        Ok(Self { before, size })
    }

    pub(crate) fn size(&self) -> Terminal {
        self.size
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _gone = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

fn size() -> Result<Terminal> {
    let output = std::process::Command::new("stty")
        .arg("size")
        .stderr(std::process::Stdio::null())
        .output()
        .context("failed to run stty")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        // A serial line knows no size and says 0 0.
        (Some(Ok(rows @ 1..)), Some(Ok(columns @ 1..))) => Ok(Terminal { rows, columns }),
        _ => Ok(Terminal { rows: 24, columns: 80 }),
    }
}

/// Passes keys to the guest for as long as there are any, in a thread that nobody waits for: it ends
/// with the program, a read from a terminal cannot be called off.
pub(crate) fn forward_keys(mut guest: UnixStream) {
    std::thread::spawn(move || {
        let mut stdin = io::stdin();
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = stdin.read(&mut buffer) {
            if guest.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
    });
}
