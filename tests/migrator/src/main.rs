// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program `migrator`; all of it is in [`migrator::cli`].

fn main() -> std::process::ExitCode {
    migrator::cli::main()
}
