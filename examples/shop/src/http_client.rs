//! How the shop's services call each other over HTTP/1.1: pooled plain-text connections to Kubernetes DNS names,
//! with a deadline and nothing else. Retries, balancing and encryption are the mesh's business.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// From the call to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(15);
/// Shorter than any server's keep-alive, so that a pooled connection is seldom closed under a request.
const IDLE: Duration = Duration::from_secs(5);

/// Why a call gave nothing to use. Each names the URL: a service calls many others.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The request could not be built.
    #[error("{url}: {source}")]
    Url { url: String, source: http::Error },
    /// No connection, or it ended before the response did.
    #[error("{url}: {source}")]
    Connection {
        url: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No complete answer in time.
    #[error("{url}: no answer within {DEADLINE:?}")]
    Deadline { url: String },
    /// An answer, but not a success.
    #[error("{url}: {status}: {body}")]
    Status {
        url: String,
        status: StatusCode,
        body: String,
    },
    /// A success whose body is not what was expected.
    #[error("{url}: {source}")]
    Body {
        url: String,
        source: serde_json::Error,
    },
}

/// A pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client(hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>);

impl Client {
    /// A client with an empty pool.
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        Self(
            hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .build(connector),
        )
    }

    /// GETs text.
    pub(crate) async fn text(&self, url: &str) -> Result<String, CallError> {
        let bytes = self.send(Method::GET, url, None).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// GETs JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, CallError> {
        parse(url, &self.send(Method::GET, url, None).await?)
    }

    /// POSTs JSON and reads JSON.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        url: &str,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        let body = serde_json::to_vec(body).map_err(|source| CallError::Body {
            url: url.into(),
            source,
        })?;
        parse(url, &self.send(Method::POST, url, Some(body.into())).await?)
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<Bytes>,
    ) -> Result<Bytes, CallError> {
        let mut request = Request::builder().method(method).uri(url);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|source| CallError::Url {
                url: url.into(),
                source,
            })?;
        let exchange = async {
            let response = self
                .0
                .request(request)
                .await
                .map_err(|e| connection(url, e))?;
            let status = response.status();
            let body = response
                .into_body()
                .collect()
                .await
                .map_err(|e| connection(url, e))?
                .to_bytes();
            Ok((status, body))
        };
        let (status, body) = tokio::time::timeout(DEADLINE, exchange)
            .await
            .map_err(|_| CallError::Deadline { url: url.into() })??;
        if status.is_success() {
            return Ok(body);
        }
        let body = String::from_utf8_lossy(&body[..body.len().min(200)])
            .trim()
            .to_owned();
        Err(CallError::Status {
            url: url.into(),
            status,
            body,
        })
    }
}

fn connection(url: &str, error: impl std::error::Error + Send + Sync + 'static) -> CallError {
    CallError::Connection {
        url: url.into(),
        source: Box::new(error),
    }
}

fn parse<T: DeserializeOwned>(url: &str, bytes: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(bytes).map_err(|source| CallError::Body {
        url: url.into(),
        source,
    })
}
