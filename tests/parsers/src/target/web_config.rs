// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file of `--web.config.file`, in the format of exporter-toolkit. The input is the file; each byte 1 in it stands for a secret.
//!
//! Held against it: no error tells the secret, neither of the text nor of what it asks for; what is served then has been asked for.

use crate::{Seed, scratch::Scratch};
use migscope::web::{config, live::Live};
use std::{error::Error, path::Path};

/// What nobody may see. No key and no message has it in it.
const SECRET: &str = "Z3cr3tZ3cr3t";
const PLACE: &str = "\u{1}";

/// Reads a web configuration, and what it asks for.
///
/// # Panics
///
/// When something is wrong.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let text = text.replace(PLACE, SECRET);
    let file = match config::parse(&text) {
        Ok(file) => file,
        Err(error) => return hold_secret(&error),
    };
    let tls = &file.tls_server_config;
    let files = [&tls.cert_file, &tls.key_file, &tls.client_ca_file];
    // A path may lead out of the folder, and what is there is not the input.
    if files.into_iter().any(|path| leads_out(path)) {
        return;
    }
    assert!(!format!("{:?}", file.basic_auth_users.values()).contains(SECRET));
    let (wants_tls, wants_users) = (tls.is_wanted(), !file.basic_auth_users.is_empty());
    let scratch = Scratch::new().expect("a folder");
    let path = scratch.write("web.yml", text.as_bytes()).expect("a file");
    match Live::start(Some(path)) {
        Ok(live) => {
            let current = live.current();
            assert_eq!(
                (current.tls.is_some(), !current.users.is_empty()),
                (wants_tls, wants_users)
            );
            // The hashes of users are in no output.
            assert!(!format!("{:?}", current.users).contains(SECRET) || users_have_it(&file));
        }
        Err(error) => {
            // The name of a user or of a header is told; a hash, a password and a key are not.
            let named = format!("{:?} {files:?}", file.http_server_config).contains(SECRET);
            if !named && !users_have_it(&file) {
                hold_secret(&error);
            }
        }
    }
}

fn users_have_it(file: &config::File) -> bool {
    file.basic_auth_users.keys().any(|user| user.contains(SECRET))
}

fn leads_out(path: &Path) -> bool {
    path.is_absolute() || path.components().any(|part| part.as_os_str() == "..")
}

/// Holds that neither the error nor a cause of it tells the secret.
fn hold_secret(error: &dyn Error) {
    let mut told = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        told.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    assert!(!told.contains(SECRET), "{told}");
}

/// Files for exporter-toolkit, right and wrong.
pub fn seeds() -> Vec<Seed> {
    const HASH: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";
    let full = format!(
        "tls_server_config:\n  cert_file: server.crt\n  key: \u{1}\n  min_version: TLS13\n  \
         cipher_suites: [TLS_AES_128_GCM_SHA256]\n  curve_preferences: [CurveP256]\n\
         http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n\
         basic_auth_users:\n  alice: {HASH}\n  bob: \u{1}\nrate_limit:\n  interval: 1s\n  burst: 5\n"
    );
    vec![
        Seed::new("full", full),
        Seed::new("users", format!("basic_auth_users:\n  alice: {HASH}\n")),
        Seed::new("no-hash", "basic_auth_users:\n  alice: \u{1}\n"),
        Seed::new("headers", "http_server_config: {headers: {X-Frame-Options: sameorigin}}\n"),
        Seed::new(
            "inline",
            "tls_server_config:\n  cert: |\n    -----BEGIN CERTIFICATE-----\n    MIIB\n    -----END CERTIFICATE-----\n  key: \u{1}\n",
        ),
        Seed::new("rate", "rate_limit: {interval: 1m30s, burst: 1}\n"),
        Seed::new(
            "anchors",
            "http_server_config: &a {headers: {}}\nbasic_auth_users: {x: *a, y: !\u{1} z}\n",
        ),
        Seed::new("comment", "# nothing\n"),
    ]
}
