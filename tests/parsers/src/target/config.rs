// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope.toml`, and the texts in it that have a form of their own. The input is the file.
//!
//! Held against it: what is understood can be printed and read again, and is the same; a layer wins over what is below it.
//!
//! A name in `listen-address` would be looked up, and a network is not to be asked a thousand times a second for what a fuzzer made
//! up: a file with anything but numbers there is left out.

use crate::Seed;
use migscope::{
    config::{Layer, Settings, Size, WebPath, size},
    http,
    web::address::ListenAddress,
};
use std::net::SocketAddr;

/// Reads a configuration file.
///
/// # Panics
///
/// When something is wrong.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    texts(text);
    if asks_for_names(text) {
        return;
    }
    let Ok(layer) = toml::from_str::<Layer>(text) else { return };
    assert_eq!(layer.clone().or(Layer::default()), layer);
    assert_eq!(Layer::default().or(layer.clone()), layer);
    let settings = Settings::from(layer);
    let printed = settings.to_string();
    let again = toml::from_str::<Layer>(&printed)
        .unwrap_or_else(|error| panic!("what is printed is not read: {error}\n{printed}"));
    let again = Settings::from(again);
    assert_eq!(again, settings, "{printed}");
    assert_eq!(settings.changes(&again), []);
    assert!(settings.written_folders().count() <= 2);
}

/// The whole input as what a flag takes.
fn texts(text: &str) {
    if let Ok(bytes) = size(text) {
        assert_eq!(size(&Size(bytes).to_string()), Ok(bytes), "{text}");
    }
    if let Ok(path) = text.parse::<WebPath>() {
        assert!(path.as_str() == text && !http::is_taken(text), "{text}");
    }
    if is_number(text)
        && let Ok(address) = text.parse::<ListenAddress>()
    {
        assert_eq!(address.to_string().parse(), Ok(address), "{text}");
    }
}

/// Whether an address says itself what it is.
fn is_number(address: &str) -> bool {
    let port = address.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let known = ["unix:", "vsock:"].into_iter().any(|scheme| address.starts_with(scheme));
    port || known || address.parse::<SocketAddr>().is_ok()
}

fn asks_for_names(text: &str) -> bool {
    // What is no TOML is refused as a whole, before anything in it is looked at.
    let Ok(file) = toml::from_str::<toml::Table>(text) else { return false };
    let addresses = file.get("web").and_then(|web| web.get("listen-address"));
    let addresses = addresses.and_then(toml::Value::as_array);
    let mut texts = addresses.into_iter().flatten().filter_map(toml::Value::as_str);
    texts.any(|address| !is_number(address))
}

/// The documented sample, what all defaults print as, and each text alone.
pub fn seeds() -> Vec<Seed> {
    let sample = include_str!("../../../../agent/dist/migscope.toml");
    let every: String = sample
        .lines()
        .map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n")
        .collect();
    vec![
        Seed::new("sample", sample),
        Seed::new("every-key", every),
        Seed::new("defaults", Settings::from(Layer::default()).to_string()),
        Seed::new(
            "durations",
            "[series]\nkeep = \"1year 2months 3weeks 4d 5h 6m 7s 8ms 9us 10ns\"\n",
        ),
        Seed::new("addresses", "[web]\nlisten-address = [\":1\", \"[::1]:2\", \"unix:/a\\\"b\"]\n"),
        Seed::new("size", "100M"),
        Seed::new("path", "/probe/metrics"),
        Seed::new("address", "[::1%1]:10477"),
    ]
}
