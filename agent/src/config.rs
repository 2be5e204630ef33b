// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the agent is to run: what was typed, else what the configuration file says, else the default.
//!
//! ```text
//!   flags ──▶ Layer ─┐
//!                    ├─ or ──▶ Layer ── defaults ──▶ Settings
//!   file ───▶ Layer ─┘
//! ```
//!
//! The file is TOML, and a flag's name is its key's: `--web.max-requests` is `max-requests` in the table `[web]`. So there is one
//! vocabulary, and whoever knows the flags can write the file. `agent/dist/migscope.toml` has every key with its default.
//!
//! The format of the file that `--web.config.file` names is another one, exporter-toolkit's ([`crate::web::config`]).

mod layer;
mod settings;
mod size;

pub use layer::{
    Latency, Layer, Log, Migration, Path, Probes, Record, Series, Web, WebConfig, WebPath,
    log_interval,
};
pub use settings::{Change, Settings};
pub use size::{Size, size};

use std::{fs, io, path::PathBuf};

/// As much of a configuration file as is read; one is a few hundred bytes.
pub const FILE_BYTES: u64 = 1 << 20;

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("failed to read the configuration file {0}; name another with --config.file")]
    Read(PathBuf, #[source] io::Error),
    /// It is far longer than a configuration is.
    #[error("the configuration file {0} is longer than {FILE_BYTES} bytes; is it the right one?")]
    TooLong(PathBuf),
    /// It says something that is not understood. The text tells line, column and key.
    #[error(
        "the configuration file {path} is not valid; mend the line, or see the documented sample migscope.toml"
    )]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where in it, and what.
        #[source]
        error: Box<toml::de::Error>,
    },
}

/// Reads a file.
///
/// # Errors
///
/// [`ConfigError`], which names the file, the line, the key and what to do.
pub fn read(path: &std::path::Path) -> Result<Layer, ConfigError> {
    let length = fs::metadata(path).map_err(|error| ConfigError::Read(path.into(), error))?.len();
    if length > FILE_BYTES {
        return Err(ConfigError::TooLong(path.into()));
    }
    let text = fs::read_to_string(path).map_err(|error| ConfigError::Read(path.into(), error))?;
    toml::from_str(&text)
        .map_err(|error| ConfigError::Parse { path: path.into(), error: Box::new(error) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    fn refusal(text: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("migscope.toml");
        fs::write(&path, text).expect("written");
        let error = read(&path).expect_err("it is wrong");
        assert!(error.to_string().contains("migscope.toml"), "{error}");
        error.source().map(ToString::to_string).expect("the parser's account")
    }

    #[test]
    fn an_error_names_line_key_and_what_to_do() {
        for (text, line, said) in [
            ("[web]\nlisten = []\n", "line 2", "unknown field `listen`"),
            ("[web]\nmax-requests = -1\n", "line 2", "max-requests"),
            ("[web]\nlisten-address = [\"nowhere\"]\n", "line 2", "ADDRESS:PORT"),
            ("[web]\ntelemetry-path = \"metrics\"\n", "line 2", "starts with /"),
            ("privileges = \"none\"\n", "line 1", "drop-now"),
            ("[log]\nlevel = \"loud\"\n", "line 2", "warn"),
            ("[series]\nkeep = \"ten minutes\"\n", "line 2", "keep"),
            ("[web\n", "line 1", "[web"),
        ] {
            let told = refusal(text);
            assert!(told.contains(line) && told.contains(said), "{text:?}: {told}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read(std::path::Path::new("/nonexistent/migscope.toml")).expect_err("absent");
        let text = error.to_string();
        assert!(text.contains("/nonexistent/migscope.toml") && text.contains("--config.file"));
    }

    #[test]
    fn the_sample_says_the_defaults_and_every_key() {
        let sample = include_str!("../dist/migscope.toml");
        let uncommented = read_text(sample);
        assert_eq!(Settings::from(uncommented), Settings::from(Layer::default()));
        // What is commented out there has no default, but must be understood as well.
        let every: String = sample
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n")
            .collect();
        let every = read_text(&every);
        assert!(every.is_full(), "a key is missing in the sample: {every:?}");
    }

    fn read_text(text: &str) -> Layer {
        toml::from_str(text).unwrap_or_else(|error| panic!("{error}"))
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "(\\[[a-z.]{0,6}\\]?\n)?[a-z-]{0,8} ?=? ?[\"\\[{0-9a-z:/.-]{0,12}\n?") {
            let _ = toml::from_str::<Layer>(&text);
        }
    }
}
