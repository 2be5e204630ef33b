// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Attaching each program to its tracepoint, and saying what is missing when that fails.

use super::Standing;
use aya::{
    Ebpf,
    programs::{ProgramError, RawTracePoint},
};
use migscope_abi::trace::Event;
use serde::Serialize;
use std::io;

/// The order in which probes are attached. `state` comes last: a session begins with its record, and by then all that is added
/// up for a session is being added up.
const ORDER: [Event; Event::COUNT] =
    [Event::RegionAccess, Event::Data, Event::DirtyQuery, Event::Dma, Event::Error, Event::State];

/// Something that this host cannot show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What stands in the way.
    pub why: String,
    /// What would mend it.
    pub remedy: String,
}

/// Tries to attach every probe that is not attached yet; tells whether anything changed.
pub fn attach(ebpf: &mut Ebpf, standing: &mut Standing) -> bool {
    let mut changed = false;
    for event in ORDER {
        if standing.get(&event) == Some(&Ok(())) {
            continue;
        }
        let now = attach_one(ebpf, event);
        changed |= standing.get(&event) != Some(&now);
        standing.insert(event, now);
    }
    changed
}

fn attach_one(ebpf: &mut Ebpf, event: Event) -> Result<(), Missing> {
    let Some(program) = ebpf.program_mut(event.name()) else {
        return Err(Missing {
            why: format!("the object has no program named {}", event.name()),
            remedy: "build the probes and the agent from the same source".into(),
        });
    };
    let program: &mut RawTracePoint = program.try_into().map_err(|error| refused(event, &error))?;
    match program.attach(event.tracepoint()) {
        Ok(_) => Ok(()),
        Err(error) => Err(refused(event, &error)),
    }
}

/// Turns the kernel's answer into words.
fn refused(event: Event, error: &ProgramError) -> Missing {
    let errno = match error {
        ProgramError::SyscallError(call) => Some(call.io_error.kind()),
        _ => None,
    };
    match errno {
        Some(io::ErrorKind::NotFound) => Missing {
            why: format!(
                "this kernel has no tracepoint {}: the module vfio_mediate is not loaded",
                event.tracepoint()
            ),
            remedy: "load it: modprobe vfio_mediate (a running agent attaches within seconds)"
                .into(),
        },
        Some(io::ErrorKind::PermissionDenied) => not_permitted(),
        _ => Missing {
            why: format!(
                "failed to attach to the tracepoint {}: {}",
                event.tracepoint(),
                chain(error)
            ),
            remedy: "check that the kernel is built with CONFIG_BPF_EVENTS".into(),
        },
    }
}

/// What is missing when the kernel says EPERM or EACCES.
pub(super) fn not_permitted() -> Missing {
    Missing {
        why: "the kernel does not permit this process to load or attach BPF programs".into(),
        remedy: "run as root, or with the capabilities CAP_BPF and CAP_PERFMON; kernel lockdown \
                 must not be \"confidentiality\""
            .into(),
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // aya repeats its sources in some of its messages.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::sys::SyscallError;

    fn answer(errno: i32) -> Missing {
        let io_error = io::Error::from_raw_os_error(errno);
        let call = SyscallError { call: "bpf_raw_tracepoint_open", io_error };
        refused(Event::State, &ProgramError::SyscallError(call))
    }

    #[test]
    fn a_module_that_is_not_loaded_is_named_with_the_command_that_loads_it() {
        let missing = answer(2); // ENOENT
        assert!(missing.why.contains("vfio_mediate_state"), "{missing:?}");
        assert!(missing.remedy.contains("modprobe vfio_mediate"), "{missing:?}");
    }

    #[test]
    fn a_lack_of_privilege_names_the_capabilities() {
        for errno in [1, 13] {
            assert!(answer(errno).remedy.contains("CAP_BPF"), "errno {errno}");
        }
    }

    #[test]
    fn any_other_errno_is_told_as_it_is() {
        let missing = answer(22); // EINVAL
        assert!(missing.why.contains("Invalid argument"), "{missing:?}");
    }

    #[test]
    fn every_tracepoint_is_in_the_order_once_and_state_is_last() {
        let mut sorted = ORDER;
        sorted.sort();
        assert_eq!(sorted, Event::ALL);
        assert_eq!(ORDER.last(), Some(&Event::State));
    }
}
