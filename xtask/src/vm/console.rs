// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest's kernel says on its console, and whether that is trouble.
//!
//! A test that passes while the kernel oopses has not passed. The kernel runs with `loglevel=5`, so
//! that warnings reach the console and little else does.

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Reported when the command has ended.
    Report,
    /// The guest is dead or stuck, and waiting for it is useless.
    Fatal,
}

/// What the kernel writes when something is wrong, worst first.
const SIGNS: &[(&str, Trouble)] = &[
    ("Kernel panic - not syncing", Trouble::Fatal),
    // With oops=panic an oops is followed by a panic.
    ("Oops: ", Trouble::Fatal),
    ("soft lockup", Trouble::Fatal),
    ("hard LOCKUP", Trouble::Fatal),
    ("detected stall", Trouble::Fatal),
    ("self-detected stall", Trouble::Fatal),
    ("blocked for more than", Trouble::Fatal),
    ("BUG: ", Trouble::Report),
    ("WARNING: ", Trouble::Report),
    ("KASAN: ", Trouble::Report),
    ("UBSAN: ", Trouble::Report),
    // Lockdep: "INFO: possible circular locking dependency detected" and its kin.
    ("INFO: possible ", Trouble::Report),
    ("INFO: trying to register non-static key", Trouble::Report),
    // Whatever else dumps a stack.
    ("Call Trace:", Trouble::Report),
];

/// Judges one line of the console.
pub(crate) fn judge(line: &str) -> Option<Trouble> {
    SIGNS.iter().find(|(sign, _)| line.contains(sign)).map(|&(_, trouble)| trouble)
}

/// The bits of `/proc/sys/kernel/tainted` (Documentation/admin-guide/tainted-kernels.rst) that say the
/// same as [`SIGNS`] and cannot be overlooked by a full buffer.
const TAINTS: &[(u32, &str)] = &[
    (4, "a machine check"),
    (5, "a bad page"),
    (7, "an oops or BUG"),
    (9, "a WARNING"),
    (14, "a soft lockup"),
];

/// What a taint value tells of trouble, if anything; being tainted by an out-of-tree module is not.
pub(crate) fn taint(value: u64) -> Option<String> {
    let told: Vec<&str> =
        TAINTS.iter().filter(|(bit, _)| value & (1 << bit) != 0).map(|&(_, what)| what).collect();
    (!told.is_empty()).then(|| told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as kernel 7.3 prints them.
    #[test]
    fn trouble_is_seen() {
        for (line, trouble) in [
            ("[    2.1] Kernel panic - not syncing: sysrq triggered crash", Trouble::Fatal),
            ("[    2.1] Oops: Oops: 0000 [#1] SMP", Trouble::Fatal),
            ("[   40.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:1]", Trouble::Fatal),
            ("[   40.0] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", Trouble::Fatal),
            ("[  140.0] INFO: task a:9 blocked for more than 120 seconds.", Trouble::Fatal),
            (
                "[    2.1] BUG: sleeping function called from invalid context at m.c:1",
                Trouble::Report,
            ),
            ("[    2.1] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2", Trouble::Report),
            ("[    2.1] WARNING: possible circular locking dependency detected", Trouble::Report),
        ] {
            assert_eq!(judge(line), Some(trouble), "{line}");
        }
    }

    #[test]
    fn ordinary_lines_are_not_trouble() {
        for line in [
            "[    0.0] vfio_mediate: loading out-of-tree module taints kernel.",
            "[    0.2] DMAR: Intel(R) Virtualization Technology for Directed I/O",
            "[    1.0] overlayfs: upper fs does not support RENAME_WHITEOUT.",
        ] {
            assert_eq!(judge(line), None, "{line}");
        }
    }

    #[test]
    fn an_out_of_tree_module_alone_is_no_trouble() {
        assert_eq!(taint((1 << 12) | (1 << 13)), None);
        assert_eq!(taint((1 << 12) | (1 << 9)).as_deref(), Some("a WARNING"));
    }
}
