// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A page as a picture, by a headless Chromium.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::child;

/// Any of them will do.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, if there is one.
pub(super) fn find() -> Result<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&str| std::env::split_paths(&path).any(|it| it.join(name).is_file());
    PROGRAMS.into_iter().find(is_there).with_context(|| {
        format!("none of {} is installed (apt-get install chromium)", PROGRAMS.join(", "))
    })
}

/// Draws a page of this size in pixels.
pub(super) fn picture(
    program: &str,
    page: &Path,
    (width, height): (u32, u32),
    into: &Path,
) -> Result<()> {
    let profile = tempfile::tempdir().context("failed to make a scratch folder")?;
    let mut command = child::bound(program);
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--hide-scrollbars", "--force-color-profile=srgb", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update"])
        .args(["--disable-extensions", "--disable-sync", "--force-device-scale-factor=1"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},{height}"))
        .arg(format!("--screenshot={}", into.display()))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let shown = child::show(&command);
    let mut running = command.spawn().with_context(|| format!("failed to start {shown}"))?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match running.try_wait().context("failed to look at Chromium")? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                running.kill().context("failed to end Chromium")?;
                running.wait().context("failed to wait for Chromium")?;
                bail!("{shown} did not end within {} s", PATIENCE.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    ensure!(status.success() && into.is_file(), "{shown} drew nothing: {status}");
    Ok(())
}
