// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Loading the object: its maps are made, its programs pass the verifier.

use super::{
    attach::{Missing, chain, not_permitted},
    logs::{self, Logs},
    maps::{MapError, Maps},
    ring::Reader,
    stats::verified,
};
use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    maps::MapError as AyaMapError,
    programs::{KProbe, Program, ProgramError, RawTracePoint},
};
use migscope_abi::probe::{Probe, Target};
use std::{collections::BTreeMap, io, time::Instant};
use tracing::{Level, debug, enabled};

/// The probes in the kernel, not yet attached. Dropping `ebpf` detaches and removes them.
pub struct Loaded {
    /// The programs.
    pub ebpf: Ebpf,
    /// What they add up.
    pub maps: Maps,
    /// What they send.
    pub reader: Reader,
    /// What they have to say about themselves, if they were built to.
    pub logs: Option<Logs>,
    /// Programs that the kernel refused, and why; the others work without them.
    pub refused: BTreeMap<Probe, Missing>,
}

/// Why the probes could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The binary carries none.
    #[error("this binary was built without probes")]
    NoObject,
    /// The object was refused: by aya, or by the kernel when the maps were made.
    #[error("failed to load the object with the probes")]
    Object(#[source] EbpfError),
    /// A program was refused by the kernel. Its verifier's account is in the log, at level debug.
    #[error("the kernel refused the probe {program}")]
    Refused {
        /// Which program.
        program: &'static str,
        /// What the kernel answered.
        #[source]
        io_error: io::Error,
    },
    /// A program could not be loaded for another reason.
    #[error("failed to load the probe {0}")]
    Program(&'static str, #[source] ProgramError),
    /// A map is missing or of another shape.
    #[error("failed to use the probes' maps")]
    Maps(#[from] MapError),
}

impl LoadError {
    /// In words for people: why, and what would mend it.
    pub fn missing(&self) -> Missing {
        if self.is_permission() {
            return not_permitted();
        }
        let remedy = match self {
            Self::NoObject => {
                "build it with probes: cargo xtask build-ebpf, then build the agent with \
                 MIGSCOPE_EBPF_OBJECT set to the path that it prints"
            }
            // The verifier gives up on a program after a million instructions that it has followed; newer ones see sooner what they know.
            Self::Refused { io_error, .. }
                if io_error.kind() == io::ErrorKind::ArgumentListTooLong =>
            {
                "use a newer kernel: the verifier of this one does not follow the probe to its end (that of \
                 Linux 6.1 does)"
            }
            Self::Object(_) | Self::Refused { .. } | Self::Program(..) | Self::Maps(_) => {
                "run `migscope --log.level debug check` and report what it prints; the probes need \
                 Linux 5.8 or later"
            }
        };
        Missing::new(chain(self), remedy)
    }

    fn is_permission(&self) -> bool {
        let io_error = match self {
            Self::Refused { io_error, .. } => Some(io_error),
            Self::Program(_, ProgramError::SyscallError(call)) => Some(&call.io_error),
            Self::Object(EbpfError::MapError(AyaMapError::CreateError { io_error, .. })) => {
                Some(io_error)
            }
            Self::Object(EbpfError::MapError(AyaMapError::SyscallError(call))) => {
                Some(&call.io_error)
            }
            _ => None,
        };
        io_error.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Loads the probes from `object`.
///
/// # Errors
///
/// [`LoadError`]; nothing stays behind in the kernel.
pub fn load(object: Option<&[u8]>) -> Result<Loaded, LoadError> {
    let object = object.ok_or(LoadError::NoObject)?;
    let log_level = logs::level();
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(account())
        // Not mandatory: an object in which no program logs has no level.
        .override_global(aya_log::LEVEL, &log_level, false)
        .load(object)
        .map_err(LoadError::Object)?;
    let logs = logs::take(&mut ebpf);
    let mut refused = BTreeMap::new();
    for probe in Probe::ALL {
        let Some(program) = ebpf.program_mut(probe.name()) else {
            continue; // `attach` says so
        };
        let began = Instant::now();
        match load_one(program, probe) {
            Ok(()) => {
                let instructions = verified(&ebpf, probe);
                debug!(program = probe.name(), instructions, took = ?began.elapsed(), "loaded");
            }
            // What an older kernel cannot run for other drivers must not hinder what it can for ours, nor the other way round.
            Err(error) if !error.is_permission() => {
                refused.insert(probe, error.missing());
            }
            Err(error) => return Err(error),
        }
    }
    let maps = Maps::take(&mut ebpf)?;
    let reader = Reader::take(&mut ebpf)?;
    Ok(Loaded { ebpf, maps, reader, logs, refused })
}

/// How much the verifier tells of a program that it refuses. All of it is a line for each instruction that it followed: aya asks
/// again with ten times the room until there is room for them, and each time the verifier goes through the program anew.
fn account() -> VerifierLogLevel {
    if enabled!(Level::DEBUG) {
        VerifierLogLevel::DEBUG | VerifierLogLevel::STATS
    } else {
        VerifierLogLevel::STATS
    }
}

fn load_one(program: &mut Program, probe: Probe) -> Result<(), LoadError> {
    let name = probe.name();
    let of_another_type = |error| LoadError::Program(name, error);
    let loaded = match probe.target() {
        Target::Tracepoint(_) => {
            let program: &mut RawTracePoint = program.try_into().map_err(of_another_type)?;
            program.load()
        }
        Target::Entry(_)
        | Target::Return(_)
        | Target::DataFileEntry(_)
        | Target::DataFileReturn(_)
        | Target::RegionEntry(_)
        | Target::RegionReturn
        | Target::RegionTail => {
            let program: &mut KProbe = program.try_into().map_err(of_another_type)?;
            program.load()
        }
    };
    loaded.map_err(|error| refused(name, error))
}

/// Keeps the verifier's account, which can be thousands of lines, out of the message.
fn refused(program: &'static str, error: ProgramError) -> LoadError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            debug!(program, %verifier_log, "the kernel refused a probe");
            LoadError::Refused { program, io_error }
        }
        other => LoadError::Program(program, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_without_probes_says_how_to_build_one_with_them() {
        let Err(error) = load(None) else { panic!("nothing to load") };
        let missing = error.missing();
        assert!(missing.why.contains("without probes"), "{missing:?}");
        assert!(missing.remedy.contains("build-ebpf"), "{missing:?}");
    }

    #[test]
    fn a_program_that_the_verifier_does_not_follow_to_its_end_wants_a_newer_kernel() {
        let refused = |errno| LoadError::Refused {
            program: "region_return",
            io_error: io::Error::from_raw_os_error(errno),
        };
        // E2BIG, and EINVAL for any other fault.
        let missing = refused(7).missing();
        assert!(missing.why.contains("region_return"), "{missing:?}");
        assert!(missing.remedy.contains("newer kernel"), "{missing:?}");
        assert!(refused(22).missing().remedy.contains("report"), "not by a newer kernel");
    }

    #[test]
    fn an_object_that_is_none_is_an_error_not_a_panic() {
        let Err(error) = load(Some(b"not an ELF file")) else { panic!("nothing to load") };
        assert!(matches!(error, LoadError::Object(_)), "{error:?}");
        assert!(!error.missing().why.is_empty());
    }
}
