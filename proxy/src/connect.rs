//! Makes connections: to an endpoint, with mutual TLS if it is in the mesh, and to the application behind this proxy.
//!
//! Called by [`crate::outbound`] and [`crate::inbound`]; what comes out goes to [`crate::http::client`] or [`crate::tcp`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;
use weft_model::SpiffeId;

use crate::error::ConnectError;
use crate::metrics::{Handshake, Metrics};
use crate::tls::client::Dialer;
use crate::tls::{HandshakeFailure, Inner};

/// Source of the connections to the application, by which the redirect rules know them (`weft-init` has the same address).
const INBOUND_SOURCE_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6; `weft-init` adds it to `lo`.
const INBOUND_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// A connection to a server.
#[derive(Debug)]
pub enum Upstream {
    /// In plaintext.
    Plain(TcpStream),
    /// In mutual TLS.
    Mesh(Box<TlsStream<TcpStream>>),
}

/// Connects to an endpoint. `within` limits TCP and TLS together.
pub async fn to_endpoint(
    dialer: &Dialer,
    metrics: &Arc<Metrics>,
    address: SocketAddr,
    identity: Option<&SpiffeId>,
    inner: Inner,
    within: Duration,
) -> Result<Upstream, ConnectError> {
    let connect = async {
        let socket = dial(address).await?;
        let Some(identity) = identity else {
            return Ok(Upstream::Plain(socket));
        };
        let done = dialer.connect(socket, address.ip(), identity, inner).await;
        count(
            metrics,
            identity,
            done.as_ref().map(|(_, agreed)| agreed).map_err(|e| *e),
        );
        let (stream, _) = done?;
        Ok(Upstream::Mesh(Box::new(stream)))
    };
    match tokio::time::timeout(within, connect).await {
        Ok(connected) => connected,
        Err(_) => Err(ConnectError::Timeout),
    }
}

fn count(metrics: &Metrics, peer: &SpiffeId, done: Result<&crate::tls::Agreed, HandshakeFailure>) {
    let (version, group, result) = match done {
        Ok(agreed) => (agreed.version, agreed.group, agreed.kind),
        Err(failure) => {
            tracing::warn!(%peer, reason = failure.reason(), "a TLS handshake with an endpoint failed: {failure}");
            ("", "", failure.reason())
        }
    };
    let labels = Handshake {
        direction: "outbound",
        peer: peer.to_string(),
        version,
        group,
        result,
    };
    metrics.tls_handshakes.get(&labels).add(1);
}

/// Connects to an address, in plaintext.
pub async fn dial(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let socket = TcpStream::connect(address)
        .await
        .map_err(|e| ConnectError::from(&e))?;
    let _ = socket.set_nodelay(true);
    Ok(socket)
}

/// Connects to the application at its own address, past the redirect rules.
pub async fn to_application(
    address: SocketAddr,
    within: Duration,
) -> Result<TcpStream, ConnectError> {
    let failed = |e: io::Error| ConnectError::from(&e);
    let (socket, source) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4(), IpAddr::V4(INBOUND_SOURCE_V4)),
        SocketAddr::V6(_) => (TcpSocket::new_v6(), IpAddr::V6(INBOUND_SOURCE_V6)),
    };
    let socket = socket.map_err(failed)?;
    // The port is chosen by connect, so that it may repeat for another destination.
    let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
    let _ = socket.set_nodelay(true);
    socket.bind(SocketAddr::new(source, 0)).map_err(failed)?;
    match tokio::time::timeout(within, socket.connect(address)).await {
        Ok(connected) => connected.map_err(failed),
        Err(_) => Err(ConnectError::Timeout),
    }
}

impl AsyncRead for Upstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Mesh(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Mesh(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Mesh(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Mesh(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Mesh(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
