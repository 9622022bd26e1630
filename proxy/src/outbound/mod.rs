//! One captured outbound connection, from accept to close.
//!
//! [`serve`] is the spine. It leads to [`http`], where each request is decided on its own, or to [`tcp`], where the connection
//! is. Called by [`crate::worker`] for each connection that the application makes.

mod attempt;
mod exchange;
pub mod http;
mod mirror;
pub mod tcp;

use std::rc::Rc;

use bytes::Bytes;
use tokio::net::TcpStream;
use weft_model::Protocol;
use weft_model::decide::{NoTrace, Refusal, outbound as decide};
use weft_xds::client::Known;

use crate::config::OutboundPolicy;
use crate::destination::Destination;
use crate::detect::{self, Detected, First, QUIET};
use crate::error::{DestinationError, Error, RequestError};
use crate::http::Version;
use crate::listen::{Captured, close_with_reset};
use crate::prefixed::Prefixed;
use crate::worker::Worker;

/// Serves one connection of the application.
pub async fn serve(conn: Captured<TcpStream>, worker: &Rc<Worker>) {
    let (peer, original_dst) = (conn.peer, conn.original_dst);
    match run(conn, worker).await {
        Ok(()) => {}
        Err(Error::Request(RequestError::ClientGone)) => {
            tracing::debug!(%peer, "a client left before it was served");
        }
        Err(error) => {
            let reason = error.verdict().reason;
            worker.shared.metrics.refuse("outbound", reason);
            tracing::warn!(%peer, destination = %original_dst, reason, "an outbound connection is refused: {error}");
        }
    }
}

async fn run(conn: Captured<TcpStream>, worker: &Rc<Worker>) -> Result<(), Error> {
    // 1. Never dial ourselves.
    if worker.is_own(conn.original_dst) {
        close_with_reset(&conn.io);
        return Err(DestinationError::Loop.into());
    }
    // 2. What is there? Cached, or asked for by name.
    let destination = worker.destination(conn.original_dst);
    let known = match destination.ready().await {
        Known::Present(known) => known,
        Known::Absent => return unknown(conn, worker).await,
        Known::Pending => return undecided(conn, &destination, worker).await,
    };
    // 3. What does it speak? Declared, or sniffed.
    let names = known.sni.iter().any(|route| !route.names.is_empty());
    let io = Prefixed::new(conn.io);
    let (io, detected) = match known.protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::Tls => {
            detected(io, None).await?
        }
        Protocol::Tcp if names => detected(io, None).await?,
        Protocol::Tcp => (io, Detected::Opaque),
        Protocol::Detect if destination.server_first() => (io, Detected::Quiet),
        Protocol::Detect => detected(io, Some(QUIET)).await?,
    };
    let conn = Captured {
        io,
        original_dst: conn.original_dst,
        peer: conn.peer,
    };
    // 4. Each request, or the whole connection.
    if known.protocol == Protocol::Detect && detected != Detected::Quiet {
        worker
            .shared
            .metrics
            .detect("outbound", conn.original_dst.port(), detected.label());
    }
    match detected {
        Detected::Http1 if may_be_http(known.protocol) => {
            http::serve(conn, Version::Http1, destination, worker).await;
        }
        Detected::Http2 if may_be_http(known.protocol) => {
            http::serve(conn, Version::Http2, destination, worker).await;
        }
        Detected::Closed => {}
        Detected::Quiet => Box::pin(quiet(conn, &known, destination, worker)).await?,
        Detected::Tls(hello) => {
            let route = decide::connection(&known, hello.server_name.as_deref(), &mut NoTrace);
            let server = opened(tcp::open(refused(route, &conn)?, worker).await, &conn)?;
            tcp::forward(conn, server, hello.server_name.as_deref(), worker).await;
        }
        Detected::Http1 | Detected::Http2 | Detected::Opaque => {
            let route = decide::connection(&known, None, &mut NoTrace);
            let server = opened(tcp::open(refused(route, &conn)?, worker).await, &conn)?;
            tcp::forward(conn, server, None, worker).await;
        }
    }
    Ok(())
}

fn may_be_http(declared: Protocol) -> bool {
    declared.is_http() || declared == Protocol::Detect
}

async fn detected(
    io: Prefixed<TcpStream>,
    quiet: Option<std::time::Duration>,
) -> Result<(Prefixed<TcpStream>, Detected), Error> {
    // A client that breaks off before it has said anything is no news.
    detect::detect(io, quiet)
        .await
        .map_err(|_| RequestError::ClientGone.into())
}

/// The client waits for the server to speak, it seems: connect, and see who does.
async fn quiet(
    mut conn: Captured<Prefixed<TcpStream>>,
    known: &weft_model::Destination,
    destination: Rc<Destination>,
    worker: &Rc<Worker>,
) -> Result<(), Error> {
    let route = decide::connection(known, None, &mut NoTrace);
    let mut server = opened(tcp::open(refused(route, &conn)?, worker).await, &conn)?;
    let count = |label| {
        worker
            .shared
            .metrics
            .detect("outbound", conn.original_dst.port(), label);
    };
    match detect::race(&mut conn.io, &mut server.io).await {
        Ok(First::Server(bytes)) => {
            count("server-first");
            destination.set_server_first();
            server.greeting = bytes.freeze();
            tcp::forward(conn, server, None, worker).await;
        }
        Ok(First::Client(bytes)) => {
            let (_, io) = conn.io.into_parts();
            let (io, detected) = detected(Prefixed::with(bytes.freeze(), io), None).await?;
            conn.io = io;
            worker
                .shared
                .metrics
                .detect("outbound", conn.original_dst.port(), detected.label());
            let version = match &detected {
                Detected::Http1 => Some(Version::Http1),
                Detected::Http2 => Some(Version::Http2),
                _ => None,
            };
            if let Some(version) = version {
                drop(server);
                http::serve(conn, version, destination, worker).await;
                return Ok(());
            }
            let name = match detected {
                Detected::Tls(hello) => hello.server_name,
                _ => None,
            };
            let server = match decide::connection(known, name.as_deref(), &mut NoTrace) {
                Ok(route) if server.route == route.meta.origin => server,
                route => opened(tcp::open(refused(route, &conn)?, worker).await, &conn)?,
            };
            tcp::forward(conn, server, name.as_deref(), worker).await;
        }
        Ok(First::Closed) => tcp::forward(conn, server, None, worker).await,
        Err(error) => tracing::debug!(%error, "a quiet connection broke"),
    }
    Ok(())
}

/// Not of this mesh: it passes as it is, or not at all.
async fn unknown(conn: Captured<TcpStream>, worker: &Rc<Worker>) -> Result<(), Error> {
    if worker.shared.config.outbound_policy == OutboundPolicy::Deny {
        close_with_reset(&conn.io);
        return Err(DestinationError::Unknown.into());
    }
    let server = match tcp::open_as_it_is(conn.original_dst).await {
        Ok(server) => server,
        Err(error) => {
            close_with_reset(&conn.io);
            return Err(error);
        }
    };
    let conn = Captured {
        io: Prefixed::with(Bytes::new(), conn.io),
        original_dst: conn.original_dst,
        peer: conn.peer,
    };
    tcp::forward(conn, server, None, worker).await;
    Ok(())
}

/// The control plane has not answered, and never had before: fail closed. HTTP gets a reply that says so, request by request,
/// so that the connection works as soon as the answer is there.
async fn undecided(
    conn: Captured<TcpStream>,
    destination: &Rc<Destination>,
    worker: &Rc<Worker>,
) -> Result<(), Error> {
    let (io, detected) = detected(Prefixed::new(conn.io), Some(QUIET)).await?;
    let conn = Captured {
        io,
        original_dst: conn.original_dst,
        peer: conn.peer,
    };
    let version = match detected {
        Detected::Http1 => Version::Http1,
        Detected::Http2 => Version::Http2,
        _ => {
            close_with_reset(conn.io.get_ref());
            return Err(DestinationError::Pending.into());
        }
    };
    http::serve(conn, version, Rc::clone(destination), worker).await;
    Ok(())
}

/// A refused connection ends with a reset, so that the client does not take it for a regular close.
fn refused<'a, T>(
    route: Result<&'a T, Refusal>,
    conn: &Captured<Prefixed<TcpStream>>,
) -> Result<&'a T, Error> {
    route.map_err(|refusal| {
        close_with_reset(conn.io.get_ref());
        refusal.into()
    })
}

/// The same for a connection that leads nowhere.
fn opened<T>(opened: Result<T, Error>, conn: &Captured<Prefixed<TcpStream>>) -> Result<T, Error> {
    if opened.is_err() {
        close_with_reset(conn.io.get_ref());
    }
    opened
}
