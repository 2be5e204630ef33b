// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An agent and migrations of every end, for a Prometheus to look at; `cargo xtask demo --monitoring` runs it.

fn main() -> std::process::ExitCode {
    cases::monitored::main()
}
