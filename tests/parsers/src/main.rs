// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program of the fuzz targets. Built as usual it feeds a target with files, to look at a finding:
//!
//! ```text
//! cargo run -p parsers -- TARGET FILE…
//! ```
//!
//! Built with `--cfg fuzzing`, as `cargo xtask fuzz parsers` does, libFuzzer is its main function and its command line is libFuzzer's.
//! The variable `MIGSCOPE_PARSER` then names the target, and `MIGSCOPE_PARSER_SEEDS` a folder that its seeds are written to first.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod fuzzing {
    use parsers::{Target, target};
    use std::{env, path::Path, sync::OnceLock};

    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

    /// Before the first input.
    fn choose() {
        let name = env::var("MIGSCOPE_PARSER").expect("MIGSCOPE_PARSER names the target");
        let chosen = target(&name).expect("MIGSCOPE_PARSER names a target");
        if let Some(folder) = env::var_os("MIGSCOPE_PARSER_SEEDS") {
            chosen.write_seeds(Path::new(&folder)).expect("the seeds can be written");
        }
        let _ = CHOSEN.set(chosen);
    }

    libfuzzer_sys::fuzz_target!(init: choose(), |bytes: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            (target.run)(bytes);
        }
    });
}

#[cfg(not(fuzzing))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let name = arguments.next().unwrap_or_default();
    let Some(target) = name.to_str().and_then(parsers::target) else {
        let names = parsers::TARGETS.map(|target| format!("  {:12} {}", target.name, target.reads));
        return Err(format!("give a target and files\n{}", names.join("\n")).into());
    };
    for file in arguments {
        let bytes = std::fs::read(&file)
            .map_err(|error| format!("failed to read {}: {error}", file.display()))?;
        eprintln!("{}: {} bytes", file.display(), bytes.len());
        (target.run)(&bytes);
    }
    Ok(())
}
