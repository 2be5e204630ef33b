// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the server listens: an address as other exporters take it, or a UNIX socket.

use serde::Deserialize;
use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
    str::FromStr,
};

/// Longest path of a UNIX socket: `sun_path` of `struct sockaddr_un` has 108 bytes, the last of which is a NUL.
const UNIX_PATH_BYTES: usize = 107;

/// An address to listen on.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub enum ListenAddress {
    /// `ADDRESS:PORT`, or `:PORT` for every IPv4 address of this host.
    Tcp(SocketAddr),
    /// `unix:/PATH`.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err("write a UNIX socket as unix:/PATH, its path from the root".into());
            }
            if path.len() > UNIX_PATH_BYTES {
                return Err(format!("a UNIX socket's path has {UNIX_PATH_BYTES} bytes at most"));
            }
            return Ok(Self::Unix(path.into()));
        }
        if text.starts_with("vsock:") {
            return Err("vsock is not served; use ADDRESS:PORT or unix:/PATH".into());
        }
        let whole = match text.strip_prefix(':') {
            Some(port) => format!("0.0.0.0:{port}"),
            None => text.to_owned(),
        };
        let mut found = whole
            .to_socket_addrs()
            .map_err(|error| format!("write it as ADDRESS:PORT, :PORT or unix:/PATH: {error}"))?;
        found.next().map(Self::Tcp).ok_or_else(|| "that name has no address".into())
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_typed_as_for_other_exporters() {
        for (typed, address) in [
            (":9100", "0.0.0.0:9100"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[::1]:10477", "[::1]:10477"),
            ("unix:/run/migscope.sock", "unix:/run/migscope.sock"),
        ] {
            let parsed: ListenAddress = typed.parse().expect(typed);
            assert_eq!(parsed.to_string(), address);
            assert_eq!(address.parse(), Ok(parsed), "it can be typed again");
        }
    }

    #[test]
    fn what_cannot_be_listened_on_is_refused() {
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES));
        for wrong in ["", ":", "10477", ":65536", "host", "unix:", "unix:here", "vsock://:1", &long]
        {
            assert!(wrong.parse::<ListenAddress>().is_err(), "{wrong:?}");
        }
    }
}
