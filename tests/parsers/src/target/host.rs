// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What procfs and sysfs say: of the process that has a device open, of the device, of the kernel. The input is parts, divided by the
//! byte 255: the command line, the control groups, and the text of every other file.
//!
//! Held against it: a name and a UUID become labels, so they are short; and what QEMU is told, and systemd writes, is what is read:
//! the name of a machine comes back through the escapes of both.

use crate::{Seed, scratch::Scratch};
use migscope::device_key::DeviceKey;
use migscope::{
    feed::Describe as _,
    host::{Paths, kernel, process, vfio},
};
use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
};

/// Between the parts: no UTF-8 has it.
const END: u8 = 0xff;
const PID: u32 = 7;
/// As much of a name as is kept.
const NAME_CHARS: usize = 128;
const ADDRESS: &str = "0000:00:10.0";

thread_local! {
    static SCRATCH: Scratch = Scratch::new().expect("a folder");
}

/// Writes the files and reads them as the agent does.
///
/// # Panics
///
/// When something is wrong.
pub fn run(input: &[u8]) {
    let mut parts = input.split(|byte| *byte == END);
    let mut part = || parts.next().unwrap_or_default();
    let (line, groups, text) = (part(), part(), part());
    SCRATCH.with(|scratch| {
        let tree = Tree::new(scratch);
        tree.write(line, groups, text).expect("the files can be written");
        tree.machine();
        tree.rest(text);
        if let Ok(name) = std::str::from_utf8(text) {
            tree.name_comes_back(name);
        }
    });
    let _ = kernel::is_new_enough(&String::from_utf8_lossy(text));
}

/// procfs and sysfs in a folder.
struct Tree<'a> {
    scratch: &'a Scratch,
    paths: Paths,
}

impl<'a> Tree<'a> {
    fn new(scratch: &'a Scratch) -> Self {
        let paths =
            Paths { procfs: scratch.path().join("proc"), sysfs: scratch.path().join("sys") };
        Self { scratch, paths }
    }

    fn write(&self, line: &[u8], groups: &[u8], text: &[u8]) -> io::Result<()> {
        let Self { scratch, .. } = self;
        scratch.write("proc/7/cmdline", line)?;
        scratch.write("proc/7/cgroup", groups)?;
        scratch.write("proc/self/status", text)?;
        scratch.write("proc/sys/kernel/perf_event_paranoid", text)?;
        scratch.write("sys/kernel/security/lockdown", text)?;
        let folder = scratch.path().join("sys/bus/pci/devices").join(ADDRESS);
        fs::create_dir_all(&folder)?;
        link(text, &folder.join("driver"))?;
        link(groups, &folder.join("iommu_group"))
    }

    fn machine(&self) {
        let info = self.paths.describe(DeviceKey::parse(ADDRESS).expect("an address"), Some(PID));
        let info = info.expect("there is somebody to ask");
        let machine = process::machine(&self.paths, PID).unwrap_or_default();
        assert_eq!(machine.name.clone().unwrap_or_default(), info.vm);
        for told in [machine.name, machine.uuid].into_iter().flatten() {
            assert!(told.chars().count() <= NAME_CHARS && !told.is_empty(), "{told:?}");
        }
    }

    fn rest(&self, text: &[u8]) {
        let Self { paths, .. } = self;
        let _ = kernel::may_load(paths);
        if let Some(mode) = kernel::lockdown(paths) {
            let chosen = format!("[{mode}]");
            assert!(text.windows(chosen.len()).any(|part| part == chosen.as_bytes()), "{mode}");
        }
        if let Some(number) = kernel::sysctl(paths, "perf_event_paranoid") {
            let text = String::from_utf8_lossy(text);
            let digits = text.trim().trim_start_matches(['+', '-']).trim_start_matches('0');
            assert_eq!(number.unsigned_abs().to_string().trim_start_matches('0'), digits);
        }
        for device in vfio::bound_devices(paths) {
            assert!(device.address == ADDRESS && device.driver.contains("vfio"), "{device:?}");
        }
    }

    /// A machine of this name is called so by what QEMU and systemd make of it.
    fn name_comes_back(&self, name: &str) {
        let kept: String = name.chars().take(NAME_CHARS).collect();
        if name.is_empty() || name.len() > 4096 || name.contains('\0') {
            return;
        }
        let called = || process::machine(&self.paths, PID).and_then(|machine| machine.name);
        let write = |file, text: String| self.scratch.write(file, text.as_bytes()).map(drop);
        let line = format!(
            "/usr/bin/qemu-kvm\0-name\0guest={},debug-threads=on\0",
            name.replace(',', ",,")
        );
        write("proc/7/cmdline", line).expect("a file");
        assert_eq!(called().as_deref(), Some(&*kept), "QEMU's option");
        if name.contains('/') {
            // It becomes a dash, and no dash comes of it again; libvirt's names of machines have none.
            return;
        }
        write("proc/7/cmdline", "qemu-kvm\0-S\0".into()).expect("a file");
        let unit = systemd_escaped(&format!("qemu-3-{name}"));
        write("proc/7/cgroup", format!("0::/machine.slice/machine-{unit}.scope/libvirt\n"))
            .expect("a file");
        assert_eq!(called().as_deref(), Some(&*kept), "libvirt's scope {unit}");
    }
}

fn link(target: &[u8], link: &Path) -> io::Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The kernel takes no empty target, none with a NUL and none that is longer than a path may be.
    let _refused = symlink(std::ffi::OsStr::from_bytes(target), link);
    Ok(())
}

/// systemd.unit(5), "String escaping for inclusion in unit names", of what is no path.
fn systemd_escaped(text: &str) -> String {
    let mut escaped = String::new();
    for (place, byte) in text.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b":_.".contains(&byte);
        match byte {
            b'.' if place == 0 => escaped.push_str("\\x2e"),
            _ if plain => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("\\x{byte:02x}")),
        }
    }
    escaped
}

/// Machines of libvirt, by hand, and of cloud-hypervisor; what the kernel's own files look like.
pub fn seeds() -> Vec<Seed> {
    let parts = |line: &[&str], groups: &str, text: &str| {
        let mut bytes = line.join("\0").into_bytes();
        for part in [groups, text] {
            bytes.push(END);
            bytes.extend(part.bytes());
        }
        bytes
    };
    let libvirt = [
        "/usr/bin/qemu-system-x86_64",
        "-name",
        "guest=web,debug-threads=on",
        "-S",
        "-uuid",
        "1-2",
    ];
    let by_hand = ["qemu-kvm", "-name", "web", "-smbios", "type=1,serial=9,uuid=1-2"];
    let scope = "0::/machine.slice/machine-qemu\\x2d3\\x2dweb\\x2d01.scope/libvirt/emulator\n";
    let cloud = ["/usr/bin/cloud-hypervisor", "--platform", "num_pci_segments=1,uuid=1-2"];
    let status = "Name:\tx\nCapEff:\t000000c000000000\nCapBnd:\t0\n";
    vec![
        Seed::new("libvirt", parts(&libvirt, scope, status)),
        Seed::new(
            "by-hand",
            parts(&by_hand, "11:cpu:/x\n3:pids:/y\n", "none [integrity] confidentiality\n"),
        ),
        Seed::new("cloud-hypervisor", parts(&cloud, "", "../../drivers/vfio-pci")),
        Seed::new("scope-alone", parts(&["qemu-kvm", "-m", "1G"], scope, "2\n")),
        Seed::new("name", parts(&["qemu-kvm"], "", "a-b/c, d=é.1")),
        Seed::new("release", parts(&[], "", "6.1.0-31-amd64")),
    ]
}
