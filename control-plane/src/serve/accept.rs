//! From a TCP connection to gRPC calls: limits, TLS handshake, HTTP/2, keep-alive, and the end of the connection.
//!
//! [`serve`] is the loop, [`connection`] the life of one connection, read from top to bottom.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::body::Body;
use tower::Service;
use tracing::{debug, warn};

use super::closing::{self, Closing};
use super::dispatch::Dispatch;
use super::peer::{self, Peer};
use crate::metrics::Metrics;

/// Bounds of the port.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; more are closed at once.
    pub connections: usize,
    /// Until the TLS handshake is done.
    pub handshake: Duration,
    /// How long a connection without a client certificate may live; it is only good for certificate calls.
    pub anonymous: Duration,
    /// Between pings on a quiet connection, and again the time for their answer: a dead proxy is noticed in twice this.
    pub keep_alive: Duration,
    /// From the decision to close a connection until it is cut.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            handshake: Duration::from_secs(5),
            anonymous: Duration::from_secs(60),
            keep_alive: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}

/// Calls of one connection at once. Ours makes one stream; Envoy and gRPC a few.
const STREAMS: u32 = 64;
/// A token of 16 KiB must fit.
const HEADER_LIST: u32 = 32 << 10;

/// Accepts until `shutdown` says so, then closes every connection in good order and returns when the last is gone.
pub async fn serve<A>(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    dispatch: Dispatch<A>,
    limits: Limits,
    metrics: Metrics,
    mut shutdown: watch::Receiver<bool>,
) where
    A: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    A::Future: Send,
{
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (tcp, address) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Of one connection that vanished, or out of descriptors: the latter passes only with time.
                warn!(error = %e, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            metrics.connection_refused();
            continue;
        };
        let acceptor = TlsAcceptor::from(tls.borrow().clone());
        let (dispatch, limits, metrics, shutdown) = (
            dispatch.clone(),
            limits.clone(),
            metrics.clone(),
            shutdown.clone(),
        );
        connections.spawn(async move {
            let _slot = slot;
            let _counted = metrics.connection();
            let Some(stream) = handshake(tcp, acceptor, limits.handshake, &metrics).await else {
                return;
            };
            let certificate = stream.get_ref().1.peer_certificates();
            let peer = Peer {
                address,
                certificate: certificate
                    .and_then(|chain| chain.first())
                    .map(peer::certified),
            };
            connection(stream, peer, dispatch, &limits, shutdown).await;
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn handshake(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    patience: Duration,
    metrics: &Metrics,
) -> Option<TlsStream<TcpStream>> {
    let _ = tcp.set_nodelay(true); // an error shows at the next read
    let from = tcp
        .peer_addr()
        .map(|a| a.ip().to_canonical().to_string())
        .unwrap_or_default();
    match timeout(patience, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(e)) => {
            let reason = handshake_label(&e);
            metrics.handshake_failed(reason);
            if reason != "closed" {
                warn!(peer = from, reason, "TLS handshake failed: {e}"); // a bare probe of the port is no news
            }
            None
        }
        Err(_) => {
            metrics.handshake_failed("timeout");
            debug!(peer = from, "TLS handshake took too long");
            None
        }
    }
}

/// The libraries' error enums may grow, hence the last arm.
fn handshake_label(error: &std::io::Error) -> &'static str {
    let Some(inner) = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>())
    else {
        return "closed";
    };
    match inner {
        rustls::Error::InvalidCertificate(
            rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. },
        ) => "certificate_expired",
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            "certificate_unknown_issuer"
        }
        rustls::Error::InvalidCertificate(_) => "certificate_invalid",
        rustls::Error::AlertReceived(_) => "refused_by_client",
        rustls::Error::PeerIncompatible(_) => "no_common_parameters",
        rustls::Error::InvalidMessage(_) => "not_tls",
        _ => "other",
    }
}

async fn connection<A>(
    stream: TlsStream<TcpStream>,
    peer: Peer,
    dispatch: Dispatch<A>,
    limits: &Limits,
    mut shutdown: watch::Receiver<bool>,
) where
    A: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    A::Future: Send,
{
    let ends = Instant::now() + lifetime(&peer, limits);
    let address = peer.address;
    let (close, closing) = closing::pair();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (dispatch, peer, closing): (_, _, Closing) =
            (dispatch.clone(), peer.clone(), closing.clone());
        async move { Ok::<_, Infallible>(dispatch.call(peer, closing, request.map(Body::new)).await) }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.keep_alive)
        .keep_alive_timeout(limits.keep_alive)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    // 1 It lives until the client goes, its certificate ends, or the control plane stops.
    let result = tokio::select! {
        result = served.as_mut() => Some(result),
        () = sleep_until(ends) => None,
        _ = shutdown.wait_for(|stop| *stop) => None,
    };
    // 2 GOAWAY, the streams end, what is under way gets its answer, and whoever takes longer is cut.
    let result = match result {
        Some(result) => Ok(result),
        None => {
            close.now();
            served.as_mut().graceful_shutdown();
            timeout(limits.drain, served).await
        }
    };
    match result {
        Ok(Ok(())) => {}
        Ok(Err(e)) => debug!(%address, "connection ended: {e}"),
        Err(_) => debug!(%address, "connection cut after the drain time"),
    }
}

/// At most until the client's certificate ends.
fn lifetime(peer: &Peer, limits: &Limits) -> Duration {
    const YEAR: Duration = Duration::from_secs(31_536_000); // timers have an end, too
    match &peer.certificate {
        Some(certificate) => certificate
            .not_after
            .duration_since(SystemTime::now())
            .unwrap_or_default()
            .min(YEAR),
        None => limits.anonymous,
    }
}
