// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope-prediction`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    prediction::main()
}
