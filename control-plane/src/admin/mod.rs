//! Port 15014: health, metrics, and what the control plane knows, as JSON over plain HTTP. Read only.
//!
//! [`pages`] makes the answers; here is the small server around them. `weft check`, `weft routes` and Prometheus call it.

pub mod pages;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub use pages::Pages;

/// Connections at once; more wait.
const CONNECTIONS: usize = 256;
/// For a request's header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A request that is answered late is not worth a connection.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(300);

/// One answer, before it is HTTP.
#[derive(Debug)]
pub struct Page {
    /// The status.
    pub status: StatusCode,
    /// Its media type.
    pub content_type: &'static str,
    /// Its content.
    pub body: Bytes,
}

impl Page {
    /// JSON from anything that serializes.
    pub fn json(value: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self {
                status: StatusCode::OK,
                content_type: "application/json",
                body: body.into(),
            },
            Err(e) => Self::text(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
        }
    }

    /// Plain text.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: text.into().into(),
        }
    }

    /// An error as JSON, which command lines print.
    pub fn error(status: StatusCode, message: impl Into<String>) -> Self {
        let mut page = Self::json(&serde_json::json!({ "error": message.into() }));
        page.status = status;
        page
    }
}

/// Serves until `stop` says so.
pub async fn serve(listener: TcpListener, pages: Pages, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors passes only with time
            continue;
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request| {
                let pages = pages.clone();
                async move { Ok::<_, Infallible>(answer(&pages, &request)) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION_LIFETIME, connection).await;
        });
    }
}

fn answer<B>(pages: &Pages, request: &Request<B>) -> Response<Full<Bytes>> {
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    let page = if readable {
        pages.get(
            request.uri().path(),
            request.uri().query().unwrap_or_default(),
        )
    } else {
        Page::error(
            StatusCode::METHOD_NOT_ALLOWED,
            "this port is read only: use GET",
        )
    };
    let mut response = Response::new(Full::new(page.body));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    if !readable {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
