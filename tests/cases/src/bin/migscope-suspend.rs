// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A test that ends with its guest: `cargo xtask test` runs it, as `guest: suspend`.

fn main() -> std::process::ExitCode {
    cases::suspend::main()
}
