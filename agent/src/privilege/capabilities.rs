// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The calling thread's capabilities (`capabilities(7)`), in all five sets.

use super::PrivilegeError;
use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    },
};
use std::io;

/// Keeps of `wanted` what is there, and nothing else: effective and permitted become that, bounding, inheritable and ambient become
/// empty. The bounding set says what can be gained by running a program, so it holds nobody back who keeps what it has; and to
/// empty it later would take CAP_SETPCAP, which is gone then.
pub(super) fn keep_only(wanted: CapabilitySet) -> Result<(), PrivilegeError> {
    let refused = |what| move |error: Errno| PrivilegeError::Refused(what, io::Error::from(error));
    let held = capabilities(None).map_err(refused("capabilities"))?;
    empty_bounding(held.effective).map_err(refused("the bounding set of capabilities"))?;
    clear_ambient_capability_set().map_err(refused("ambient capabilities"))?;
    let kept = held.permitted & wanted;
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(refused("capabilities"))?;
    if self::held()? != kept {
        return Err(PrivilegeError::StillThere);
    }
    Ok(())
}

/// Takes everything out of the bounding set. That takes CAP_SETPCAP; who has it not could not gain anything by what is in
/// the set either, since no program can be run with new privileges.
fn empty_bounding(effective: CapabilitySet) -> Result<(), Errno> {
    if !effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(one) {
            Ok(true) => remove_capability_from_bounding_set(one)?,
            Ok(false) => {}
            // Beyond the last one that the kernel knows.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether `work` succeeds without any effective capability. They are effective again afterwards.
pub(super) fn works_without(work: impl FnOnce() -> bool) -> Result<bool, PrivilegeError> {
    let refused = |error: Errno| PrivilegeError::Refused("capabilities", error.into());
    let held = capabilities(None).map_err(refused)?;
    set_capabilities(None, CapabilitySets { effective: CapabilitySet::empty(), ..held })
        .map_err(refused)?;
    let works = work();
    set_capabilities(None, held).map_err(refused)?;
    Ok(works)
}

/// What the thread has or could take.
pub(super) fn held() -> Result<CapabilitySet, PrivilegeError> {
    let sets = capabilities(None)
        .map_err(|error| PrivilegeError::Refused("capabilities", error.into()))?;
    Ok(sets.effective | sets.permitted | sets.inheritable)
}

/// What the thread has at this moment.
#[cfg(test)]
pub(super) fn effective() -> Result<CapabilitySet, PrivilegeError> {
    let sets = capabilities(None)
        .map_err(|error| PrivilegeError::Refused("capabilities", error.into()))?;
    Ok(sets.effective)
}
