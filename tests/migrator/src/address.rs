// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the other end is: `unix:/run/m.sock` or `tcp:127.0.0.1:4444`.

use std::fmt;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::stream::Stream;

/// How long an end waits for a byte from the other one before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// An address to listen at or to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

/// Not an address.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no address; give unix:PATH or tcp:HOST:PORT")]
pub struct AddressError(String);

/// The transport failed.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing} {address}")]
pub struct ConnectError {
    doing: &'static str,
    address: String,
    #[source]
    source: io::Error,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", host)) if host.contains(':') => Ok(Self::Tcp(host.to_owned())),
            _ => Err(AddressError(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp:{host}"),
        }
    }
}

impl Address {
    fn failed(&self, doing: &'static str) -> impl Fn(io::Error) -> ConnectError + '_ {
        move |source| ConnectError { doing, address: self.to_string(), source }
    }

    /// Connects to an end that listens there.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn connect(&self) -> Result<Stream, ConnectError> {
        let stream = match self {
            Self::Unix(path) => UnixStream::connect(path).and_then(unix_stream),
            Self::Tcp(host) => TcpStream::connect(host).and_then(tcp_stream),
        };
        stream.map_err(self.failed("connect to"))
    }

    /// Waits there for one end to connect.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn accept(&self) -> Result<Stream, ConnectError> {
        let stream = match self {
            Self::Unix(path) => UnixListener::bind(path).and_then(|listener| {
                let accepted = listener.accept();
                std::fs::remove_file(path)?;
                unix_stream(accepted?.0)
            }),
            Self::Tcp(host) => TcpListener::bind(host)
                .and_then(|listener| listener.accept())
                .and_then(|(accepted, _)| tcp_stream(accepted)),
        };
        stream.map_err(self.failed("listen at"))
    }
}

/// Both ends of a UNIX stream.
///
/// # Errors
///
/// What the kernel refused with.
pub fn unix_pair() -> io::Result<(Stream, Stream)> {
    let (one, other) = UnixStream::pair()?;
    Ok((unix_stream(one)?, unix_stream(other)?))
}

/// Both ends of a TCP connection over the loopback interface.
///
/// # Errors
///
/// What the kernel refused with.
pub fn tcp_pair() -> io::Result<(Stream, Stream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    Ok((tcp_stream(one)?, tcp_stream(other)?))
}

fn unix_stream(stream: UnixStream) -> io::Result<Stream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(buffered(stream.try_clone()?, stream))
}

fn tcp_stream(stream: TcpStream) -> io::Result<Stream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(buffered(stream.try_clone()?, stream))
}

fn buffered(from: impl Read + Send + 'static, to: impl Write + Send + 'static) -> Stream {
    Stream::two_way(BufReader::new(from), BufWriter::new(to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Frame;

    #[test]
    fn an_address_reads_what_it_writes_and_nothing_else() {
        for text in ["unix:/run/m.sock", "tcp:127.0.0.1:4444"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "tcp:host", "/run/m.sock", "udp:1:2"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn frames_cross_both_transports() {
        for (mut one, mut other) in [unix_pair().unwrap(), tcp_pair().unwrap()] {
            one.send(&Frame::Ready).unwrap();
            one.flush().unwrap();
            assert_eq!(other.receive().unwrap(), Frame::Ready);
        }
    }
}
