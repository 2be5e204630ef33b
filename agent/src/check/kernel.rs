// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel has, and what it permits to this process.

use super::finding::Finding;
use crate::{
    host::{Paths, kernel},
    probes::attach::Missing,
};

/// Everything about the kernel.
pub(super) fn findings(paths: &Paths) -> Vec<Finding> {
    vec![
        kernel_release(),
        skipped_runs(&kernel::release()),
        privilege(paths),
        lockdown(paths),
        btf(paths),
        tracepoints(paths),
        sysctl(paths, "unprivileged_bpf_disabled", |value| match value {
            0 => "without privileges some BPF programs can be loaded; not such as the probes",
            1 => "without privileges no BPF program can be loaded, until the next boot",
            _ => "without privileges no BPF program can be loaded",
        }),
        // Who may call perf_event_open(), by which a program is attached to a function. No kernel documents more than 2; Debian's and
        // Ubuntu's patch asks for CAP_SYS_ADMIN from 3 on, and takes CAP_PERFMON for nothing.
        sysctl(paths, "perf_event_paranoid", |value| match value {
            ..=2 => "with CAP_PERFMON a running agent can attach to drivers that are loaded later",
            _ => {
                "drivers are attached to at the agent's start only, while it has CAP_SYS_ADMIN; 2 would let it attach to later ones"
            }
        }),
    ]
}

/// A setting that explains more than it decides.
fn sysctl(paths: &Paths, name: &str, meaning: fn(i64) -> &'static str) -> Finding {
    match kernel::sysctl(paths, name) {
        Some(value) => Finding::present(name, format!("{value}: {}", meaning(value))),
        None => Finding::absent(
            name,
            Missing::new(
                format!("there is no sys/kernel/{name} below {}", paths.procfs.display()),
                "name procfs with --path.procfs; the kernel may also be built without it",
            ),
        ),
    }
    .optional()
}

fn kernel_release() -> Finding {
    let release = kernel::release();
    if kernel::is_new_enough(&release) {
        Finding::present("kernel", release)
    } else {
        Finding::absent(
            "kernel",
            Missing::new(
                format!("Linux {release} has no BPF ring buffers"),
                "use Linux 5.8 or later",
            ),
        )
    }
}

/// Whether the kernel says what the probes were kept from seeing.
fn skipped_runs(release: &str) -> Finding {
    if kernel::counts_skipped_runs(release) {
        Finding::present("skipped runs", "the kernel counts the runs of probes that it leaves out")
    } else {
        Finding::absent(
            "skipped runs",
            Missing::new(
                format!(
                    "Linux {release} does not count the runs of probes of functions that it leaves out, so a session may be \
                     called exact that is not"
                ),
                "use Linux 6.7 or later",
            ),
        )
    }
    .optional()
}

fn privilege(paths: &Paths) -> Finding {
    match kernel::may_load(paths) {
        Some(true) => Finding::present("privilege", "this process may load BPF programs"),
        Some(false) => Finding::absent(
            "privilege",
            Missing::new(
                "this process has neither CAP_SYS_ADMIN nor CAP_BPF with CAP_PERFMON",
                "run it as root, or give it CAP_BPF and CAP_PERFMON",
            ),
        ),
        None => Finding::absent(
            "privilege",
            Missing::new(
                format!(
                    "the capabilities of this process cannot be read below {}",
                    paths.procfs.display()
                ),
                "name procfs with --path.procfs",
            ),
        )
        .optional(),
    }
}

fn lockdown(paths: &Paths) -> Finding {
    match kernel::lockdown(paths).as_deref() {
        Some("confidentiality") => Finding::absent(
            "lockdown",
            Missing::new(
                "kernel lockdown is \"confidentiality\": programs may not read kernel memory",
                "boot without it, or with lockdown=integrity",
            ),
        ),
        Some(mode) => Finding::present("lockdown", mode),
        None => Finding::present("lockdown", "none"),
    }
}

fn btf(paths: &Paths) -> Finding {
    if kernel::has_btf(paths) {
        Finding::present("btf", "the kernel tells its types")
    } else {
        Finding::absent(
            "btf",
            Missing::new(
                "there is no /sys/kernel/btf/vmlinux",
                "use a kernel built with CONFIG_DEBUG_INFO_BTF; without it only devices of vfio_mediate are seen",
            ),
        )
    }
    .optional()
}

fn tracepoints(paths: &Paths) -> Finding {
    match kernel::tracepoints(paths) {
        Some(names) if !names.is_empty() => Finding::present("tracepoints", names.join(", ")),
        Some(_) => Finding::absent(
            "tracepoints",
            Missing::new(
                "tracefs shows no events of vfio_mediate",
                "load the module: modprobe vfio_mediate",
            ),
        ),
        None => Finding::absent(
            "tracepoints",
            Missing::new(
                "tracefs cannot be read",
                "mount it at /sys/kernel/tracing; the probes do without",
            ),
        ),
    }
    // Only the attempt to attach is the proof, and that is made for each probe.
    .optional()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn root() -> (tempfile::TempDir, Paths) {
        let folder = tempfile::tempdir().expect("a folder");
        let root: std::path::PathBuf = folder.path().into();
        (folder, Paths { sysfs: root.clone(), procfs: root })
    }

    fn write(paths: &Paths, name: &str, text: &str) {
        let file = paths.procfs.join(name);
        fs::create_dir_all(file.parent().expect("below the root")).expect("made");
        fs::write(file, text).expect("written");
    }

    fn found(paths: &Paths, name: &str) -> Finding {
        let mut all = findings(paths).into_iter();
        all.find(|finding| finding.name == name).expect("looked for")
    }

    #[test]
    fn privilege_is_there_missing_or_unknown() {
        let (_folder, paths) = root();
        let unknown = found(&paths, "privilege");
        assert!(!unknown.available && !unknown.needed, "{unknown:?}");
        write(&paths, "self/status", "CapEff:\t0000000000000000\n");
        let missing = found(&paths, "privilege");
        assert!(!missing.available && missing.needed, "{missing:?}");
        assert!(missing.remedy.is_some_and(|remedy| remedy.contains("CAP_BPF")));
        write(&paths, "self/status", "CapEff:\t000000c000000000\n");
        assert!(found(&paths, "privilege").available);
    }

    #[test]
    fn a_kernel_that_does_not_count_what_it_leaves_out_is_said_to() {
        let old = skipped_runs("6.1.0-57-amd64");
        assert!(!old.available && !old.needed, "{old:?}");
        assert!(old.why.is_some_and(|why| why.contains("6.1.0-57-amd64")));
        assert!(skipped_runs("6.12.117+deb12-amd64").available);
    }

    #[test]
    fn lockdown_matters_when_it_hides_the_kernel() {
        let (_folder, paths) = root();
        assert_eq!(found(&paths, "lockdown").detail.as_deref(), Some("none"));
        write(&paths, "kernel/security/lockdown", "none [integrity] confidentiality\n");
        assert!(found(&paths, "lockdown").available);
        write(&paths, "kernel/security/lockdown", "none integrity [confidentiality]\n");
        let hidden = found(&paths, "lockdown");
        assert!(!hidden.available && hidden.needed && hidden.remedy.is_some(), "{hidden:?}");
    }

    #[test]
    fn types_and_tracepoints_are_good_to_have() {
        let (_folder, paths) = root();
        for name in ["btf", "tracepoints"] {
            let absent = found(&paths, name);
            assert!(!absent.available && !absent.needed && absent.why.is_some(), "{absent:?}");
        }
        write(&paths, "kernel/btf/vmlinux", "");
        write(&paths, "kernel/tracing/events/sched/enable", "0");
        assert!(found(&paths, "btf").available);
        let absent = found(&paths, "tracepoints");
        assert!(absent.remedy.is_some_and(|remedy| remedy.contains("modprobe")));
        write(&paths, "kernel/tracing/events/vfio_mediate/vfio_mediate_state/id", "7");
        assert_eq!(found(&paths, "tracepoints").detail.as_deref(), Some("vfio_mediate_state"));
    }

    #[test]
    fn settings_are_told_with_what_they_mean() {
        let (_folder, paths) = root();
        for name in ["unprivileged_bpf_disabled", "perf_event_paranoid"] {
            assert!(!found(&paths, name).available);
            write(&paths, &format!("sys/kernel/{name}"), "2\n");
            let detail = found(&paths, name).detail.expect("there");
            assert!(detail.starts_with("2: "), "{detail}");
        }
        let meaning = |value: &str| {
            write(&paths, "sys/kernel/perf_event_paranoid", value);
            found(&paths, "perf_event_paranoid").detail.expect("there")
        };
        assert!(meaning("2\n").contains("can attach to drivers that are loaded later"));
        // As Debian ships it.
        assert!(meaning("3\n").contains("at the agent's start only"));
    }
}
