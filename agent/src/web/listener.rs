// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sockets that listen: bound by us, or by systemd for us (`sd_listen_fds(3)`).

use super::{address::ListenAddress, stall::Stream};
use listenfd::ListenFd;
use std::{
    fs::{self, Permissions},
    io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Connections that wait to be accepted; std's own 128 is little when somebody floods.
const BACKLOG: i32 = 1024;

/// The owner and the group may connect: who else may is decided by who may enter the folder, or by the owner with `chmod`.
const UNIX_MODE: u32 = 0o660;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error(
        "{0} is in use: another agent may be running there; stop it, or choose another port with \
         --web.listen-address"
    )]
    InUse(ListenAddress),
    /// Listening failed for another reason.
    #[error("failed to listen on {0}; choose another address with --web.listen-address")]
    Listen(ListenAddress, #[source] io::Error),
    /// systemd handed over nothing.
    #[error(
        "systemd handed over no socket: start the agent by its socket unit (migscope.socket), or without --web.systemd-socket"
    )]
    NoneFromSystemd,
    /// systemd handed over something else.
    #[error("the {0}. descriptor that systemd handed over is no stream socket, TCP or UNIX")]
    NoStream(usize, #[source] io::Error),
}

/// A socket that listens, not yet part of a runtime.
pub enum Bound {
    /// TCP.
    Tcp(TcpListener),
    /// UNIX. The path is removed in the end if we made it.
    Unix(UnixListener, Option<Socket>),
}

/// The file of a socket; removed when it is dropped.
pub struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // The next one that starts removes what is left.
        let _ = fs::remove_file(&self.0);
    }
}

/// Binds all addresses, or takes what systemd has bound.
///
/// # Errors
///
/// [`ListenError`].
pub fn bind(addresses: &[ListenAddress], systemd: bool) -> Result<Vec<Bound>, ListenError> {
    if systemd {
        return from_systemd();
    }
    addresses.iter().map(bind_one).collect()
}

fn bind_one(address: &ListenAddress) -> Result<Bound, ListenError> {
    let bound = || -> io::Result<Bound> {
        match address {
            ListenAddress::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                rustix::net::listen(&listener, BACKLOG)?;
                Ok(Bound::Tcp(listener))
            }
            ListenAddress::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                let file = Socket(path.clone());
                fs::set_permissions(path, Permissions::from_mode(UNIX_MODE))?;
                rustix::net::listen(&listener, BACKLOG)?;
                Ok(Bound::Unix(listener, Some(file)))
            }
        }
    };
    bound().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(address.clone()),
        _ => ListenError::Listen(address.clone(), error),
    })
}

/// Removes the socket of a process that has ended without doing so. Another file stays, and so does a socket that answers.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = || {
        UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if is_socket && refused() { fs::remove_file(path) } else { Ok(()) }
}

fn from_systemd() -> Result<Vec<Bound>, ListenError> {
    let mut handed = ListenFd::from_env();
    let mut bound = Vec::new();
    for index in 0..handed.len() {
        // What is not the one kind stays in its place, and may be the other.
        let tcp = handed.take_tcp_listener(index).ok().flatten().map(Bound::Tcp);
        let one = match tcp {
            Some(tcp) => Some(tcp),
            None => handed
                .take_unix_listener(index)
                .map_err(|error| ListenError::NoStream(index + 1, error))?
                .map(|listener| Bound::Unix(listener, None)),
        };
        bound.extend(one);
    }
    if bound.is_empty() { Err(ListenError::NoneFromSystemd) } else { Ok(bound) }
}

impl Bound {
    /// The folder in which the socket's file is to be removed in the end.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Unix(_, Some(Socket(path))) => path.parent(),
            _ => None,
        }
    }

    /// Makes it part of the runtime.
    ///
    /// # Errors
    ///
    /// What the kernel or the runtime refuses.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn into_listener(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                Ok(Listener::Tcp(tokio::net::TcpListener::from_std(listener)?, address))
            }
            Self::Unix(listener, file) => {
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                let name = address.as_pathname().map_or_else(
                    || "unix: (no path)".into(),
                    |path| format!("unix:{}", path.display()),
                );
                Ok(Listener::Unix(tokio::net::UnixListener::from_std(listener)?, name, file))
            }
        }
    }
}

/// A socket that connections come from.
pub enum Listener {
    /// TCP.
    Tcp(tokio::net::TcpListener, SocketAddr),
    /// UNIX: what it is called, and its file.
    Unix(tokio::net::UnixListener, String, Option<Socket>),
}

impl Listener {
    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// What `accept` says; the socket is good for more.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                // An answer is written whole: to wait for more would only delay it.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener, ..) => Ok(Box::new(listener.accept().await?.0)),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(_, address) => address.to_string(),
            Self::Unix(_, name, _) => name.clone(),
        }
    }

    /// What to write before a path to get it from here; `None` for a UNIX socket, which has no URL.
    pub fn origin(&self, tls: bool) -> Option<String> {
        let scheme = if tls { "https" } else { "http" };
        match self {
            Self::Tcp(_, address) => Some(format!("{scheme}://{address}")),
            Self::Unix(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &Path) -> Result<Bound, ListenError> {
        bind_one(&ListenAddress::Unix(path.into()))
    }

    #[test]
    fn a_socket_left_behind_is_replaced_one_in_use_is_not_and_a_file_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sock");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "std leaves the file behind");
        let bound = unix(&path).expect("replaced");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, UNIX_MODE);
        assert!(matches!(unix(&path), Err(ListenError::InUse(_))));
        drop(bound);
        assert!(!path.exists(), "removed in the end");
        fs::write(&path, "mine").expect("written");
        assert!(unix(&path).is_err());
        assert_eq!(fs::read_to_string(&path).expect("there"), "mine");
    }

    #[test]
    fn without_systemd_there_is_nothing_to_take() {
        assert!(matches!(bind(&[], true), Err(ListenError::NoneFromSystemd)));
    }
}
