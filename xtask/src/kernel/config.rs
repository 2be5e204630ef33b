// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration fragments, and whether Kconfig did what they ask for.
//!
//! Kconfig drops a requested symbol without a word when a dependency is missing, and the kernel then
//! lacks something that only shows in the guest.

use anyhow::{Context as _, Result, bail};

/// The value of a symbol that is asked to be off; `.config` says that by not setting it.
const OFF: &str = "n";

/// One requested symbol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    name: String,
    value: String,
}

/// Reads `CONFIG_X=value` lines; comments and empty lines are free. Of several lines for one symbol the
/// last holds, as in Kconfig itself: so a fragment may follow another and change what that asks for.
pub(crate) fn parse(fragment: &str) -> Result<Vec<Symbol>> {
    let mut symbols: Vec<Symbol> = Vec::new();
    for line in fragment.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .filter(|(name, _)| name.starts_with("CONFIG_"))
            .with_context(|| format!("`{line}` is not CONFIG_NAME=value"))?;
        match symbols.iter_mut().find(|symbol| symbol.name == name) {
            Some(symbol) => symbol.value = value.to_owned(),
            None => symbols.push(Symbol { name: name.to_owned(), value: value.to_owned() }),
        }
    }
    Ok(symbols)
}

/// Fails, naming each, when requested symbols are not what `.config` says.
pub(crate) fn verify(requested: &[Symbol], resolved: &str) -> Result<()> {
    let resolved = parse(resolved)?;
    let dropped: Vec<String> = requested
        .iter()
        .filter_map(|Symbol { name, value }| {
            let got = resolved.iter().find(|symbol| symbol.name == *name);
            match got {
                Some(symbol) if symbol.value == *value => None,
                Some(symbol) => Some(format!("{name}={value} (is {})", symbol.value)),
                None if value == OFF => None,
                None => Some(format!("{name}={value} (is not set)")),
            }
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
    fn a_later_line_overrides_and_off_means_not_set() {
        let requested = parse("CONFIG_A=y\nCONFIG_B=y\nCONFIG_A=n\nCONFIG_B=\"x\"\n").unwrap();
        assert_eq!(requested.len(), 2);
        verify(&requested, "# CONFIG_A is not set\nCONFIG_B=\"x\"\n").unwrap();
        let error = verify(&requested, "CONFIG_A=y\nCONFIG_B=y\n").unwrap_err().to_string();
        assert!(error.contains("CONFIG_A=n (is y)"), "{error}");
        assert!(error.contains("CONFIG_B=\"x\" (is y)"), "{error}");
    }

    #[test]
    fn a_line_that_is_no_setting_is_refused() {
        assert!(parse("CONFIG_A y").is_err());
        assert!(parse("A=y").is_err());
    }
}
