//! One captured inbound connection, from accept to close.
//!
//! [`serve`] is the spine. Mutual TLS is ended here, the peer judged by the port's policy, and what is inside goes to the
//! application at its own address: [`http`] request by request, [`tcp`] as it is. Called by [`crate::worker`].

pub mod http;
mod judge;
mod tcp;

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use weft_model::decide::inbound as decide;
use weft_model::{InboundPort, MtlsMode, Protocol};

use crate::detect::{self, Detected, First, QUIET};
use crate::error::{ConnectError, DestinationError, Error, RequestError};
use crate::http::Version;
use crate::listen::{Captured, close_with_reset};
use crate::metrics::Handshake;
use crate::port::Port;
use crate::prefixed::Prefixed;
use crate::tls::server::Accepted;
use crate::tls::{HandshakeFailure, Inner};
use crate::worker::Worker;
use judge::Judge;

/// Time for a client's TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client without mutual TLS may be silent before the application is asked. Longer than outbound, because a hello
/// of the mesh that is still on its way must not meet a greeting of the application.
const PERMISSIVE_QUIET: Duration = Duration::from_millis(40);

/// Serves one connection to the application.
pub async fn serve(conn: Captured<TcpStream>, worker: &Rc<Worker>) {
    let (peer, original_dst) = (conn.peer, conn.original_dst);
    match run(conn, worker).await {
        Ok(()) => {}
        // A port that is only knocked at is no refusal.
        Err(
            Error::Request(RequestError::ClientGone)
            | Error::Connect(ConnectError::Tls(HandshakeFailure::Io)),
        ) => {
            tracing::debug!(%peer, "a client left before it was served");
        }
        Err(error) => {
            let reason = reason(&error);
            worker.shared.metrics.refuse("inbound", reason);
            tracing::warn!(%peer, destination = %original_dst, reason, "an inbound connection is refused: {error}");
        }
    }
}

/// A handshake's reason stands without the stage: whoever looks for `expired` shall find it.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::Connect(ConnectError::Tls(failure)) => failure.reason(),
        other => other.verdict().reason,
    }
}

async fn run(conn: Captured<TcpStream>, worker: &Rc<Worker>) -> Result<(), Error> {
    // 1. Never dial ourselves.
    let port = conn.original_dst.port();
    let own = &worker.shared.config.ports;
    if [own.inbound, own.outbound, own.dns, own.health, own.admin].contains(&port) {
        close_with_reset(&conn.io);
        return Err(DestinationError::Loop.into());
    }
    // 2. What holds for the port?
    let known = worker.port(port);
    let Some(policy) = known.policy().await else {
        close_with_reset(&conn.io);
        return Err(DestinationError::Pending.into());
    };
    // 3. Mutual TLS, the application's own TLS, or plaintext?
    let Captured {
        io,
        original_dst,
        peer,
    } = conn;
    let io = Prefixed::new(io);
    let (io, detected) = if policy.mtls == MtlsMode::Strict {
        (io, None)
    } else {
        let (io, detected) = detected(io, Some(PERMISSIVE_QUIET)).await?;
        (io, Some(detected))
    };
    let conn = Captured {
        io,
        original_dst,
        peer,
    };
    let mesh = match &detected {
        None => true,
        Some(Detected::Tls(hello)) => hello.is_mesh() || !decide::may_be_app_tls(&policy),
        Some(_) => false,
    };
    // 4. Who is it, and may it?
    match detected {
        Some(detected) if !mesh => {
            let judge = Judge::plaintext(&known, worker);
            judge.admit(&policy).map_err(|e| reset(e, &conn.io))?;
            plaintext(conn, detected, &policy, judge, worker).await
        }
        _ => Box::pin(mutual(conn, &policy, known, worker)).await,
    }
}

/// Ends mutual TLS and serves what is inside.
async fn mutual(
    conn: Captured<Prefixed<TcpStream>>,
    policy: &InboundPort,
    port: Rc<Port>,
    worker: &Rc<Worker>,
) -> Result<(), Error> {
    let handshake = worker.acceptor.accept(conn.io);
    let done = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
    let done = done.unwrap_or(Err(HandshakeFailure::Timeout));
    count(worker, &done);
    let Accepted {
        stream,
        peer,
        inner,
        ..
    } = done?;
    let judge = Judge::authenticated(&port, peer, worker);
    judge.admit(policy)?;
    let conn = Captured {
        io: Prefixed::new(stream),
        original_dst: conn.original_dst,
        peer: conn.peer,
    };
    // 5. HTTP or bytes, as the client said; else as the port declares; else look.
    match (inner, policy.protocol) {
        (Some(Inner::Http1), _) => http::serve(conn, Version::Http1, judge, worker).await,
        (Some(Inner::Http2), _) => http::serve(conn, Version::Http2, judge, worker).await,
        (Some(Inner::Tcp), _) | (None, Protocol::Tcp | Protocol::Tls) => {
            tcp::serve(conn, judge, worker).await?;
        }
        (None, Protocol::Http | Protocol::Http2 | Protocol::Grpc) => {
            let (io, detected) = detected(conn.io, None).await?;
            let conn = Captured { io, ..conn };
            match detected {
                Detected::Http1 => http::serve(conn, Version::Http1, judge, worker).await,
                Detected::Http2 => http::serve(conn, Version::Http2, judge, worker).await,
                _ => return Err(RequestError::ClientGone.into()),
            }
        }
        (None, Protocol::Detect) => {
            let (io, detected) = detected(conn.io, Some(QUIET)).await?;
            let conn = Captured { io, ..conn };
            sniffed(conn, detected, judge, worker).await?;
        }
    }
    Ok(())
}

fn count<I>(worker: &Worker, done: &Result<Accepted<I>, HandshakeFailure>) {
    let labels = match done {
        Ok(accepted) => Handshake {
            direction: "inbound",
            peer: accepted.peer.id.to_string(),
            version: accepted.agreed.version,
            group: accepted.agreed.group,
            result: accepted.agreed.kind,
        },
        Err(failure) => Handshake {
            direction: "inbound",
            peer: "unknown".to_owned(),
            version: "",
            group: "",
            result: failure.reason(),
        },
    };
    worker.shared.metrics.tls_handshakes.get(&labels).add(1);
}

/// Serves a client that is not in the mesh.
async fn plaintext(
    conn: Captured<Prefixed<TcpStream>>,
    detected: Detected,
    policy: &InboundPort,
    judge: Judge,
    worker: &Rc<Worker>,
) -> Result<(), Error> {
    match (policy.protocol, detected) {
        (Protocol::Tcp | Protocol::Tls, _) => tcp::serve(conn, judge, worker).await,
        (Protocol::Detect, detected) => sniffed(conn, detected, judge, worker).await,
        (_, Detected::Http1) => {
            http::serve(conn, Version::Http1, judge, worker).await;
            Ok(())
        }
        (_, Detected::Http2) => {
            http::serve(conn, Version::Http2, judge, worker).await;
            Ok(())
        }
        // A client of an HTTP port may open a connection before it has something to say.
        (_, Detected::Quiet) => {
            let (io, detected) = self::detected(conn.io, None).await?;
            let conn = Captured { io, ..conn };
            sniffed(conn, detected, judge, worker).await
        }
        (_, Detected::Closed) => Ok(()),
        (_, Detected::Tls(_) | Detected::Opaque) => {
            close_with_reset(conn.io.get_ref());
            Err(RequestError::NotHttp.into())
        }
    }
}

/// Serves a connection by what it turned out to speak.
async fn sniffed<I>(
    mut conn: Captured<Prefixed<I>>,
    detected: Detected,
    judge: Judge,
    worker: &Rc<Worker>,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let count = |label| {
        worker
            .shared
            .metrics
            .detect("inbound", conn.original_dst.port(), label);
    };
    match detected {
        Detected::Closed => return Ok(()),
        Detected::Quiet => {}
        _ => count(detected.label()),
    }
    match detected {
        Detected::Http1 => http::serve(conn, Version::Http1, judge, worker).await,
        Detected::Http2 => http::serve(conn, Version::Http2, judge, worker).await,
        Detected::Tls(_) | Detected::Opaque | Detected::Closed => {
            tcp::serve(conn, judge, worker).await?;
        }
        Detected::Quiet => {
            let mut server = tcp::open(&conn).await?;
            match detect::race(&mut conn.io, &mut server).await {
                Ok(First::Server(greeting)) => {
                    count("server-first");
                    tcp::forward(conn, server, greeting.freeze(), judge, worker).await;
                }
                Ok(First::Client(bytes)) => {
                    let (_, io) = conn.io.into_parts();
                    let (io, detected) =
                        self::detected(Prefixed::with(bytes.freeze(), io), None).await?;
                    let conn = Captured { io, ..conn };
                    match detected {
                        Detected::Http1 => http::serve(conn, Version::Http1, judge, worker).await,
                        Detected::Http2 => http::serve(conn, Version::Http2, judge, worker).await,
                        _ => tcp::forward(conn, server, bytes::Bytes::new(), judge, worker).await,
                    }
                }
                Ok(First::Closed) => {
                    tcp::forward(conn, server, bytes::Bytes::new(), judge, worker).await;
                }
                Err(error) => tracing::debug!(%error, "a quiet connection broke"),
            }
        }
    }
    Ok(())
}

async fn detected<I: AsyncRead + Unpin>(
    io: Prefixed<I>,
    quiet: Option<Duration>,
) -> Result<(Prefixed<I>, Detected), Error> {
    detect::detect(io, quiet)
        .await
        .map_err(|_| RequestError::ClientGone.into())
}

fn reset(error: Error, io: &Prefixed<TcpStream>) -> Error {
    close_with_reset(io.get_ref());
    error
}
