// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    perf::main()
}
