//! Copies of requests to another backend; their answers are dropped.
//!
//! [`super::http`] calls [`send`] before the first attempt. A copy never holds the request up, and shares nothing with it but
//! the bytes. Bodies that do not fit the replay limit are not copied.

use std::rc::Rc;

use bytes::Bytes;
use http::Request;
use http::request::Parts;
use weft_model::BackendKey;
use weft_model::route::Mirror;

use super::exchange::exchange;
use crate::discovery::DISCOVERY_PATIENCE;
use crate::http::{Body, Version};
use crate::worker::Worker;

/// Draws which of the mirrors get a copy of this request.
pub(super) fn drawn(mirrors: &[Mirror]) -> Vec<BackendKey> {
    let wanted = |m: &&Mirror| fastrand::u32(..m.denominator.max(1)) < m.numerator;
    mirrors
        .iter()
        .filter(wanted)
        .map(|m| m.backend.clone())
        .collect()
}

/// Sends the copies, in the background.
pub(super) fn send(
    to: Vec<BackendKey>,
    head: &Parts,
    body: &Bytes,
    version: Version,
    worker: &Rc<Worker>,
) {
    for key in to {
        let (head, body, worker) = (head.clone(), body.clone(), Rc::clone(worker));
        tokio::task::spawn_local(async move {
            if let Err(error) = copy(&key, head, body, version, &worker).await {
                tracing::debug!(backend = %key, %error, "a mirrored request failed");
            }
        });
    }
}

async fn copy(
    key: &BackendKey,
    head: Parts,
    body: Bytes,
    version: Version,
    worker: &Rc<Worker>,
) -> Result<(), crate::error::Error> {
    let backend = worker.backend(key);
    let cluster = backend
        .ready(|| tokio::time::Instant::now() + DISCOVERY_PATIENCE)
        .await?;
    let _permit = backend.limits.request(&cluster.policy.circuit_breaker)?;
    let body = if body.is_empty() {
        Body::Empty
    } else {
        Body::Own(Some(body))
    };
    let request = Request::from_parts(head, body);
    let mut in_flight = backend.pick(&cluster, &[])?;
    let sent = exchange(&backend, &cluster, &in_flight, request, version, worker).await;
    let (response, lease) = match sent {
        Ok(answered) => answered,
        Err(failed) => {
            in_flight.failed(false);
            return Err(failed.error);
        }
    };
    in_flight.answered();
    // Read to the end, so that the connection can be used again.
    let mut passing = crate::http::passing::Passing::new(response.into_body());
    while let Some(Ok(_)) = std::future::poll_fn(|cx| passing.poll(cx)).await {}
    if passing.is_end() {
        lease.give_back();
    }
    Ok(())
}
