// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Kernels as a distribution ships them: what VFIO does there, and what migscope says of it. Nothing of ours is in the kernel.
//!
//! `cargo xtask vm matrix` runs this on each of them.

#[path = "stock/verified.rs"]
mod verified;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{env, fs};

use cases::guest::{self, measured};
use cases::mdev::{Mtty, Ports};
use cases::vfio::{OFFSET_BITS, Vfio};
use migscope_abi::device::DeviceKey;

/// Set by xtask: the release of the kernel that it booted, and the addresses of the devices.
const RELEASE: &str = "MIGSCOPE_RELEASE";
const DEVICES: &str = "MIGSCOPE_DEVICES";

/// The edu device's identification (QEMU's docs/specs/edu.rst): version 1.0, and its mark.
const EDU_IDENTIFICATION: u32 = 0x0100_00ed;
/// `VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY`, what mtty has.
const STOP_COPY: u64 = 1 << 0;
const P2P: u64 = 1 << 1;
const PRE_COPY: u64 = 1 << 2;
/// The release in which mtty learned to migrate.
const MTTY_MIGRATES: (u32, u32) = (6, 7);
/// Types of these are what probes will read; each is a module of its own in a distribution's kernel.
const MODULES: &[&str] =
    &["vfio", "vfio_pci_core", "vfio_pci", "vfio_iommu_type1", "mdev", "kvm", "mtty"];

fn main() -> ExitCode {
    guest::run(&[
        ("the_kernel_is_the_one_that_was_asked_for", right_kernel),
        ("every_module_tells_its_types", module_types),
        ("a_device_is_opened_through_vfio_pci", vfio_pci),
        ("mtty_is_opened_and_migrates_where_it_can", mtty),
        ("the_verifier_follows_each_probe_to_its_end_and_soon", verified::programs),
        ("check_says_what_is_true_of_this_kernel", check),
    ])
}

fn kernel_says(file: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.trim().to_owned()
}

fn release() -> String {
    kernel_says("/proc/sys/kernel/osrelease")
}

/// `6.12` of `6.12.117+deb12-amd64`.
fn series() -> (u32, u32) {
    let release = release();
    let mut numbers = release.split('.').map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        panic!("a release starts with two numbers: {release}");
    };
    (major, minor)
}

fn modprobe(modules: &[&str]) {
    let status = Command::new("modprobe").arg("-a").args(modules).status().expect("modprobe");
    assert!(status.success(), "the modules {modules:?} are loaded by the kernel's own index");
}

/// The devices that xtask plugged in.
fn devices() -> Vec<DeviceKey> {
    let text = env::var(DEVICES).expect("xtask names them");
    text.split(',').map(|address| DeviceKey::parse(address).expect("a PCI address")).collect()
}

/// Gives a device to vfio-pci, as an operator does.
fn bind(device: DeviceKey) {
    let folder = Path::new("/sys/bus/pci/devices").join(device.to_string());
    fs::write(folder.join("driver_override"), "vfio-pci").expect("it takes the name");
    if !folder.join("driver").exists() {
        fs::write("/sys/bus/pci/drivers_probe", device.to_string()).expect("it is probed");
    }
    let driver = fs::read_link(folder.join("driver")).expect("it has a driver");
    assert!(driver.ends_with("vfio-pci"), "{}", driver.display());
}

fn right_kernel() {
    assert_eq!(release(), env::var(RELEASE).expect("xtask names the kernel"));
    assert!(!Path::new("/sys/module/vfio_mediate").exists(), "nothing of ours is loaded");
}

fn module_types() {
    modprobe(&["vfio-pci", "vfio_iommu_type1", "mdev", "kvm", "mtty"]);
    for module in MODULES {
        let bytes = fs::metadata(format!("/sys/kernel/btf/{module}")).map(|file| file.len());
        assert!(bytes.as_ref().is_ok_and(|bytes| *bytes > 0), "BTF of {module}: {bytes:?}");
    }
    assert!(fs::metadata("/sys/kernel/btf/vmlinux").expect("there").len() > 1 << 20);
}

fn vfio_pci() {
    for device in devices() {
        bind(device);
        let vfio = Vfio::open(device).expect("it is opened");
        // edu's registers are words; a position in region 0 is a position in BAR 0.
        let mut word = [0; 4];
        assert_eq!(vfio.read(0 << OFFSET_BITS, &mut word).expect("it is read"), word.len());
        assert_eq!(u32::from_le_bytes(word), EDU_IDENTIFICATION, "{device}");
        let refused = vfio.migration().expect_err("vfio-pci cannot migrate");
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTTY), "{refused}");
    }
}

fn mtty() {
    modprobe(&["mtty", "vfio_iommu_type1"]);
    let mdevs = [
        Mtty::create("6d696773-636f-7065-0000-000000000001", Ports::One).expect("it is made"),
        Mtty::create("6d696773-636f-7065-0000-000000000002", Ports::Two).expect("it is made"),
    ];
    let with_cdev = Path::new("/sys/module/iommufd").exists();
    for mdev in &mdevs {
        let device = Vfio::open_mdev(mdev.uuid()).expect("it is opened through its group");
        if series() >= MTTY_MIGRATES {
            assert_eq!(device.migration().expect("it migrates"), STOP_COPY | P2P | PRE_COPY);
        } else {
            let refused = device.migration().expect_err("it does not know how");
            assert_eq!(refused.raw_os_error(), Some(libc::ENOTTY), "{refused}");
        }
        // The character device is there where the kernel is built with iommufd, which Debian's are not.
        let class = mdev.sysfs().join("vfio-dev");
        let name = fs::read_dir(&class).expect("a VFIO device").flatten().next().expect("of it");
        let cdev = Path::new("/dev/vfio/devices").join(name.file_name());
        assert_eq!(cdev.exists(), with_cdev, "{}", cdev.display());
    }
    let paths = mdevs.each_ref().map(Mtty::sysfs);
    drop(mdevs);
    assert!(paths.iter().all(|path| !path.exists()), "both are gone");
}

/// The finding of this name in one part of the answer.
fn finding<'a>(found: &'a serde_json::Value, part: &str, name: &str) -> &'a serde_json::Value {
    let all = found[part].as_array().expect("a list");
    all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name}: {found:#}"))
}

fn detail(finding: &serde_json::Value) -> &str {
    finding["detail"].as_str().unwrap_or_else(|| panic!("no detail: {finding:#}"))
}

fn check() {
    for device in devices() {
        bind(device);
    }
    let agent = env::var_os("MIGSCOPE_AGENT").expect("xtask names it");
    let began = Instant::now();
    let output = Command::new(agent).args(["check", "--json"]).output().expect("it runs");
    // All probes are loaded, attached, and detached again.
    measured("check", began.elapsed().as_millis(), "ms");
    let found: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("one JSON object and nothing else");

    assert_eq!(detail(finding(&found, "host", "kernel")), release());
    assert_eq!(finding(&found, "host", "privilege")["available"], true);
    assert_eq!(finding(&found, "host", "btf")["available"], true);
    // `[none] integrity confidentiality`: what is in brackets holds. A kernel without the file has no lockdown.
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let holds = modes.split(['[', ']']).nth(1).unwrap_or("none");
    assert_eq!(detail(finding(&found, "host", "lockdown")), holds);

    let modules = detail(finding(&found, "vfio", "vfio modules"));
    assert!(modules.split(", ").any(|module| module == "vfio_pci"), "{modules}");
    let groups = fs::read_dir("/sys/kernel/iommu_groups").expect("there").count();
    let iommu = detail(finding(&found, "vfio", "iommu"));
    assert!(iommu.starts_with(&format!("groups: {groups}")), "{iommu}");
    let bound = detail(finding(&found, "vfio", "vfio devices"));
    for device in devices() {
        assert!(bound.contains(&format!("{device} (vfio-pci, group ")), "{bound}");
    }

    // Our driver's tracepoints are not there, and each probe that needs one says so.
    let probes = found["probes"].as_array().expect("a list");
    for probe in probes {
        if probe["available"] == true {
            assert!(!detail(probe).contains("vfio_mediate"), "{probe:#}");
        } else {
            assert!(probe["why"].is_string() && probe["remedy"].is_string(), "{probe:#}");
        }
    }
    // The verdict follows from the findings, and the exit code from the verdict.
    let parts = ["host", "vfio", "probes"].map(|part| found[part].as_array().expect("a list"));
    let complete = parts
        .iter()
        .copied()
        .flatten()
        .all(|one| one["available"] == true || one["needed"] == false);
    let any_probe = probes.iter().any(|probe| probe["available"] == true);
    let (verdict, code) = match (complete, any_probe) {
        (true, _) => ("complete", 0),
        (false, true) => ("degraded", 1),
        (false, false) => ("useless", 2),
    };
    assert_eq!(found["verdict"], verdict, "{found:#}");
    assert_eq!(output.status.code(), Some(code), "{found:#}");
}
