//! Where clients connect: a TCP port, or a Unix socket, which needs no port.
//!
//! The launcher opens the listeners and the supervisor hands them over as descriptors; this file finds out which kind one
//! is. `azmlinfsrv validate` uses a Unix socket. Connections of both kinds are the same to the rest of the front, because
//! it uses only what every stream socket can do. Runs in the front's event loop.

use std::{io, net::SocketAddr};

#[cfg(unix)]
use std::{net::Ipv4Addr, os::fd::OwnedFd};
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::net::{TcpListener, TcpStream};

/// What stands for the address of a client that has none.
#[cfg(unix)]
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A listening socket in the event loop.
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listener {
    /// Takes over a listening socket in non-blocking mode, which is of either kind.
    pub fn new(socket: std::net::TcpListener) -> io::Result<Self> {
        #[cfg(unix)]
        let socket = {
            let socket = std::os::unix::net::UnixListener::from(OwnedFd::from(socket));
            // The standard library reads the address, and refuses that of another kind.
            if socket.local_addr().is_ok() {
                return UnixListener::from_std(socket).map(Self::Unix);
            }
            std::net::TcpListener::from(OwnedFd::from(socket))
        };
        TcpListener::from_std(socket).map(Self::Tcp)
    }

    /// The next connection and the address of its client.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => listener.accept().await,
            #[cfg(unix)]
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let stream = std::net::TcpStream::from(OwnedFd::from(stream.into_std()?));
                Ok((TcpStream::from_std(stream)?, LOCAL))
            }
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
        let client = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        let expected = client.local_addr().unwrap();
        assert_eq!(peer_of_echo(Listener::new(socket).unwrap(), client).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn clients_of_a_unix_socket_count_as_local() {
        let path = std::env::temp_dir().join(format!("azt-listener-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let listener = Listener::new(std::net::TcpListener::from(OwnedFd::from(socket))).unwrap();
        assert!(matches!(listener, Listener::Unix(_)));
        assert_eq!(peer_of_echo(listener, client).await.unwrap(), LOCAL);
        std::fs::remove_file(&path).unwrap();
    }
}
