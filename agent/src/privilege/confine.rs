// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the process never needs, and so cannot do: gain privileges, run programs, write files, connect anywhere.
//!
//! seccomp refuses by name, and lets pass what is not named. A list of what is needed would be tighter, and would break with the
//! next version of the C library or of tokio, on somebody else's machine; what is on the list here no version of them needs.

use super::PrivilegeError;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::thread::set_no_new_privs;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, apply_filter_all_threads,
};
use std::{collections::BTreeMap, io, path::Path};

/// The newest rules of Landlock that this was tried with (Linux 6.12).
const LANDLOCK: ABI = ABI::V6;

/// Calls that are refused from the start: other programs and processes, modules, mounts, clocks, keys, raw access to memory.
const NEVER: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Commands of `bpf()` that read and tidy maps and programs which are there (`enum bpf_cmd`): all that is needed once probes are attached.
const BPF_READS: [u64; 5] = [
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    15, // BPF_OBJ_GET_INFO_BY_FD
];

/// How far the process was confined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    /// `full`, `partial`, or `not by this kernel`.
    pub landlock: &'static str,
    /// `on`, or why not.
    pub seccomp: String,
}

/// Confines the calling thread and those that it starts. `removable` are folders in which files are removed in the end, `writable`
/// those in which files are made, written and renamed.
///
/// A kernel without Landlock or seccomp confines as far as it can; the answer says so.
///
/// # Errors
///
/// [`PrivilegeError`], when the kernel refuses what every kernel can do.
pub fn confine<'a>(
    removable: impl Iterator<Item = &'a Path>,
    writable: impl Iterator<Item = &'a Path>,
) -> Result<Confined, PrivilegeError> {
    set_no_new_privs(true)
        .map_err(|error| PrivilegeError::Refused("new privileges", error.into()))?;
    let landlock = restrict_files(removable, writable)
        .map_err(|error| PrivilegeError::Refused("writing files", io::Error::other(error)))?;
    let seccomp = match never() {
        Ok(()) => "on".into(),
        Err(error) => error.to_string(),
    };
    Ok(Confined { landlock, seccomp })
}

fn restrict_files<'a>(
    removable: impl Iterator<Item = &'a Path>,
    writable: impl Iterator<Item = &'a Path>,
) -> Result<&'static str, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_write(LANDLOCK) | AccessFs::Execute)?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::Signal)?
        .create()?;
    for folder in removable {
        if let Ok(folder) = PathFd::new(folder) {
            ruleset = ruleset.add_rule(PathBeneath::new(folder, AccessFs::RemoveFile))?;
        }
    }
    for folder in writable {
        if let Ok(folder) = PathFd::new(folder) {
            let access = AccessFs::from_write(LANDLOCK);
            ruleset = ruleset.add_rule(PathBeneath::new(folder, access))?;
        }
    }
    let status = ruleset.restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => "full",
        (RulesetStatus::PartiallyEnforced, _) => "partial",
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => "switched off in this kernel",
        (RulesetStatus::NotEnforced, _) => "not by this kernel",
    })
}

/// Why seccomp does not guard.
#[derive(Debug, thiserror::Error)]
pub(super) enum SeccompError {
    /// Not for this architecture.
    #[error("no filter can be made for this architecture")]
    Architecture(#[source] seccompiler::BackendError),
    /// The kernel has no filters, or takes none.
    #[error("this kernel takes no filter")]
    Refused(#[source] seccompiler::Error),
}

fn never() -> Result<(), SeccompError> {
    let program = refusing(NEVER.iter().map(|call| (*call, Vec::new())).collect())?;
    apply_filter(&program).map_err(SeccompError::Refused)
}

/// Refuses, for all threads of the process, to load and attach BPF programs.
pub(super) fn no_more_programs() -> Result<(), SeccompError> {
    let command = |command| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, command)
            .map_err(SeccompError::Architecture)
    };
    let other = BPF_READS.into_iter().map(command).collect::<Result<Vec<_>, _>>()?;
    let rule = SeccompRule::new(other).map_err(SeccompError::Architecture)?;
    let rules =
        BTreeMap::from([(libc::SYS_bpf, vec![rule]), (libc::SYS_perf_event_open, Vec::new())]);
    apply_filter_all_threads(&refusing(rules)?).map_err(SeccompError::Refused)
}

fn refusing(rules: BTreeMap<libc::c_long, Vec<SeccompRule>>) -> Result<BpfProgram, SeccompError> {
    let architecture =
        TargetArch::try_from(std::env::consts::ARCH).map_err(SeccompError::Architecture)?;
    let eperm = u32::try_from(libc::EPERM).expect("an errno is positive");
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(eperm), architecture)
        .and_then(BpfProgram::try_from)
        .map_err(SeccompError::Architecture)
}
