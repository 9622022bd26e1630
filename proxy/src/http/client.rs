//! Sends one request over one connection of a pool, and tells hyper's errors apart.
//!
//! Called for each attempt by [`crate::outbound::http`] and [`crate::inbound::http`]; [`crate::http::pool`] keeps the connections.
//! A pooled connection that its server has closed meanwhile is replaced without anybody noticing, as long as hyper can give
//! the request back.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::Body;
use super::passing::BodyError;
use super::{CONNECTION_WINDOW, LocalExecutor, MAX_HEADER_BYTES, MAX_HEADERS, STREAM_WINDOW};
use crate::error::{ConnectError, Error, ExchangeError, RequestError};
use crate::http::pool::{Http1, Http2, Lease, Pool};

/// Sends over HTTP/1.1: an idle connection, or what `connect` makes.
pub async fn send_http1<F>(
    pool: &Rc<Pool>,
    idle_timeout: Duration,
    mut request: Request<Body>,
    connect: impl AsyncFn() -> F,
) -> Result<(Response<Incoming>, Lease), Failed>
where
    F: Into<Result<Http1, Error>>,
{
    loop {
        let pooled = pool.take_http1(Instant::now(), idle_timeout);
        let reused = pooled.is_some();
        let mut sender = match pooled {
            Some(sender) => sender,
            None => connect().await.into().map_err(Failed::before)?,
        };
        if !sender.is_ready()
            && let Err(error) = sender.ready().await
        {
            if reused {
                continue;
            }
            return Err(Failed::before(classify(&error)));
        }
        match sender.try_send_request(request).await {
            Ok(response) => return Ok((response, pool.lease_http1(sender))),
            Err(mut failed) => match failed.take_message() {
                Some(unsent) if reused => request = unsent,
                Some(_) => return Err(Failed::before(ExchangeError::NotTaken.into())),
                None => {
                    let error = classify(failed.error());
                    return Err(Failed { error, reused });
                }
            },
        }
    }
}

/// Sends over HTTP/2: a stream of the connection there is, or of the one that `connect` makes.
pub async fn send_http2<F>(
    pool: &Rc<Pool>,
    mut request: Request<Body>,
    connect: impl Fn() -> F,
) -> Result<(Response<Incoming>, Lease), Failed>
where
    F: Future<Output = Result<Http2, Error>> + 'static,
{
    /// Connections that may turn out closed before the request is given up.
    const STALE: usize = 4;
    for _ in 0..STALE {
        let (mut connection, lease) = pool.http2(&connect).await.map_err(Failed::before)?;
        match connection.sender.try_send_request(request).await {
            Ok(response) => return Ok((response, lease)),
            Err(mut failed) => match failed.take_message() {
                Some(unsent) => request = unsent,
                None => {
                    let error = classify(failed.error());
                    // A connection of HTTP/2 says with GOAWAY that it closes: whatever else ends it is a failure.
                    return Err(Failed {
                        error,
                        reused: false,
                    });
                }
            },
        }
    }
    Err(Failed::before(ExchangeError::NotTaken.into()))
}

/// Why there is no response.
#[derive(Debug)]
pub struct Failed {
    /// What happened.
    pub error: Error,
    /// On a connection that had served others: it may have been closing for being idle.
    pub reused: bool,
}

impl Failed {
    fn before(error: Error) -> Self {
        Self {
            error,
            reused: false,
        }
    }
}

/// Begins HTTP/1.1 on a fresh connection. `held` is dropped when it closes.
pub async fn begin_http1<I, G>(io: I, held: G) -> Result<Http1, Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    G: 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|e| classify(&e))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an HTTP/1.1 connection to a server ended");
        }
        drop(held);
    });
    Ok(sender)
}

/// Begins HTTP/2 on a fresh connection. `held` is dropped when it closes.
pub async fn begin_http2<I, G>(io: I, held: G) -> Result<Http2, Error>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    G: 'static,
{
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|e| classify(&e))?;
    let limit = Rc::new(Cell::new(connection.current_max_send_streams()));
    let told = Rc::clone(&limit);
    tokio::task::spawn_local(async move {
        let mut connection = std::pin::pin!(connection);
        let ended = std::future::poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            told.set(connection.current_max_send_streams());
            polled
        });
        if let Err(error) = ended.await {
            tracing::debug!(%error, "an HTTP/2 connection to a server ended");
        }
        drop(held);
    });
    Ok(Http2 { sender, limit })
}

/// What a hyper error means. The only place where its innards are looked at.
pub fn classify(error: &hyper::Error) -> Error {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(body) = cause.downcast_ref::<BodyError>() {
            return match body {
                BodyError::Broken(_) => RequestError::ClientGone.into(),
                BodyError::TimedOut => ExchangeError::RequestTimeout.into(),
                BodyError::Superseded => ExchangeError::Reset.into(),
            };
        }
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            // RFC 9113, 8.7: REFUSED_STREAM, and streams beyond the last of a GOAWAY, were not processed.
            let refused = h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            let beyond =
                h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR);
            return if refused || beyond {
                ExchangeError::NotTaken.into()
            } else {
                ExchangeError::Reset.into()
            };
        }
        if let Some(failure) = cause.downcast_ref::<std::io::Error>().and_then(tls_failure) {
            return failure;
        }
        source = cause.source();
    }
    if error.is_parse() {
        ExchangeError::Malformed.into()
    } else if error.is_canceled() {
        ExchangeError::NotTaken.into()
    } else {
        ExchangeError::Reset.into()
    }
}

/// In TLS 1.3 a server's refusal of our certificate arrives after the handshake, in place of the first response.
fn tls_failure(error: &std::io::Error) -> Option<Error> {
    let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(tls, rustls::Error::AlertReceived(_)).then(|| ConnectError::Tls(tls.into()).into())
}
