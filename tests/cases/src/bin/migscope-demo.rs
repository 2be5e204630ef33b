// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The demo's part in the guest; `cargo xtask demo` runs it.

fn main() -> std::process::ExitCode {
    cases::demo::main()
}
