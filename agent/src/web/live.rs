// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The web configuration as it is now.
//!
//! exporter-toolkit reads its files anew for each request and each handshake, so operators expect a new certificate to be served
//! at once. Here the same moment only asks the kernel whether a file has changed (one `stat` each), and reads when one has.
//!
//! A file that is broken, or half written, changes nothing: what held goes on holding, and the log says so, once for each change.
//! The same goes for a file that no longer asks for TLS, or no longer has users. To serve in the open what was protected is too
//! grave for an edit that may be an accident (an editor truncates before it writes): that takes a restart.

use super::{
    auth::{UserError, Users},
    config::{self, FILE_BYTES, File, Http, Malformed, Rate, Tls},
    tls::{self, Material, TlsError},
};
use crate::probes::attach::chain;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use rustls::ServerConfig;
use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tracing::{error, info};

/// What holds for connections and requests that come now.
#[derive(Clone, Debug, Default)]
pub struct Current {
    /// TLS, where it is spoken.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who may ask.
    pub users: Users,
    /// Headers for each answer.
    pub headers: HeaderMap,
    /// How often requests may come. Kept as it was at the start, as exporter-toolkit does.
    pub rate: Rate,
}

/// Why a web configuration cannot be used. Holds nothing secret.
#[derive(Debug, thiserror::Error)]
pub enum WebConfigError {
    /// The file cannot be read.
    #[error("failed to read the web configuration {0}; name another with --web.config.file")]
    Read(PathBuf, #[source] io::Error),
    /// A file that it names cannot be read.
    #[error(
        "failed to read {file}, which {config} names as {key}: put it there, readable for the agent, or mend the name"
    )]
    Named {
        /// The file that is named.
        file: PathBuf,
        /// The web configuration.
        config: PathBuf,
        /// By which key of `tls_server_config`.
        key: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// It is no valid web configuration.
    #[error(
        "{0} is not a valid web configuration; its format is that of exporter-toolkit's docs/web-configuration.md"
    )]
    Malformed(PathBuf, #[source] Malformed),
    /// TLS cannot be served as it asks.
    #[error("{0} asks for TLS that cannot be served")]
    Tls(PathBuf, #[source] TlsError),
    /// A user cannot be let in.
    #[error("{0} has a user that cannot be let in")]
    User(PathBuf, #[source] UserError),
    /// A header that may not be set, or not to this.
    #[error("{0} sets the header {1}: {2}")]
    Header(PathBuf, String, &'static str),
    /// It would serve in the open what was protected.
    #[error("{0} no longer asks for {1}: to serve without, restart the agent")]
    Unprotected(PathBuf, &'static str),
}

/// A file as the kernel tells of it, so that a change is seen without reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print {
    inode: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Print {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn now(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::of)
    }
}

/// Files that were looked at, each as it was; `None` for one that could not be read.
type Seen = BTreeMap<PathBuf, Option<Print>>;

/// The web configuration, read again when it has changed.
pub struct Live {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    seen: Seen,
    current: Arc<Current>,
}

impl Live {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    ///
    /// [`WebConfigError`]: at the start nothing held before.
    pub fn start(path: Option<PathBuf>) -> Result<Self, WebConfigError> {
        let mut seen = Seen::new();
        let current = match &path {
            Some(path) => load(path, &mut seen)?,
            None => Current::default(),
        };
        Ok(Self { path, state: Mutex::new(State { seen, current: Arc::new(current) }) })
    }

    /// What holds now.
    pub fn current(&self) -> Arc<Current> {
        let mut state = self.state();
        if let Some(path) = &self.path
            && state.seen.iter().any(|(path, print)| Print::now(path) != *print)
        {
            // What was wrong is in the log, and what held goes on holding.
            let _ = state.read_again(path);
        }
        Arc::clone(&state.current)
    }

    /// Reads the file again, whether it has changed or not.
    ///
    /// # Errors
    ///
    /// [`WebConfigError`]; what held goes on holding.
    pub fn reload(&self) -> Result<(), WebConfigError> {
        match &self.path {
            Some(path) => self.state().read_again(path),
            None => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read_again(&mut self, path: &Path) -> Result<(), WebConfigError> {
        let mut seen = Seen::new();
        let loaded = load(path, &mut seen).and_then(|new| self.no_less_protected(path, new));
        // Also when it failed: what failed is tried again when it has changed, not for each request.
        self.seen = seen;
        match loaded {
            Ok(new) => {
                self.current = Arc::new(new);
                info!(file = %path.display(), "the web configuration was read again");
                Ok(())
            }
            Err(error) => {
                error!(
                    error = chain(&error),
                    "the new web configuration cannot be used: the old one goes on holding"
                );
                Err(error)
            }
        }
    }

    fn no_less_protected(&self, path: &Path, new: Current) -> Result<Current, WebConfigError> {
        if self.current.tls.is_some() != new.tls.is_some() {
            let what = if new.tls.is_some() { "plain HTTP" } else { "TLS" };
            return Err(WebConfigError::Unprotected(path.into(), what));
        }
        if !self.current.users.is_empty() && new.users.is_empty() {
            return Err(WebConfigError::Unprotected(path.into(), "passwords"));
        }
        Ok(new)
    }
}

/// Reads everything, and notes in `seen` which files that took.
fn load(path: &Path, seen: &mut Seen) -> Result<Current, WebConfigError> {
    let unread = |error| WebConfigError::Read(path.into(), error);
    let text = read(path, seen).map_err(unread)?;
    let text = String::from_utf8(text)
        .map_err(|error| unread(io::Error::new(io::ErrorKind::InvalidData, error.utf8_error())))?;
    let File { mut tls_server_config, http_server_config, basic_auth_users, rate_limit } =
        config::parse(&text).map_err(|error| WebConfigError::Malformed(path.into(), error))?;
    tls_server_config.below(path.parent().unwrap_or(Path::new("")));
    let headers = headers(&http_server_config, path)?;
    let users =
        Users::new(basic_auth_users).map_err(|error| WebConfigError::User(path.into(), error))?;
    let tls = match tls_server_config.is_wanted() {
        false => None,
        true => {
            let material = material(&tls_server_config, path, seen)?;
            let server = tls::server(&tls_server_config, &http_server_config, &material)
                .map_err(|error| WebConfigError::Tls(path.into(), error))?;
            Some(Arc::new(server))
        }
    };
    Ok(Current { tls, users, headers, rate: rate_limit })
}

/// What the file says of certificates and keys, or the files that it names do.
fn material(tls: &Tls, path: &Path, seen: &mut Seen) -> Result<Material, WebConfigError> {
    let mut text = |(inline_key, inline): (_, &str), (key, file): (_, &Path)| match (
        inline,
        file.as_os_str().is_empty(),
    ) {
        ("", true) => Ok(None),
        ("", false) => read(file, seen).map(Some).map_err(|source| WebConfigError::Named {
            file: file.into(),
            config: path.into(),
            key,
            source,
        }),
        (_, true) => Ok(Some(inline.as_bytes().to_vec())),
        (_, false) => Err(WebConfigError::Tls(path.into(), TlsError::Twice(inline_key))),
    };
    let cert = text(("cert", &tls.cert), ("cert_file", &tls.cert_file))?;
    let key = text(("key", tls.key.reveal()), ("key_file", &tls.key_file))?;
    let client_ca = text(("client_ca", &tls.client_ca), ("client_ca_file", &tls.client_ca_file))?;
    let absent = |name| WebConfigError::Tls(path.into(), TlsError::Absent(name));
    Ok(Material {
        cert: cert.ok_or_else(|| absent("cert_file"))?,
        key: key.ok_or_else(|| absent("key_file"))?,
        client_ca,
    })
}

/// Reads a file, and notes it as it was when it was opened.
fn read(path: &Path, seen: &mut Seen) -> io::Result<Vec<u8>> {
    seen.insert(path.into(), None);
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    seen.insert(path.into(), Some(Print::of(&metadata)));
    if metadata.len() > FILE_BYTES {
        return Err(io::Error::other(format!("it is longer than {FILE_BYTES} bytes")));
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

/// The headers that exporter-toolkit lets a file set, with the values that it takes.
fn headers(http: &Http, path: &Path) -> Result<HeaderMap, WebConfigError> {
    const ALLOWED: [(&str, &[&str]); 5] = [
        ("Content-Security-Policy", &[]),
        ("Strict-Transport-Security", &[]),
        ("X-Content-Type-Options", &["nosniff"]),
        ("X-Frame-Options", &["deny", "sameorigin"]),
        ("X-XSS-Protection", &[]),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in &http.headers {
        let refused = |why| WebConfigError::Header(path.into(), name.clone(), why);
        let Some((_, values)) = ALLOWED.iter().find(|(allowed, _)| allowed == name) else {
            return Err(refused("it is none of those that can be set"));
        };
        if !values.is_empty() && !values.contains(&value.as_str()) {
            return Err(refused("it takes no such value"));
        }
        if value.is_empty() {
            continue;
        }
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_invalid| refused("it is no name of a header"))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_invalid| refused("a header cannot have such a value"))?;
        headers.insert(header, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "basic_auth_users:\n  alice: ";

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a folder"))
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            // As editors and certificate clients do: a new file takes the place of the old.
            let beside = self.0.path().join("beside");
            fs::write(&beside, text).expect("written");
            fs::rename(beside, &path).expect("renamed");
            path
        }

        fn certificate(&self) -> String {
            let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
            self.write("a.crt", &pair.cert.pem());
            self.write("a.key", &pair.signing_key.serialize_pem());
            "tls_server_config: {cert_file: a.crt, key_file: a.key}\n".into()
        }
    }

    fn with_user() -> String {
        format!("{PASSWORD}{}\n", bcrypt::hash("open", 4).expect("hashed"))
    }

    #[test]
    fn a_changed_file_holds_at_once_and_an_unchanged_one_is_not_read() {
        let folder = Folder::new();
        let header =
            |value| format!("http_server_config: {{headers: {{X-Frame-Options: {value}}}}}");
        let path = folder.write("web.yml", &header("deny"));
        let live = Live::start(Some(path)).expect("valid");
        let before = live.current();
        assert_eq!(before.headers["x-frame-options"], "deny");
        assert!(Arc::ptr_eq(&before, &live.current()));
        folder.write("web.yml", &header("sameorigin"));
        assert_eq!(live.current().headers["x-frame-options"], "sameorigin");
    }

    #[test]
    fn a_broken_file_keeps_what_held_until_it_is_mended() {
        let folder = Folder::new();
        let path = folder.write("web.yml", &with_user());
        let live = Live::start(Some(path)).expect("valid");
        let before = live.current();
        folder.write("web.yml", "basic_auth_users: [");
        assert!(Arc::ptr_eq(&before, &live.current()));
        assert!(live.reload().is_err());
        folder.write("web.yml", &with_user());
        assert!(!Arc::ptr_eq(&before, &live.current()));
    }

    #[test]
    fn a_new_certificate_is_taken_once_it_and_its_key_are_there() {
        let folder = Folder::new();
        let text = folder.certificate();
        let path = folder.write("web.yml", &text);
        let live = Live::start(Some(path)).expect("valid");
        let before = live.current();
        let pair = rcgen::generate_simple_self_signed(["other".to_owned()]).expect("made");
        folder.write("a.crt", &pair.cert.pem());
        assert!(Arc::ptr_eq(&before, &live.current()), "certificate and key are no pair");
        folder.write("a.key", &pair.signing_key.serialize_pem());
        assert!(!Arc::ptr_eq(&before, &live.current()));
    }

    #[test]
    fn a_file_that_the_new_configuration_names_may_come_later() {
        let folder = Folder::new();
        let path = folder.write("web.yml", &folder.certificate());
        let live = Live::start(Some(path)).expect("valid");
        let before = live.current();
        folder.write("web.yml", "tls_server_config: {cert_file: b.crt, key_file: b.key}\n");
        assert!(Arc::ptr_eq(&before, &live.current()));
        for end in ["crt", "key"] {
            let text = fs::read_to_string(folder.0.path().join(format!("a.{end}"))).expect("there");
            folder.write(&format!("b.{end}"), &text);
        }
        assert!(!Arc::ptr_eq(&before, &live.current()));
    }

    #[test]
    fn an_edit_does_not_open_what_was_protected() {
        let folder = Folder::new();
        let both = folder.certificate() + &with_user();
        let path = folder.write("web.yml", &both);
        let live = Live::start(Some(path)).expect("valid");
        for less in [String::new(), folder.certificate(), with_user()] {
            folder.write("web.yml", &less);
            let current = live.current();
            assert!(current.tls.is_some() && !current.users.is_empty(), "{less:?}");
        }
        let folder = Folder::new();
        let live = Live::start(Some(folder.write("web.yml", &with_user()))).expect("valid");
        folder.write("web.yml", &(folder.certificate() + &with_user()));
        assert!(live.current().tls.is_none(), "a running server does not change what it speaks");
    }

    #[test]
    fn what_is_wrong_at_the_start_is_told_by_file() {
        let folder = Folder::new();
        for (text, said) in [
            ("tls_server_config: {cert_file: none.crt, key_file: none.key}", "none.crt"),
            ("tls_server_config: {cert_file: none.crt}", "none.crt"),
            ("tls_server_config: {client_auth_type: NoClientCert}", "asks for TLS"),
            ("http_server_config: {headers: {Server: x}}", "Server"),
            ("http_server_config: {headers: {X-Frame-Options: allow}}", "X-Frame-Options"),
            ("basic_auth_users: {alice: open}", "cannot be let in"),
            ("nothing: 1", "not a valid web configuration"),
        ] {
            let path = folder.write("web.yml", text);
            let Err(error) = Live::start(Some(path)) else { panic!("{text}") };
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
