// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel inside of a bzImage (Documentation/arch/x86/boot.rst).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::child;

/// Of the setup header: how many sectors of real mode code there are; where what is compressed lies after them.
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR_BYTES: usize = 512;
const XZ: &[u8] = b"\xfd7zXZ\0";

/// Writes the ELF file that is in an image; its symbols are gone, its BTF is there.
pub(super) fn unpack(image: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| format!("failed to read {}", image.display()))?;
    let payload = payload(&bytes)
        .with_context(|| format!("{} is no bzImage of protocol 2.08", image.display()))?;
    ensure!(payload.starts_with(XZ), "{} is not compressed by xz", image.display());
    let output = File::create(to).with_context(|| format!("failed to make {}", to.display()))?;
    let mut xz = child::bound("xz");
    // After the stream comes its length, for the boot loader.
    xz.args(["--decompress", "--stdout", "--single-stream"]).stdin(Stdio::piped()).stdout(output);
    let mut child = xz.spawn().context("failed to start xz")?;
    child.stdin.take().context("xz has no stdin")?.write_all(payload).context("xz stopped")?;
    let status = child.wait().context("failed to wait for xz")?;
    ensure!(status.success(), "{} failed: {status}", child::show(&xz));
    Ok(())
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let setup = (usize::from(*image.get(SETUP_SECTORS)?) + 1) * SECTOR_BYTES;
    let start = setup.checked_add(word(PAYLOAD_OFFSET)?)?;
    image.get(start..start.checked_add(word(PAYLOAD_LENGTH)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_where_the_header_says() {
        let mut image = vec![0; 4 * SECTOR_BYTES];
        image[SETUP_SECTORS] = 1;
        image[PAYLOAD_OFFSET] = 16;
        image[PAYLOAD_LENGTH] = 3;
        image[2 * SECTOR_BYTES + 16..2 * SECTOR_BYTES + 19].copy_from_slice(b"abc");
        assert_eq!(payload(&image), Some(&b"abc"[..]));
        image[PAYLOAD_LENGTH + 3] = 1;
        assert_eq!(payload(&image), None, "it ends beyond the file");
        assert_eq!(payload(&image[..100]), None);
    }
}
