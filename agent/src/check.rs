// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope check`: what this host can show, and for each thing that it cannot, why and what would mend it.
//!
//! A probe is tried, not guessed: it is loaded, attached and detached again. The rest is read below the two folders of
//! [`Paths`], and explains what the probes found.

mod finding;
mod kernel;
mod vfio;

pub use finding::Finding;

use crate::{
    host::Paths,
    probes::{
        Standing, all_missing,
        attach::{Attacher, Missing, OwnDriver},
        load::load,
        regions,
    },
};
use migscope_abi::probe::{Probe, Target};
use serde::Serialize;
use std::fmt;

/// The whole answer.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Whether everything that is needed is there.
    pub complete: bool,
    /// What that comes to.
    pub verdict: Verdict,
    /// What the kernel offers.
    pub host: Vec<Finding>,
    /// What VFIO there is.
    pub vfio: Vec<Finding>,
    /// What can be watched.
    pub probes: Vec<Finding>,
}

/// What the findings come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that is needed is there.
    Complete,
    /// Something is missing: a probe, or something that is needed.
    Degraded,
    /// No probe can work: nothing will be seen.
    Useless,
}

impl Verdict {
    /// The exit status of `migscope check`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Degraded => 1,
            Self::Useless => 2,
        }
    }
}

/// Looks at the host and tries the probes in `object`.
pub fn check(paths: &Paths, object: Option<&[u8]>) -> Findings {
    let standing = match load(object) {
        Ok(mut loaded) => {
            let mut standing = Standing::new();
            Attacher::new(paths.clone(), OwnDriver::default(), loaded.refused).attach(
                &mut loaded.ebpf,
                &mut loaded.maps,
                &mut standing,
            );
            standing
        }
        Err(error) => all_missing(&error.missing()),
    };
    findings(paths, &standing)
}

/// Where a probe is attached, in words.
fn where_to(probe: &Probe) -> String {
    match probe.target() {
        Target::Tracepoint(name) => format!("tracepoint {name}"),
        Target::Entry(function) => format!("function {function}, entry"),
        Target::Return(function) => format!("function {function}, return"),
        Target::DataFileEntry(op) => format!("{} of files for device data, entry", op.field()),
        Target::DataFileReturn(op) => format!("{} of files for device data, return", op.field()),
        Target::RegionEntry(_) => {
            format!("function {}, entry", regions::functions(*probe).join(", "))
        }
        Target::RegionTail => "called by region_return".into(),
        Target::RegionReturn => {
            format!("functions {}, return", regions::functions(*probe).join(", "))
        }
    }
}

/// Puts together what was found.
fn findings(paths: &Paths, standing: &Standing) -> Findings {
    let (host, vfio) = (kernel::findings(paths), vfio::findings(paths));
    let probe = |(probe, attached): (&Probe, &Result<(), Missing>)| {
        let name = probe.name();
        match attached {
            Ok(()) => Finding::present(name, where_to(probe)),
            Err(missing) => Finding::absent(name, missing.clone()),
        }
    };
    let probes: Vec<_> = standing.iter().map(probe).collect();
    let mut all = host.iter().chain(&vfio).chain(&probes);
    let sees = probes.iter().any(|probe| probe.available);
    let complete = sees && all.all(|finding| finding.available || !finding.needed);
    let verdict = if complete {
        Verdict::Complete
    } else if sees {
        Verdict::Degraded
    } else {
        Verdict::Useless
    };
    Findings { complete, verdict, host, vfio, probes }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("Host", &self.host), ("VFIO", &self.vfio), ("Probes", &self.probes)];
        for (title, findings) in parts {
            writeln!(f, "{title}")?;
            for finding in findings {
                writeln!(f, "{finding}")?;
            }
        }
        let verdict = match self.verdict {
            Verdict::Complete => "Everything that is needed is there.",
            Verdict::Degraded => {
                "Not everything can be shown; what is missing is missing in the metrics, not zero."
            }
            Verdict::Useless => "No probe can work here: nothing can be shown.",
        };
        writeln!(f, "{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(findings.probes.len(), Probe::COUNT);
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
        for name in ["class/misc/vfio", "kernel/iommu_groups/0"] {
            std::fs::create_dir_all(folder.path().join(name)).expect("made");
        }
        let standing = Probe::ALL.into_iter().map(|event| (event, Ok(()))).collect();
        let findings = findings(&paths, &standing);
        assert!(findings.complete, "{findings}");
        assert_eq!(findings.verdict.exit_code(), 0);
        assert!(findings.host.iter().any(|finding| !finding.available), "{findings}");
    }

    #[test]
    fn one_missing_probe_is_not_complete() {
        let (_folder, paths) = bare_host();
        let missing = Missing::new("why", "remedy");
        let mut standing: Standing = Probe::ALL.into_iter().map(|event| (event, Ok(()))).collect();
        standing.insert(Probe::Dma, Err(missing.clone()));
        let degraded = findings(&paths, &standing);
        assert!(!degraded.complete);
        assert_eq!(degraded.verdict.exit_code(), 1);
        let useless = findings(&paths, &all_missing(&missing));
        assert_eq!(useless.verdict.exit_code(), 2);
        assert!(useless.to_string().contains("No probe can work"), "{useless}");
    }

    #[test]
    fn the_json_has_a_place_for_everything() {
        let (_folder, paths) = bare_host();
        let json = serde_json::to_value(check(&paths, None)).expect("plain data");
        assert_eq!(json["complete"], false);
        assert_eq!(json["verdict"], "useless");
        assert!(json["vfio"][0]["why"].is_string());
        assert_eq!(json["probes"][0]["name"], "state");
        assert_eq!(json["probes"][0]["available"], false);
        assert!(json["probes"][0]["remedy"].is_string());
        assert!(json["host"][0]["detail"].is_string());
    }
}
