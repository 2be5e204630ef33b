// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel: its release, and what it permits to this process.

use super::Paths;
use std::fs;

/// The oldest release whose BPF has what the probes use: ring buffers (5.8).
const OLDEST: (u32, u32) = (5, 8);
/// The oldest that counts the runs of probes of functions that it leaves out (`trace_call_bpf`, 6.7).
const COUNTS_SKIPPED: (u32, u32) = (6, 7);

/// Capability numbers, `include/uapi/linux/capability.h`.
const CAP_SYS_ADMIN: u32 = 21;
/// Reading kernel memory from a program.
const CAP_PERFMON: u32 = 38;
/// Loading programs.
const CAP_BPF: u32 = 39;

/// What the running kernel is called, e.g. `7.3.4`.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Whether a kernel of this release has what the probes use. One whose release cannot be read is not refused for that.
pub fn is_new_enough(release: &str) -> bool {
    series(release).is_none_or(|series| series >= OLDEST)
}

/// Whether a kernel of this release counts which runs of probes of functions it leaves out. One whose release cannot be read may not.
pub fn counts_skipped_runs(release: &str) -> bool {
    series(release).is_some_and(|series| series >= COUNTS_SKIPPED)
}

/// `(6, 12)` of `6.12.117+deb12-amd64`.
fn series(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether the kernel tells its types.
pub fn has_btf(paths: &Paths) -> bool {
    paths.sysfs.join("kernel/btf/vmlinux").exists()
}

/// Whether this process may load BPF programs that trace, by its effective capabilities; `None` where they cannot be read.
pub fn may_load(paths: &Paths) -> Option<bool> {
    let status = fs::read_to_string(paths.procfs.join("self/status")).ok()?;
    may_load_with(&status)
}

fn may_load_with(status: &str) -> Option<bool> {
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let bits = u64::from_str_radix(bits.trim(), 16).ok()?;
    let has = |capability: u32| bits >> capability & 1 == 1;
    Some(has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON)))
}

/// The kernel's lockdown mode; `None` where there is no lockdown.
pub fn lockdown(paths: &Paths) -> Option<String> {
    let modes = fs::read_to_string(paths.sysfs.join("kernel/security/lockdown")).ok()?;
    let chosen =
        modes.split_whitespace().find_map(|mode| mode.strip_prefix('[')?.strip_suffix(']'));
    chosen.map(str::to_owned)
}

/// A number that `sys/kernel/NAME` of procfs holds; `None` where it cannot be read.
pub fn sysctl(paths: &Paths, name: &str) -> Option<i64> {
    let text = fs::read_to_string(paths.procfs.join("sys/kernel").join(name)).ok()?;
    text.trim().parse().ok()
}

/// The driver's tracepoints in tracefs; `None` where tracefs is not mounted or not readable.
pub fn tracepoints(paths: &Paths) -> Option<Vec<String>> {
    let events = paths.sysfs.join("kernel/tracing/events");
    fs::read_dir(&events).ok()?.next()?.ok()?;
    let Ok(ours) = fs::read_dir(events.join("vfio_mediate")) else {
        return Some(Vec::new());
    };
    let folders = ours.flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_buffers_came_with_5_8() {
        for (release, enough) in [
            ("5.7.19", false),
            ("5.8.0-1-amd64", true),
            ("6.1.0", true),
            ("7.3.4+", true),
            ("4.19.0", false),
            ("strange", true),
        ] {
            assert_eq!(is_new_enough(release), enough, "{release}");
        }
    }

    #[test]
    fn what_probes_of_functions_are_kept_from_is_counted_since_6_7() {
        for (release, counts) in [
            ("6.1.0-57-amd64", false),
            ("6.6.99", false),
            ("6.7.0", true),
            ("6.12.117+deb12-amd64", true),
            ("7.3.4+", true),
            ("strange", false),
        ] {
            assert_eq!(counts_skipped_runs(release), counts, "{release}");
        }
    }

    #[test]
    fn either_all_powers_or_the_two_for_bpf_will_do() {
        for (bits, may) in [
            ("000001ffffffffff", true),
            ("0000000000200000", true),  // CAP_SYS_ADMIN
            ("000000c000000000", true),  // CAP_BPF and CAP_PERFMON
            ("0000008000000000", false), // CAP_BPF alone
            ("0000000000000000", false),
        ] {
            let status = format!("Name:\tx\nCapEff:\t{bits}\nCapBnd:\t0\n");
            assert_eq!(may_load_with(&status), Some(may), "{bits}");
        }
        assert_eq!(may_load_with("CapEff:\tzz\n"), None);
        assert_eq!(may_load_with(""), None);
    }

    #[test]
    fn tracefs_that_is_not_there_is_unknown_and_not_empty() {
        let sysfs = tempfile::tempdir().expect("a folder");
        let paths = Paths { sysfs: sysfs.path().into(), ..Paths::default() };
        assert_eq!(tracepoints(&paths), None);
        let events = sysfs.path().join("kernel/tracing/events");
        fs::create_dir_all(events.join("sched")).expect("made");
        assert_eq!(tracepoints(&paths), Some(vec![]));
        fs::create_dir_all(events.join("vfio_mediate/vfio_mediate_state")).expect("made");
        fs::write(events.join("vfio_mediate/enable"), "0").expect("written");
        assert_eq!(tracepoints(&paths), Some(vec!["vfio_mediate_state".into()]));
    }

    #[test]
    fn the_lockdown_mode_is_the_one_in_brackets() {
        let sysfs = tempfile::tempdir().expect("a folder");
        let paths = Paths { sysfs: sysfs.path().into(), ..Paths::default() };
        assert_eq!(lockdown(&paths), None);
        fs::create_dir_all(sysfs.path().join("kernel/security")).expect("made");
        let file = sysfs.path().join("kernel/security/lockdown");
        fs::write(file, "none [integrity] confidentiality\n").expect("written");
        assert_eq!(lockdown(&paths).as_deref(), Some("integrity"));
    }
}
