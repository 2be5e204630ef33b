// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's sample driver mtty (`samples/vfio-mdev/mtty.c`), which speaks the v2 protocol: data comes by `read()` of a file.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use vfio_ioctls::{VfioContainer, VfioDevice};

use crate::result::Runs;
use crate::sys::{self, MigrationState};

const UUID: &str = "8d3a9c7e-6f04-4a55-9a4e-2c1b7d5e0f11";
const TYPE: &str = "/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1";
/// How often the file is read to its end in a run: the device has little to say.
const SAVES: u32 = 50;
const READ_BYTES: usize = 1 << 20;

/// A mediated device of mtty, which goes with the value.
pub(super) struct Mtty {
    // Closed before the device that it is of is removed.
    device: Option<VfioDevice>,
    pub(super) container: Arc<VfioContainer>,
    sysfs: PathBuf,
}

impl Mtty {
    pub(super) fn create() -> Result<Self> {
        let status = Command::new("modprobe").arg("mtty").status().context("modprobe")?;
        ensure!(status.success(), "modprobe mtty: {status}");
        fs::write(Path::new(TYPE).join("create"), UUID).context("failed to create the device")?;
        let sysfs = Path::new("/sys/bus/mdev/devices").join(UUID);
        let container = Arc::new(VfioContainer::new(None).context("no container")?);
        let device = VfioDevice::new(&sysfs, Arc::<VfioContainer>::clone(&container), false)
            .context("failed to open the device")?;
        Ok(Self { device: Some(device), container, sysfs })
    }

    fn set(&self, state: MigrationState) -> Result<Option<OwnedFd>> {
        let device = self.device.as_ref().context("it is open")?;
        sys::set_migration_state(device, state).with_context(|| format!("{state:?}"))
    }
}

impl Drop for Mtty {
    fn drop(&mut self) {
        self.device = None;
        if let Err(error) = fs::write(self.sysfs.join("remove"), "1") {
            eprintln!("warning: the device of mtty stays: {error}");
        }
    }
}

/// Bytes a second of `read()` in stop-and-copy.
pub(super) fn read(runs: u32) -> Result<Runs> {
    let mtty = Mtty::create()?;
    let mut into = vec![0; READ_BYTES];
    let mut results = Runs::default();
    for _ in 0..runs {
        let (mut bytes, mut took) = (0, std::time::Duration::ZERO);
        for _ in 0..SAVES {
            let data = mtty.set(MigrationState::StopCopy)?.context("no file for the data")?;
            let began = Instant::now();
            loop {
                match rustix::io::read(&data, &mut into)? {
                    0 => break,
                    some => bytes += some,
                }
            }
            took += began.elapsed();
            drop(data);
            mtty.set(MigrationState::Running)?;
        }
        ensure!(bytes > 0, "mtty has no data");
        results.add_bytes(bytes, took);
    }
    Ok(results)
}
