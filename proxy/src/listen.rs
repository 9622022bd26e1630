//! Sockets of the data path: listening, accepting, and finding out where a captured connection was going.
//!
//! `main` binds them, so that a port in use is an error at the start; each worker accepts on its own set (`SO_REUSEPORT`,
//! the kernel spreads connections). [`crate::worker`] hands every [`Captured`] to [`crate::outbound`] or [`crate::inbound`].

use std::io;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener as StdListener,
};
use std::time::Duration;

use nix::sys::socket::{SockaddrIn, SockaddrIn6, getsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::config::Ports;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Rest after a failed accept (out of descriptors, mostly), so that a full table does not burn the processor.
const REST: Duration = Duration::from_millis(50);

/// A connection that the redirect rules brought here.
#[derive(Debug)]
pub struct Captured<I> {
    /// The connection.
    pub io: I,
    /// Where it was going.
    pub original_dst: SocketAddr,
    /// Where it comes from.
    pub peer: SocketAddr,
}

/// The listening sockets of one worker.
#[derive(Debug)]
pub struct Sockets {
    /// On loopback only: nobody outside the pod may use it.
    pub outbound: Vec<StdListener>,
    /// On every address.
    pub inbound: Vec<StdListener>,
}

impl Sockets {
    /// Binds a set. Without IPv6 in the kernel there are only IPv4 sockets.
    pub fn bind(ports: Ports) -> io::Result<Self> {
        let pair = |v4: IpAddr, v6: IpAddr, port| {
            let mut sockets = vec![listen(SocketAddr::new(v4, port))?];
            match listen(SocketAddr::new(v6, port)) {
                Ok(socket) => sockets.push(socket),
                Err(e) if no_ipv6(&e) => {
                    tracing::info!(%port, "IPv6 is not available; only IPv4 is listened on");
                }
                Err(e) => return Err(e),
            }
            Ok(sockets)
        };
        Ok(Self {
            outbound: pair(
                Ipv4Addr::LOCALHOST.into(),
                Ipv6Addr::LOCALHOST.into(),
                ports.outbound,
            )?,
            inbound: pair(
                Ipv4Addr::UNSPECIFIED.into(),
                Ipv6Addr::UNSPECIFIED.into(),
                ports.inbound,
            )?,
        })
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = nix::errno::Errno::EAFNOSUPPORT as i32;
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}"));
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket
        .bind(&address.into())
        .map_err(|e| if no_ipv6(&e) { e } else { named(e) })?;
    socket.listen(BACKLOG).map_err(named)?;
    Ok(socket.into())
}

/// The next captured connection. Errors of one connection are skipped; this never ends.
pub async fn accept(listener: &TcpListener) -> Captured<TcpStream> {
    loop {
        match listener.accept().await {
            Ok((io, peer)) => match original_dst(&io) {
                Ok(original_dst) => {
                    return Captured {
                        io,
                        original_dst,
                        peer,
                    };
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "a connection ended before it was accepted");
                }
            },
            Err(error) if of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for the moment");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// accept(2): "Linux accept() passes already-pending network errors on the new socket as an error code from accept()."
fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted
            | K::ConnectionReset
            | K::ConnectionRefused
            | K::Interrupted
            | K::HostUnreachable
    )
}

/// Where a connection was going before the redirect. Its local address, if it was not redirected.
fn original_dst(io: &TcpStream) -> io::Result<SocketAddr> {
    let local = io.local_addr()?;
    Ok(match local {
        SocketAddr::V4(_) => getsockopt(io, sockopt::OriginalDst)
            .map_or(local, |a| SocketAddrV4::from(SockaddrIn::from(a)).into()),
        SocketAddr::V6(_) => getsockopt(io, sockopt::Ip6tOriginalDst).map_or(local, |a| {
            let a = SocketAddrV6::from(SockaddrIn6::from(a));
            // Scope and flow label say nothing about which service it is.
            SocketAddrV6::new(*a.ip(), a.port(), 0, 0).into()
        }),
    })
}

/// When the connection is dropped the other side gets a reset (RFC 9293, 3.10.7), not a regular end that it could take for
/// an empty answer.
pub fn close_with_reset(io: &TcpStream) {
    let _ = SockRef::from(io).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_was_not_redirected_was_going_here() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let captured = accept(&listener).await;
        assert_eq!(captured.original_dst, address);
        assert_eq!(captured.peer, client.local_addr().unwrap());
        assert!(captured.io.nodelay().unwrap());
    }

    #[test]
    fn two_workers_share_a_port() {
        let first = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        listen(first.local_addr().unwrap()).unwrap();
    }
}
