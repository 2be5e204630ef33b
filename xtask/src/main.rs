// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    xtask::main()
}
