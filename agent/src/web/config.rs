// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The web configuration file, as exporter-toolkit writes it: YAML, strictly read.
//!
//! Its errors must not show what it holds: it has password hashes, and may have a key, and an error goes to the log. So an error
//! tells line and column, and of the parser's message only what cannot come from the file ([`redacted`]).

use serde::{Deserialize, Deserializer, de::Error as _};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

/// As much of a web configuration as is read.
pub const FILE_BYTES: u64 = 1 << 20;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// TLS.
    pub tls_server_config: Tls,
    /// HTTP.
    pub http_server_config: Http,
    /// Users, each with the bcrypt hash of the password.
    pub basic_auth_users: BTreeMap<String, Secret>,
    /// How many requests in which time.
    pub rate_limit: Rate,
}

/// `tls_server_config`. An empty string is as good as none, as in exporter-toolkit.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub cert: String,
    /// Key, PEM.
    pub key: Secret,
    /// Certificate authorities of clients, PEM.
    pub client_ca: String,
    /// File with the certificate chain.
    pub cert_file: PathBuf,
    /// File with the key.
    pub key_file: PathBuf,
    /// Whether clients show certificates.
    pub client_auth_type: String,
    /// File with the certificate authorities of clients.
    pub client_ca_file: PathBuf,
    /// Names that a client's certificate must have one of.
    pub client_allowed_sans: Vec<String>,
    /// Oldest version.
    pub min_version: String,
    /// Newest version.
    pub max_version: String,
    /// Suites for TLS 1.2, by Go's names.
    pub cipher_suites: Vec<String>,
    /// Whether the order of ours counts, not of the client's.
    pub prefer_server_cipher_suites: bool,
    /// Curves, by Go's names, the preferred one first.
    pub curve_preferences: Vec<String>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            cert: String::new(),
            key: Secret::default(),
            client_ca: String::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            client_auth_type: String::new(),
            client_ca_file: PathBuf::new(),
            client_allowed_sans: Vec::new(),
            min_version: "TLS12".into(),
            max_version: "TLS13".into(),
            cipher_suites: Vec::new(),
            prefer_server_cipher_suites: true,
            curve_preferences: Vec::new(),
        }
    }
}

impl Tls {
    /// Whether the file asks for TLS, by the same keys as exporter-toolkit's `IsEnabled`.
    pub fn is_wanted(&self) -> bool {
        !(self.cert.is_empty()
            && self.key.reveal().is_empty()
            && self.client_ca.is_empty()
            && self.cert_file.as_os_str().is_empty()
            && self.key_file.as_os_str().is_empty()
            && self.client_ca_file.as_os_str().is_empty()
            && self.client_auth_type.is_empty())
    }

    /// Puts relative paths below `folder`, that of the configuration file.
    pub fn below(&mut self, folder: &Path) {
        for path in [&mut self.cert_file, &mut self.key_file, &mut self.client_ca_file] {
            if !path.as_os_str().is_empty() {
                *path = folder.join(&*path);
            }
        }
    }
}

/// `http_server_config`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Whether HTTP/2 is offered; it is over TLS only.
    pub http2: bool,
    /// Headers that each answer gets.
    pub headers: BTreeMap<String, String>,
}

impl Default for Http {
    fn default() -> Self {
        Self { http2: true, headers: BTreeMap::new() }
    }
}

/// `rate_limit`: a bucket with `burst` tokens, which gets one each `interval`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Rate {
    /// Time for one token; zero is no limit.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Tokens at most.
    pub burst: u32,
}

/// What nobody may see: it has no `Display`, and its `Debug` tells nothing.
#[derive(Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// The one message of ours that a value of the file can cause.
const DURATION: &str = "a duration is written as 1s, 100ms or 1m30s";

/// A text that is not a web configuration. Tells where, and what as far as it cannot be a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}{what}")]
pub struct Malformed {
    place: String,
    what: String,
}

/// Reads a web configuration.
///
/// # Errors
///
/// [`Malformed`]: no YAML, a key that is not known, a value of another type. Values are judged by those who use them.
pub fn parse(text: &str) -> Result<File, Malformed> {
    // A file of comments is no YAML document with keys, but a configuration that asks for nothing.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(File::default());
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error
            .location()
            .map_or_else(String::new, |at| format!("line {}, column {}: ", at.line(), at.column()));
        Malformed { place, what: redacted(&error.without_snippet().to_string()) }
    })
}

/// What of a parser's message can be shown. It repeats what it found, with quotes or without: so what it found is left out, and only
/// names of keys are shown, if they look like ours, and what was expected.
fn redacted(message: &str) -> String {
    let is_ours = |name: &&str| {
        name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let message = message.lines().next().unwrap_or_default();
    if message.starts_with("unknown field") {
        let name = message.split('`').nth(1).filter(is_ours).unwrap_or("…");
        return format!("the key `{name}` is not known here");
    }
    if message.starts_with("duplicate") {
        return "a key is here for the second time".into();
    }
    if message.starts_with("invalid ")
        && let Some((_, expected)) = message.rsplit_once(", expected ")
    {
        return format!("a value of another kind is needed: {expected}");
    }
    if message.contains(DURATION) {
        return DURATION.into();
    }
    "this is no valid YAML, or not of the kind that the key needs".into()
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(&text).map_err(|_hidden| D::Error::custom(DURATION))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";

    /// The sample of exporter-toolkit's own documentation, with what is in brackets there filled in.
    #[test]
    fn a_file_for_exporter_toolkit_is_understood() {
        let text = format!(
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: tls/ca.crt\n  \
             min_version: TLS13\n  max_version: TLS13\n  cipher_suites:\n  \
             - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\n  prefer_server_cipher_suites: false\n  \
             curve_preferences: [CurveP256]\nhttp_server_config:\n  http2: false\n  headers:\n    \
             X-Frame-Options: deny\nbasic_auth_users:\n  alice: {HASH}\n  bob: {HASH}\n\
             rate_limit:\n  interval: 1s\n  burst: 5\n"
        );
        let mut file = parse(&text).expect("valid");
        file.tls_server_config.below(Path::new("/etc/web"));
        assert_eq!(file.tls_server_config.cert_file, Path::new("/etc/web/server.crt"));
        assert_eq!(file.tls_server_config.client_ca_file, Path::new("/etc/web/tls/ca.crt"));
        assert!(!file.tls_server_config.prefer_server_cipher_suites);
        assert!(!file.http_server_config.http2);
        assert_eq!(file.basic_auth_users["bob"].reveal(), HASH);
        assert_eq!(file.rate_limit, Rate { interval: Duration::from_secs(1), burst: 5 });
    }

    #[test]
    fn an_empty_file_asks_for_nothing() {
        for text in ["", "# nothing\n\n", "{}\n"] {
            let file = parse(text).expect("valid");
            assert!(!file.tls_server_config.is_wanted() && file.basic_auth_users.is_empty());
            assert!(file.http_server_config.http2, "exporter-toolkit's default");
        }
    }

    #[test]
    fn a_key_that_is_not_known_is_refused_by_name() {
        let error = parse("tls_server_config:\n  certfile: x\n").expect_err("unknown").to_string();
        assert!(error.contains("line 2") && error.contains("certfile"), "{error}");
        let error =
            parse("http_server_config:\n  http2: [1]\n").expect_err("no boolean").to_string();
        assert!(error.contains("line 2"), "{error}");
        let error = parse("rate_limit: {interval: soon}").expect_err("none").to_string();
        assert!(error.contains("100ms"), "{error}");
        assert!(parse("basic_auth_users:\n  a: x\n  a: y\n").is_err(), "a name twice");
    }

    #[test]
    fn no_error_shows_a_secret() {
        for text in [
            format!("basic_auth_users: alice {HASH}\n"),
            format!("basic_auth_users:\n - {HASH}\n"),
            format!("basic_auth_users:\n  {HASH}: [alice]\n"),
            format!("{HASH}: alice\n"),
            format!("tls_server_config: {HASH}\n"),
            format!("http_server_config:\n  http2: {HASH}\n"),
            format!("http_server_config:\n  headers: \"{HASH}\n"),
            format!("rate_limit:\n  burst: {HASH}\n  interval: 1s\n"),
            format!("rate_limit:\n  interval: {HASH}\n"),
            format!("basic_auth_users:\n  alice: *{HASH}\n"),
            format!("basic_auth_users:\n  alice: !{HASH} [{HASH}]\n"),
            format!("basic_auth_users:\n  alice: \"{HASH}\n"),
            format!("basic_auth_users:\n  {HASH}: x\n  {HASH}: y\n"),
            format!("basic_auth_users:\n  alice: '{HASH}\"`' x\n"),
        ] {
            let error = parse(&text).expect_err(&text);
            for shown in [error.to_string(), format!("{error:?}")] {
                assert!(!shown.contains("X0h1gDsP"), "{text}: {shown}");
            }
        }
        let users = parse(&format!("basic_auth_users:\n  alice: {HASH}\n")).expect("valid");
        assert!(!format!("{users:?}").contains("X0h1gDsP"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_tells_a_secret(
            before in "[a-z_:\\[{&*!\"'`, \n-]{0,40}",
            after in "[a-z_:\\]}&*!\"'`, \n-]{0,40}",
        ) {
            if let Err(error) = parse(&format!("{before}{HASH}{after}")) {
                prop_assert!(!error.to_string().contains("X0h1gDsP"), "{}", error);
            }
        }
    }
}
