// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An agent that runs, here or elsewhere, asked over HTTP.
//!
//! No proxy is used, whatever the environment says: agents are on the own network, most often on the own host.

use super::{NoSource, Source, SourceError};
use crate::{session::timeline::Point, snapshot::Snapshot};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, de::DeserializeOwned};
use std::{io, path::PathBuf, sync::Arc, time::Duration};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Longest time that an answer may take: an agent that is asked every half second answers in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes: some thousand devices.
const ANSWER_BYTES: u64 = 64 << 20;

/// Where the agent is, and as who it is asked.
#[derive(Clone, Debug)]
pub struct AgentAddress {
    /// `http://HOST:PORT` or `https://HOST:PORT`, and what stands before the pages.
    pub url: String,
    /// Certificates of authorities that are trusted instead of the host's, PEM.
    pub ca_file: Option<PathBuf>,
    /// User, and the file with the password.
    pub user: Option<(String, PathBuf)>,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    client: ureq::Agent,
    url: String,
    authorization: Option<String>,
}

impl Agent {
    /// The agent at `address`, which is not asked yet.
    ///
    /// # Errors
    ///
    /// [`NoSource`] for what was typed: the address or one of the files.
    pub fn new(address: &AgentAddress) -> Result<Self, NoSource> {
        let AgentAddress { url, ca_file, user } = address;
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if host.is_none_or(|host| host.trim_matches('/').is_empty()) {
            return Err(NoSource::Url(url.clone()));
        }
        let root_certs = match ca_file {
            None => RootCerts::PlatformVerifier,
            Some(path) => {
                let pem =
                    std::fs::read(path).map_err(|error| NoSource::File(path.clone(), error))?;
                let certificates: Vec<_> = parse_pem(&pem)
                    .filter_map(|item| match item {
                        Ok(PemItem::Certificate(certificate)) => Some(certificate),
                        _ => None,
                    })
                    .collect();
                if certificates.is_empty() {
                    return Err(NoSource::Certificates(path.clone()));
                }
                RootCerts::Specific(Arc::new(certificates))
            }
        };
        let authorization = match user {
            None => None,
            Some((user, path)) => {
                let password = std::fs::read_to_string(path)
                    .map_err(|error| NoSource::File(path.clone(), error))?;
                let password = password.trim_end_matches(['\n', '\r']);
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(root_certs)
            .build();
        let client = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(tls)
            .build()
            .new_agent();
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), authorization })
    }

    /// One page, read as JSON; `None` where it does not exist.
    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, SourceError> {
        let url = format!("{}{path}", self.url);
        let mut request = self.client.get(&url);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut answer = match request.call() {
            Ok(answer) => answer,
            Err(error) if nobody_listens(&error) => {
                return Err(SourceError::Nobody(self.url.clone(), error));
            }
            Err(error) => return Err(SourceError::Ask(url, error)),
        };
        match answer.status().as_u16() {
            200 => {}
            401 | 403 => return Err(SourceError::Unauthorized(url)),
            404 => return Ok(None),
            status => return Err(SourceError::Status(url, status)),
        }
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec();
        let body = body.map_err(|error| SourceError::Read(url.clone(), error.into_io()))?;
        serde_json::from_slice(&body).map(Some).map_err(|error| SourceError::Answer(url, error))
    }
}

fn nobody_listens(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::ConnectionFailed => true,
        ureq::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}

/// The part of `/api/v1/sessions/ID` that is wanted.
#[derive(Deserialize)]
struct OneSession {
    timeline: Vec<Point>,
}

impl Source for Agent {
    fn name(&self) -> String {
        format!("agent {}", self.url)
    }

    fn snapshot(&mut self) -> Result<Snapshot, SourceError> {
        const PATH: &str = "/api/v1/snapshot";
        self.get(PATH)?.ok_or_else(|| SourceError::NotFound(format!("{}{PATH}", self.url)))
    }

    fn timeline(&mut self, session: u64) -> Result<Vec<Point>, SourceError> {
        let found: Option<OneSession> = self.get(&format!("/api/v1/sessions/{session}"))?;
        Ok(found.map(|session| session.timeline).unwrap_or_default())
    }
}
