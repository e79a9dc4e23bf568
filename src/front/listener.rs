//! Where clients connect: a TCP port, or a Unix socket, which needs no port.
//!
//! The launcher opens the listeners and the supervisor hands them over as descriptors; this file finds out which kind one
//! is, and keeps its address and its purpose, by which logs and routes tell listeners apart. `azmlinfsrv validate` uses a
//! Unix socket. Connections of both kinds are the same to the rest of the front, because it uses only what every stream
//! socket can do. Runs in the front's event loop.

use std::{fmt, io, net::SocketAddr};

#[cfg(unix)]
use std::{net::Ipv4Addr, os::fd::OwnedFd};
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::net::{TcpListener, TcpStream};

/// What stands for the address of a client that has none.
#[cfg(unix)]
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a listener is for. Every listener answers every route but `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Scoring and health: the only listener.
    All,
    /// Scoring, where health has a listener of its own (`SEPERATE_HEALTH_ENDPOINT`).
    Scoring,
    /// Health.
    Health,
}

impl Purpose {
    /// The purposes of this many listeners, in the order in which the supervisor hands them over.
    pub fn in_order(listeners: usize) -> &'static [Self] {
        if listeners > 1 {
            &[Self::Health, Self::Scoring]
        } else {
            &[Self::All]
        }
    }

    /// True if `/metrics` is answered where `--metrics health` wants it: on the health port, or on
    /// the only one.
    pub fn includes_health(self) -> bool {
        self != Self::Scoring
    }
}

/// A listening socket in the event loop.
pub struct Listener {
    socket: Socket,
    purpose: Purpose,
}

enum Socket {
    Tcp(TcpListener, SocketAddr),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listener {
    /// Takes over a listening socket in non-blocking mode, which is of either kind.
    pub fn new(socket: std::net::TcpListener, purpose: Purpose) -> io::Result<Self> {
        #[cfg(unix)]
        let socket = {
            let socket = std::os::unix::net::UnixListener::from(OwnedFd::from(socket));
            // The standard library reads the address, and refuses that of another kind.
            if socket.local_addr().is_ok() {
                return Ok(Self { socket: Socket::Unix(UnixListener::from_std(socket)?), purpose });
            }
            std::net::TcpListener::from(OwnedFd::from(socket))
        };
        let address = socket.local_addr()?;
        Ok(Self { socket: Socket::Tcp(TcpListener::from_std(socket)?, address), purpose })
    }

    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The next connection and the address of its client.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.socket {
            Socket::Tcp(listener, _) => listener.accept().await,
            #[cfg(unix)]
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let stream = std::net::TcpStream::from(OwnedFd::from(stream.into_std()?));
                Ok((TcpStream::from_std(stream)?, LOCAL))
            }
        }
    }
}

/// As log lines name it: `port 5001`, `health port 5002`, `the Unix socket`.
impl fmt::Display for Listener {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Socket::Tcp(_, address) if self.purpose == Purpose::Health => write!(out, "health port {}", address.port()),
            Socket::Tcp(_, address) => write!(out, "port {}", address.port()),
            #[cfg(unix)]
            Socket::Unix(_) => out.write_str("the Unix socket"),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Read, Write};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn peer_of_echo(listener: Listener, mut client: impl Read + Write) -> io::Result<SocketAddr> {
        client.write_all(b"ping")?;
        let (mut stream, peer) = listener.accept().await?;
        let mut received = [0; 4];
        stream.read_exact(&mut received).await?;
        stream.write_all(&received).await?;
        let mut echoed = [0; 4];
        client.read_exact(&mut echoed)?;
        assert_eq!(&echoed, b"ping");
        Ok(peer)
    }

    #[tokio::test]
    async fn clients_of_a_port_have_their_own_address() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let expected = client.local_addr().unwrap();
        let listener = Listener::new(socket, Purpose::Health).unwrap();
        assert_eq!(listener.to_string(), format!("health port {}", address.port()));
        assert_eq!(peer_of_echo(listener, client).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn clients_of_a_unix_socket_count_as_local() {
        let path = std::env::temp_dir().join(format!("azt-listener-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let listener = Listener::new(std::net::TcpListener::from(OwnedFd::from(socket)), Purpose::All).unwrap();
        assert_eq!(listener.to_string(), "the Unix socket");
        assert_eq!(peer_of_echo(listener, client).await.unwrap(), LOCAL);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn health_has_the_metrics_that_scoring_alone_does_not() {
        assert_eq!(Purpose::in_order(1), [Purpose::All]);
        assert_eq!(Purpose::in_order(2), [Purpose::Health, Purpose::Scoring]);
        let have: Vec<_> = [Purpose::All, Purpose::Health, Purpose::Scoring].map(Purpose::includes_health).into();
        assert_eq!(have, [true, true, false]);
    }
}
