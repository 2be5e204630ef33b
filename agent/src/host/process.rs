// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process that has a device open: which virtual machine it is.
//!
//! ```text
//!   /proc/PID/cmdline   QEMU               -name guest=NAME, -uuid UUID, -smbios type=1,uuid=UUID
//!                       cloud-hypervisor   --platform uuid=UUID
//!   /proc/PID/cgroup    libvirt            …/machine-qemu\x2d3\x2dNAME.scope/…
//! ```
//!
//! What the command line says of the name counts first: the scope that libvirt lets systemd make has a shortened one.

use super::Paths;
use std::{fs::File, io::Read, path::PathBuf};

/// As much of a command line as is looked at. libvirt puts name and UUID in front; whole command lines reach tens of kilobytes.
const COMMAND_LINE_BYTES: u64 = 64 * 1024;
/// As much of a list of control groups as is looked at; a line of version 2, or a dozen of version 1.
const CGROUP_BYTES: u64 = 16 * 1024;

/// As much of a name or a UUID as is kept, in characters: they become labels. libvirt has no limit, a UUID has 36.
const NAME_CHARS: usize = 128;

/// A virtual machine, as its VMM was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub name: Option<String>,
    /// Its UUID.
    pub uuid: Option<String>,
}

/// The VMMs whose command lines are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vmm {
    Qemu,
    CloudHypervisor,
}

/// Which machine the process `pid` is; `None` when it is no VMM that is known, or gone.
pub fn machine(paths: &Paths, pid: u32) -> Option<Machine> {
    let folder = paths.procfs.join(pid.to_string());
    let mut machine = parse(&read(folder.join("cmdline"), COMMAND_LINE_BYTES)?)?;
    if machine.name.is_none() {
        let groups = read(folder.join("cgroup"), CGROUP_BYTES).unwrap_or_default();
        machine.name = scope(&String::from_utf8_lossy(&groups));
    }
    for told in [&mut machine.name, &mut machine.uuid].into_iter().flatten() {
        *told = told.chars().take(NAME_CHARS).collect();
    }
    Some(machine)
}

fn read(file: PathBuf, limit_bytes: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(limit_bytes).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn parse(line: &[u8]) -> Option<Machine> {
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let vmm = Vmm::of(&words.next()?)?;
    let mut machine = Machine::default();
    while let Some(word) = words.next() {
        // Both VMMs also take an option with its value in one word.
        let (flag, joined) = match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                (flag.to_owned(), Some(value.to_owned()))
            }
            _ => (word.into_owned(), None),
        };
        let mut value = || joined.clone().or_else(|| words.next().map(|word| word.into_owned()));
        match (vmm, flag.trim_start_matches('-')) {
            (Vmm::Qemu, "name") => machine.name = value().and_then(|value| guest(&value)),
            (Vmm::Qemu, "uuid") => machine.uuid = value(),
            (Vmm::Qemu, "smbios") => {
                let told = value().and_then(|value| part(&value, "uuid"));
                machine.uuid = machine.uuid.or(told);
            }
            (Vmm::CloudHypervisor, "platform") => {
                machine.uuid = value().and_then(|value| part(&value, "uuid"));
            }
            _ => {}
        }
    }
    for told in [&mut machine.name, &mut machine.uuid] {
        *told = told.take().filter(|told| !told.is_empty());
    }
    Some(machine)
}

impl Vmm {
    fn of(program: &str) -> Option<Self> {
        let name = program.rsplit('/').next()?;
        if name.starts_with("qemu-") {
            Some(Self::Qemu)
        } else if name.starts_with("cloud-hypervisor") {
            Some(Self::CloudHypervisor)
        } else {
            None
        }
    }
}

/// The name in `-name guest=NAME,debug-threads=on`, or in `-name NAME`.
fn guest(value: &str) -> Option<String> {
    let first = parts(value).next().filter(|part| !part.contains('='));
    part(value, "guest").or(first)
}

/// The value of `key` in a list `key=value,key=value`.
fn part(list: &str, key: &str) -> Option<String> {
    parts(list).find_map(|part| Some(part.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
}

/// The parts of a list that commas divide. One that belongs to a value stands twice (QEMU, `get_opt_value()`).
fn parts(list: &str) -> impl Iterator<Item = String> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let mut text = rest.take()?;
        let mut part = String::new();
        while let Some((before, after)) = text.split_once(',') {
            part.push_str(before);
            let Some(after) = after.strip_prefix(',') else {
                rest = Some(after);
                return Some(part);
            };
            part.push(',');
            text = after;
        }
        part.push_str(text);
        Some(part)
    })
}

/// The name in a scope of libvirt's: `machine-qemu\x2d3\x2dNAME.scope`. systemd writes bytes that a unit's name cannot have as
/// `\xHH` (systemd.unit(5)), the dash among them.
fn scope(groups: &str) -> Option<String> {
    let escaped = groups
        .lines()
        .flat_map(|line| line.split('/'))
        .find_map(|folder| folder.strip_prefix("machine-")?.strip_suffix(".scope"))?;
    let mut bytes = Vec::new();
    let mut rest = escaped;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend(before.as_bytes());
        let digits = after.get(..2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after.get(2..)?;
    }
    bytes.extend(rest.as_bytes());
    let whole = String::from_utf8(bytes).ok()?;
    // Driver, number of the domain since libvirt's start, name.
    let name = whole.splitn(3, '-').nth(2)?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn machine_of(words: &[&str]) -> Option<Machine> {
        parse(words.join("\0").as_bytes())
    }

    #[test]
    fn libvirt_and_people_name_their_machines_differently() {
        let libvirt = ["/usr/bin/qemu-system-x86_64", "-name", "guest=web,debug-threads=on"];
        assert_eq!(machine_of(&libvirt).and_then(|vm| vm.name).as_deref(), Some("web"));
        let by_hand = ["qemu-system-x86_64", "-name", "web", "-uuid", "1-2"];
        let machine = machine_of(&by_hand).expect("a QEMU");
        assert_eq!((machine.name.as_deref(), machine.uuid.as_deref()), (Some("web"), Some("1-2")));
    }

    #[test]
    fn a_machine_without_a_name_has_none() {
        assert_eq!(machine_of(&["qemu-system-x86_64", "-m", "1G"]), Some(Machine::default()));
        let threads = ["qemu-system-x86_64", "-name", "debug-threads=on"];
        assert_eq!(machine_of(&threads).and_then(|vm| vm.name), None);
    }

    #[test]
    fn a_comma_in_a_name_stands_twice() {
        for (value, name) in [
            ("guest=a,,b,debug-threads=on", "a,b"),
            ("guest=a,,", "a,"),
            ("debug-threads=on,guest=,,,,a", ",,a"),
            ("a,,b,process=x", "a,b"),
        ] {
            let machine = machine_of(&["qemu-kvm", "-name", value]).expect("a QEMU");
            assert_eq!(machine.name.as_deref(), Some(name), "{value}");
        }
    }

    #[test]
    fn an_empty_name_is_none() {
        let machine = machine_of(&["qemu-kvm", "-name", "", "-uuid", ""]).expect("a QEMU");
        assert_eq!(machine, Machine::default());
    }

    #[test]
    fn a_uuid_may_stand_in_the_tables_of_the_firmware() {
        let words = ["/usr/libexec/qemu-kvm", "-smbios", "type=1,serial=9,uuid=1-2"];
        assert_eq!(machine_of(&words).and_then(|vm| vm.uuid).as_deref(), Some("1-2"));
        let both = ["qemu-kvm", "-uuid", "3-4", "-smbios", "type=1,uuid=1-2"];
        assert_eq!(machine_of(&both).and_then(|vm| vm.uuid).as_deref(), Some("3-4"));
    }

    #[test]
    fn cloud_hypervisor_has_a_uuid_in_its_platform() {
        for words in [
            &["/usr/bin/cloud-hypervisor", "--api-socket", "/x", "--platform", "uuid=1-2"][..],
            &["cloud-hypervisor", "--platform=num_pci_segments=1,uuid=1-2"],
        ] {
            let machine = machine_of(words).expect("a VMM");
            assert_eq!((machine.name, machine.uuid.as_deref()), (None, Some("1-2")), "{words:?}");
        }
    }

    #[test]
    fn libvirt_names_the_scope_after_the_machine() {
        let two = "0::/machine.slice/machine-qemu\\x2d3\\x2dweb\\x2d01.scope/libvirt/emulator\n";
        assert_eq!(scope(two).as_deref(), Some("web-01"));
        let one = "11:cpu:/machine.slice/machine-ch\\x2d12\\x2ddb.scope\n3:pids:/x\n";
        assert_eq!(scope(one).as_deref(), Some("db"));
        for none in
            ["0::/user.slice/session-3.scope\n", "0::/machine-\\x2.scope", "machine-a.scope", ""]
        {
            assert_eq!(scope(none), None, "{none}");
        }
    }

    #[test]
    fn the_command_line_names_a_machine_before_its_scope_does() {
        let procfs = tempfile::tempdir().expect("a folder");
        let paths = Paths { procfs: procfs.path().into(), ..Paths::default() };
        let folder = procfs.path().join("7");
        std::fs::create_dir(&folder).expect("made");
        let group = "0::/machine.slice/machine-qemu\\x2d1\\x2dshort.scope\n";
        std::fs::write(folder.join("cgroup"), group).expect("written");
        for (line, name) in [("qemu-kvm\0-name\0guest=long\0", "long"), ("qemu-kvm\0", "short")] {
            std::fs::write(folder.join("cmdline"), line).expect("written");
            let machine = machine(&paths, 7).expect("a machine");
            assert_eq!(machine.name.as_deref(), Some(name));
        }
        assert_eq!(machine(&paths, 8), None);
    }

    #[test]
    fn another_program_is_no_machine() {
        assert_eq!(machine_of(&["/usr/bin/migrator", "-name", "web"]), None);
        assert_eq!(parse(b""), None);
    }

    proptest! {
        #[test]
        fn no_command_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut qemu = b"qemu-kvm\0-name\0".to_vec();
            qemu.extend(line);
            let _ = parse(&qemu);
        }

        #[test]
        fn no_list_of_groups_makes_it_panic(text in "[-/.\\\\x0-9a-f\\né]{0,80}") {
            let _ = scope(&format!("0::/machine-{text}.scope"));
        }
    }
}
