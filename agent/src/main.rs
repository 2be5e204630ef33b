// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The binary `migscope`.

use std::process::ExitCode;

fn main() -> ExitCode {
    migscope::args::run()
}
