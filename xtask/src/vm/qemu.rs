// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's command line, every odd flag with its story.

use std::path::Path;
use std::process::Command;

use super::job::{CONTROL, STDERR, STDOUT};
use super::{Device, Machine, tsc};
use crate::child;
use crate::kernel::Bootable;

/// The first slot of the devices under test. Fixed, so that an address in a test or a log means the
/// same device whatever else is plugged in; QEMU fills lower slots by itself.
const FIRST_SLOT: usize = 0x10;

/// The PCI addresses of the devices, as the guest sees them.
pub(crate) fn addresses(devices: &[Device]) -> Vec<String> {
    (FIRST_SLOT..).take(devices.len()).map(|slot| format!("0000:00:{slot:02x}.0")).collect()
}

/// The sockets that QEMU connects to, in xtask's scratch folder.
pub(crate) const CONSOLE_SOCKET: &str = "console";
pub(crate) const CONTROL_SOCKET: &str = "control";
pub(crate) const STDOUT_SOCKET: &str = "stdout";
pub(crate) const STDERR_SOCKET: &str = "stderr";
pub(crate) const TERMINAL_SOCKET: &str = "terminal";
pub(crate) const INITRAMFS: &str = "initramfs.cpio";

/// The whole command; `scratch` holds the sockets and the initramfs.
pub(crate) fn command(
    machine: &Machine,
    kernel: &dyn Bootable,
    scratch: &Path,
    terminal: bool,
) -> Command {
    let mut qemu = child::bound("qemu-system-x86_64");
    let socket = |id: &str| format!("socket,id={id},path={}", scratch.join(id).display());

    // Nothing that we did not ask for: no default network card, VGA or monitor, no user's config.
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    // A guest that panics (panic=-1: at once) or resets ends QEMU instead of booting again.
    qemu.arg("-no-reboot");

    // The Intel IOMMU exists on q35 only, and its interrupt remapping needs the split irqchip.
    qemu.args(["-machine", "q35,kernel-irqchip=split"]);
    // Software emulation, one thread a CPU, also where KVM is to be had: one thing to test, and the
    // times that tests record stay comparable. `max` has the features that eBPF's JIT likes, and SVM.
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
    qemu.args(["-smp", &machine.cpus.to_string(), "-m", &format!("{}M", machine.memory_mib)]);
    // caching-mode: without it the guest's VFIO refuses nothing, but a QEMU inside the guest could
    // not pass devices on. It has to come before the devices that it translates for.
    qemu.args(["-device", "intel-iommu,intremap=on,caching-mode=on"]);

    qemu.arg("-kernel").arg(kernel.image());
    qemu.arg("-initrd").arg(scratch.join(INITRAMFS));
    // loglevel=5 prints warnings and worse (`quiet`, 4, would hide every WARNING); oops=panic ends a
    // guest whose kernel is in an unknown state. no_timer_check: at boot the kernel waits ten ticks for
    // the timer's interrupts and panics without them ("timer doesn't work through Interrupt-remapped
    // IO-APIC"); on a busy host one emulated boot in ten got none in that time.
    let mut append =
        "console=ttyS0 loglevel=5 panic=-1 oops=panic intel_iommu=on no_timer_check".to_owned();
    // While the boot CPU is identified its features read as none, five-level paging too; an interrupt in that
    // moment has KASAN take a good address for a wild one.
    if kernel.watches_itself() {
        append += " no5lvl";
    }
    if let Some(khz) = tsc::khz() {
        append += &format!(" tsc_early_khz={khz}");
    }
    qemu.args(["-append", &append]);

    qemu.args(["-chardev", &socket(CONSOLE_SOCKET)]);
    qemu.args(["-serial", &format!("chardev:{CONSOLE_SOCKET}")]);
    qemu.args(["-device", "virtio-serial-pci"]);
    for (id, name) in [(CONTROL_SOCKET, CONTROL), (STDOUT_SOCKET, STDOUT), (STDERR_SOCKET, STDERR)]
    {
        qemu.args(["-chardev", &socket(id)]);
        qemu.args(["-device", &format!("virtserialport,chardev={id},name={name}")]);
    }
    if terminal {
        qemu.args(["-chardev", &socket(TERMINAL_SOCKET)]);
        qemu.args(["-device", &format!("virtconsole,chardev={TERMINAL_SOCKET}")]);
    }

    // security_model=none keeps owners and modes as they are. remap: / spans several file systems,
    // whose inode numbers would collide in the guest.
    qemu.args([
        "-virtfs",
        "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
    ]);

    if !machine.forwards.is_empty() {
        let forwards: String = machine
            .forwards
            .iter()
            .map(|it| format!(",hostfwd=tcp:127.0.0.1:{}-:{}", it.host, it.guest))
            .collect();
        qemu.args(["-netdev", &format!("user,id=net{forwards}")]);
        qemu.args(["-device", "virtio-net-pci,netdev=net"]);
    }

    for (slot, device) in (FIRST_SLOT..).zip(&machine.devices) {
        qemu.args(device.arguments(slot));
    }
    qemu.args(&machine.qemu_args);
    qemu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_fixed_addresses() {
        assert_eq!(addresses(&[Device::Edu, Device::Edu]), ["0000:00:10.0", "0000:00:11.0"]);
        assert!(addresses(&[]).is_empty());
    }
}
