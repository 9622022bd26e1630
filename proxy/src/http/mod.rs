//! HTTP on one connection: serving it, sending on, and what requests and responses are made of.
//!
//! [`serve`] runs a client's connection and hands each request to its caller ([`crate::outbound::http`] or
//! [`crate::inbound::http`]); [`client`] sends it on. HTTP/1.1 stays HTTP/1.1 and HTTP/2 stays HTTP/2.

pub mod body;
pub mod client;
pub mod expect;
pub mod head;
pub mod log;
pub mod passing;
pub mod pool;
pub mod replay;
pub mod reply;
pub mod tail;
pub mod tunnel;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

pub use body::Body;

/// Header lines in a message, at most.
pub const MAX_HEADERS: usize = 200;
/// Bytes of headers in a message, at most.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Requests on one HTTP/2 connection at a time.
const MAX_STREAMS: u32 = 1000;
/// Bytes of a stream under way, unread: what one slow reader can hold in memory.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes of a connection under way, unread.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The version a connection speaks from beginning to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.1, and HTTP/1.0 clients.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// Its metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
        }
    }
}

/// Runs tasks on the worker they come from.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Serves a client's connection until it ends. When `stop` resolves, it ends as soon as the requests in flight are answered:
/// `Connection: close` or GOAWAY.
pub async fn serve<I, C, F>(
    io: I,
    version: Version,
    stop: impl Future<Output = ()>,
    call: C,
) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    C: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>> + 'static,
{
    let service = service_fn(|request| {
        let answer = call(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut stop = pin!(stop);
    match version {
        Version::Http1 => {
            let connection = http1::Builder::new()
                .auto_date_header(false)
                .max_headers(MAX_HEADERS)
                .max_header_size(MAX_HEADER_BYTES)
                .serve_connection(TokioIo::new(io), service)
                .with_upgrades();
            let mut connection = pin!(connection);
            tokio::select! {
                biased;
                ended = connection.as_mut() => return ended,
                () = stop.as_mut() => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        }
        Version::Http2 => {
            let connection = http2::Builder::new(LocalExecutor)
                .auto_date_header(false)
                .max_concurrent_streams(MAX_STREAMS)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(MAX_HEADER_BYTES as u32)
                .serve_connection(TokioIo::new(io), service);
            let mut connection = pin!(connection);
            tokio::select! {
                biased;
                ended = connection.as_mut() => return ended,
                () = stop.as_mut() => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        }
    }
}
