// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope check`: what this host can show, and for each thing that it cannot, why and what would mend it.
//!
//! A probe is tried, not guessed: it is loaded, attached and detached again.

use crate::{
    host::{Paths, kernel},
    probes::{
        Standing, all_missing,
        attach::{Missing, attach},
        load::load,
    },
};
use serde::Serialize;
use std::fmt;

/// The whole answer.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Whether everything that is needed is there.
    pub complete: bool,
    /// What the host offers.
    pub host: Vec<Finding>,
    /// What can be watched.
    pub probes: Vec<Finding>,
}

/// One thing, there or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked for.
    pub name: String,
    /// Whether it is there.
    pub available: bool,
    /// Whether anything is lost without it.
    pub needed: bool,
    /// What was found.
    pub detail: Option<String>,
    /// Why it is not there.
    pub why: Option<String>,
    /// What would mend it.
    pub remedy: Option<String>,
}

impl Finding {
    fn present(name: &str, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            available: true,
            needed: true,
            detail: Some(detail.into()),
            why: None,
            remedy: None,
        }
    }

    fn absent(name: &str, missing: Missing) -> Self {
        let Missing { why, remedy } = missing;
        Self {
            name: name.into(),
            available: false,
            needed: true,
            detail: None,
            why: Some(why),
            remedy: Some(remedy),
        }
    }

    fn optional(self) -> Self {
        Self { needed: false, ..self }
    }
}

/// Looks at the host and tries the probes in `object`.
pub fn check(paths: &Paths, object: Option<&[u8]>) -> Findings {
    let standing = match load(object) {
        Ok(mut loaded) => {
            let mut standing = Standing::new();
            attach(&mut loaded.ebpf, &mut standing);
            standing
        }
        Err(error) => all_missing(&error.missing()),
    };
    findings(paths, &standing)
}

/// Puts together what was found.
fn findings(paths: &Paths, standing: &Standing) -> Findings {
    let host =
        vec![kernel_release(), privilege(paths), lockdown(paths), btf(paths), tracepoints(paths)];
    let probe = |(event, attached): (&migscope_abi::trace::Event, &Result<(), Missing>)| {
        let name = event.name();
        match attached {
            Ok(()) => Finding::present(name, format!("tracepoint {}", event.tracepoint())),
            Err(missing) => Finding::absent(name, missing.clone()),
        }
    };
    let probes: Vec<_> = standing.iter().map(probe).collect();
    let complete = host.iter().chain(&probes).all(|finding| finding.available || !finding.needed);
    Findings { complete, host, probes }
}

fn kernel_release() -> Finding {
    let release = kernel::release();
    if kernel::is_new_enough(&release) {
        Finding::present("kernel", release)
    } else {
        Finding::absent(
            "kernel",
            Missing {
                why: format!("Linux {release} has no BPF ring buffers"),
                remedy: "use Linux 5.8 or later".into(),
            },
        )
    }
}

fn privilege(paths: &Paths) -> Finding {
    match kernel::may_load(paths) {
        Some(true) => Finding::present("privilege", "this process may load BPF programs"),
        Some(false) => Finding::absent(
            "privilege",
            Missing {
                why: "this process has neither CAP_SYS_ADMIN nor CAP_BPF with CAP_PERFMON".into(),
                remedy: "run it as root, or give it CAP_BPF and CAP_PERFMON".into(),
            },
        ),
        None => Finding::absent(
            "privilege",
            Missing {
                why: format!(
                    "the capabilities of this process cannot be read below {}",
                    paths.procfs.display()
                ),
                remedy: "name procfs with --path.procfs".into(),
            },
        )
        .optional(),
    }
}

fn lockdown(paths: &Paths) -> Finding {
    match kernel::lockdown(paths).as_deref() {
        Some("confidentiality") => Finding::absent(
            "lockdown",
            Missing {
                why: "kernel lockdown is \"confidentiality\": programs may not read kernel memory"
                    .into(),
                remedy: "boot without it, or with lockdown=integrity".into(),
            },
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
            Missing {
                why: "there is no /sys/kernel/btf/vmlinux".into(),
                remedy: "use a kernel built with CONFIG_DEBUG_INFO_BTF; today's probes do without"
                    .into(),
            },
        )
    }
    .optional()
}

fn tracepoints(paths: &Paths) -> Finding {
    match kernel::tracepoints(paths) {
        Some(names) if !names.is_empty() => Finding::present("tracepoints", names.join(", ")),
        Some(_) => Finding::absent(
            "tracepoints",
            Missing {
                why: "tracefs shows no events of vfio_mediate".into(),
                remedy: "load the module: modprobe vfio_mediate".into(),
            },
        ),
        None => Finding::absent(
            "tracepoints",
            Missing {
                why: "tracefs cannot be read".into(),
                remedy: "mount it at /sys/kernel/tracing; the probes do without".into(),
            },
        ),
    }
    // Only the attempt to attach is the proof, and that is made for each probe.
    .optional()
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, findings) in [("Host", &self.host), ("Probes", &self.probes)] {
            writeln!(f, "{title}")?;
            for finding in findings {
                writeln!(f, "{finding}")?;
            }
        }
        let verdict = if self.complete {
            "Everything that is needed is there."
        } else {
            "Not everything can be shown; what is missing is missing in the metrics, not zero."
        };
        writeln!(f, "{verdict}")
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match (self.available, self.needed) {
            (true, _) => "yes",
            (false, true) => "NO ",
            (false, false) => "no ",
        };
        write!(f, "  {mark}  {:<14} ", self.name)?;
        match (&self.detail, &self.why, &self.remedy) {
            (Some(detail), ..) => write!(f, "{detail}"),
            (None, Some(why), Some(remedy)) => write!(f, "{why}\n{:22}mend: {remedy}", ""),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migscope_abi::trace::Event;

    fn bare_host() -> (tempfile::TempDir, Paths) {
        let folder = tempfile::tempdir().expect("a folder");
        let root: std::path::PathBuf = folder.path().into();
        (folder, Paths { sysfs: root.clone(), procfs: root })
    }

    #[test]
    fn a_binary_without_probes_is_told_for_each_of_them() {
        let (_folder, paths) = bare_host();
        let findings = check(&paths, None);
        assert!(!findings.complete);
        assert_eq!(findings.probes.len(), Event::COUNT);
        for finding in &findings.probes {
            assert!(finding.why.as_ref().is_some_and(|why| why.contains("without probes")));
        }
        let text = findings.to_string();
        assert!(text.contains("NO   state "), "{text}");
        assert!(text.contains("mend: build it with probes"), "{text}");
    }

    #[test]
    fn everything_needed_is_complete_though_something_optional_is_missing() {
        let (folder, paths) = bare_host();
        std::fs::create_dir_all(folder.path().join("self")).expect("made");
        std::fs::write(folder.path().join("self/status"), "CapEff:\tffffffffff\n")
            .expect("written");
        let standing = Event::ALL.into_iter().map(|event| (event, Ok(()))).collect();
        let findings = findings(&paths, &standing);
        assert!(findings.complete, "{findings}");
        assert!(findings.host.iter().any(|finding| !finding.available), "{findings}");
    }

    #[test]
    fn one_missing_probe_is_not_complete() {
        let (_folder, paths) = bare_host();
        let missing = Missing { why: "why".into(), remedy: "remedy".into() };
        let mut standing: Standing = Event::ALL.into_iter().map(|event| (event, Ok(()))).collect();
        standing.insert(Event::Dma, Err(missing));
        assert!(!findings(&paths, &standing).complete);
    }

    #[test]
    fn the_json_has_a_place_for_everything() {
        let (_folder, paths) = bare_host();
        let json = serde_json::to_value(check(&paths, None)).expect("plain data");
        assert_eq!(json["complete"], false);
        assert_eq!(json["probes"][0]["name"], "state");
        assert_eq!(json["probes"][0]["available"], false);
        assert!(json["probes"][0]["remedy"].is_string());
        assert!(json["host"][0]["detail"].is_string());
    }
}
