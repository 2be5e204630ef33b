// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An agent and migrations at the host's word; `cargo xtask test` runs it for the test of the live page.

fn main() -> std::process::ExitCode {
    cases::stage::main()
}
