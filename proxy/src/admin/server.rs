//! Small HTTP/1.1 for the proxy's own ports: a bounded number of connections, small heads, no bodies, short waits.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connections on one socket at once; more wait in the kernel.
const CONNECTIONS: usize = 64;
/// For a request's head, and for the next one on a connection that is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a whole connection: a scraper keeps its own for some scrapes.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// The longest head.
const HEAD: usize = 16 * 1024;

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// Listens on these addresses. Where the kernel has no IPv6, the other one is enough.
pub fn bind(addresses: [IpAddr; 2], port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for ip in addresses {
        match listen((ip, port).into()) {
            Ok(listener) => listeners.push(listener),
            Err(e) if ip.is_ipv6() && no_ipv6(&e) => tracing::debug!("no IPv6 for port {port}"),
            Err(e) => {
                return Err(io::Error::new(
                    e.kind(),
                    format!("cannot listen on {ip} port {port}: {e}"),
                ));
            }
        }
    }
    Ok(listeners)
}

fn no_ipv6(error: &io::Error) -> bool {
    use nix::errno::Errno;
    [Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT]
        .contains(&Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

/// Serves until the runtime ends. The handler sees only the head: nothing here takes a body.
pub fn serve<H, F>(listener: TcpListener, handler: H)
where
    H: Fn(Parts) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let handler = Arc::new(handler);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let permit = Arc::clone(&connections).acquire_owned().await;
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let handler = Arc::clone(&handler);
            tokio::spawn(async move {
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let answer = handler(request.into_parts().0);
                    async move { Ok::<_, std::convert::Infallible>(answer.await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .max_buf_size(HEAD)
                    .serve_connection(TokioIo::new(stream), service);
                // Errors here are the client's: it went away, or sent no HTTP.
                if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
                    tracing::debug!(%error, "connection to an own port failed");
                }
                drop(permit);
            });
        }
    });
}

/// Plain text.
pub fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    let mut body = body.into();
    if !body.ends_with('\n') {
        body.push('\n');
    }
    typed(status, "text/plain; charset=utf-8", body)
}

/// JSON for people: indented.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_string_pretty(value) {
        Ok(body) => typed(status, "application/json", body + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// A body of a media type.
pub fn typed(status: StatusCode, media: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    answer
}

/// 405 with what is allowed.
pub fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer = text(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("only {allowed} here"),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}
