// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process that has a device open: which virtual machine it is, when it is QEMU.

use super::Paths;
use std::{fs::File, io::Read};

/// As much of a command line as is looked at. libvirt puts name and UUID in front; whole command lines reach tens of kilobytes.
const COMMAND_LINE_BYTES: u64 = 64 * 1024;

/// A virtual machine, as its QEMU was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// `-name guest=…`.
    pub name: Option<String>,
    /// `-uuid …`.
    pub uuid: Option<String>,
}

/// Which machine the process `pid` is; `None` when it is no QEMU, or gone.
pub fn machine(paths: &Paths, pid: u32) -> Option<Machine> {
    let file = File::open(paths.procfs.join(pid.to_string()).join("cmdline")).ok()?;
    let mut line = Vec::new();
    file.take(COMMAND_LINE_BYTES).read_to_end(&mut line).ok()?;
    parse(&line)
}

fn parse(line: &[u8]) -> Option<Machine> {
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next()?;
    if !program.rsplit('/').next()?.starts_with("qemu-") {
        return None;
    }
    let mut machine = Machine::default();
    while let Some(word) = words.next() {
        match &*word {
            "-name" | "--name" => machine.name = words.next().and_then(|value| guest(&value)),
            "-uuid" | "--uuid" => machine.uuid = words.next().map(|value| value.into_owned()),
            _ => {}
        }
    }
    Some(machine)
}

/// The name in `-name guest=NAME,debug-threads=on`, or in `-name NAME`.
fn guest(value: &str) -> Option<String> {
    let mut parts = value.split(',');
    let first = parts.next().filter(|part| !part.contains('='));
    let named = value.split(',').find_map(|part| part.strip_prefix("guest="));
    named.or(first).map(str::to_owned)
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
    }
}
