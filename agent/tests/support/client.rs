// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A client that says exactly what a test wants said.

use super::PATIENCE;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

/// A connection over TCP.
pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a duration");
    stream.set_write_timeout(Some(PATIENCE)).expect("a duration");
    stream
}

/// Status, headers and body of one request with these headers.
pub(crate) fn get(
    mut stream: impl Read + Write,
    path: &str,
    headers: &[String],
) -> (u16, String, String) {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    answer(stream)
}

/// Reads an answer up to the end of the connection.
pub(crate) fn answer(mut stream: impl Read) -> (u16, String, String) {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // A server that closes while something unread is on its way resets.
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => {}
    }
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), head.to_lowercase(), body.to_owned())
}

/// The header of basic authentication.
pub(crate) fn password(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Who the client is, over TLS.
pub(crate) struct Identity {
    /// Certificates, its own first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A connection over TLS to `localhost`, which has to show a certificate by `authority`.
pub(crate) fn tls(
    address: SocketAddr,
    authority: &CertificateDer<'static>,
    identity: Option<Identity>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).expect("a certificate");
    let builder =
        ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("both")
            .with_root_certificates(roots);
    let config = match identity {
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key).expect("a pair"),
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a name");
    let mut stream = tcp(address);
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}
