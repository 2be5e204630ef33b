// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration fragment, and whether Kconfig did what it asks for.
//!
//! Kconfig drops a requested symbol without a word when a dependency is missing, and the kernel then
//! lacks something that only shows in the guest.

use anyhow::{Context as _, Result, bail};

/// One requested symbol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    name: String,
    value: String,
}

/// Reads `CONFIG_X=value` lines; comments and empty lines are free.
pub(crate) fn parse(fragment: &str) -> Result<Vec<Symbol>> {
    fragment
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line
                .split_once('=')
                .filter(|(name, _)| name.starts_with("CONFIG_"))
                .with_context(|| format!("`{line}` is not CONFIG_NAME=value"))?;
            Ok(Symbol { name: name.to_owned(), value: value.to_owned() })
        })
        .collect()
}

/// Fails, naming each, when requested symbols are not what `.config` says.
pub(crate) fn verify(requested: &[Symbol], resolved: &str) -> Result<()> {
    let resolved = parse(resolved)?;
    let dropped: Vec<String> = requested
        .iter()
        .filter_map(|Symbol { name, value }| {
            let got = resolved.iter().find(|symbol| symbol.name == *name);
            let got = got.map_or("not set", |symbol| symbol.value.as_str());
            (got != value).then(|| format!("{name}={value} (is {got})"))
        })
        .collect();
    if !dropped.is_empty() {
        bail!(
            "Kconfig did not set what was asked for; a dependency is missing in the fragment, or the \
             name is gone from this kernel: {}",
            dropped.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_symbol_is_named() {
        let requested = parse("# why\n\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_C=y\n").unwrap();
        verify(&requested, "CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=y\nCONFIG_D=y\n").unwrap();
        let error = verify(&requested, "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("CONFIG_B=m (is y)"), "{error}");
        assert!(error.contains("CONFIG_C=y (is not set)"), "{error}");
        assert!(!error.contains("CONFIG_A"), "{error}");
    }

    #[test]
    fn a_line_that_is_no_setting_is_refused() {
        assert!(parse("CONFIG_A y").is_err());
        assert!(parse("A=y").is_err());
    }
}
