//! One exchange with one endpoint: a connection from its pool or a new one, the request, the head of the response.
//!
//! Used by [`super::attempt`] and [`super::mirror`]; connections are made by [`crate::connect`].

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant as Deadline;
use weft_model::Cluster;

use crate::backend::{Backend, Endpoint, InFlight};
use crate::connect::{self, Upstream};
use crate::error::Error;
use crate::http::client::{self, Failed};
use crate::http::pool::{Http1, Lease};
use crate::http::{Body, Version};
use crate::tls::Inner;
use crate::worker::Worker;

/// Sends to the endpoint that was picked, over a connection from its pool or a new one.
pub(super) async fn exchange(
    backend: &Rc<Backend>,
    cluster: &Arc<Cluster>,
    to: &InFlight,
    request: Request<Body>,
    version: Version,
    worker: &Rc<Worker>,
) -> Result<(Response<Incoming>, Lease), Failed> {
    let (endpoint, idle_timeout) = (&to.endpoint, cluster.policy.idle_timeout);
    match version {
        Version::Http1 => {
            let connect = async || http1_connection(backend, cluster, endpoint, worker).await;
            client::send_http1(&endpoint.pool, idle_timeout, request, connect).await
        }
        Version::Http2 => {
            let connect = || {
                let (backend, cluster) = (Rc::clone(backend), Arc::clone(cluster));
                let (endpoint, worker) = (Rc::clone(endpoint), Rc::clone(worker));
                async move {
                    let permit = backend.limits.connection(&cluster.policy.circuit_breaker)?;
                    let io = open(&cluster, &endpoint, Inner::Http2, &worker).await?;
                    client::begin_http2(io, permit).await
                }
            };
            client::send_http2(&endpoint.pool, request, connect).await
        }
    }
}

/// A new connection; at the limit, whichever comes free first.
async fn http1_connection(
    backend: &Backend,
    cluster: &Cluster,
    endpoint: &Endpoint,
    worker: &Worker,
) -> Result<Http1, Error> {
    let (limits, breaker) = (&backend.limits, &cluster.policy.circuit_breaker);
    let deadline = Deadline::now() + cluster.policy.connect_timeout;
    let _pending = limits.pending(breaker)?;
    loop {
        let full = match limits.connection(breaker) {
            Ok(permit) => {
                let io = open(cluster, endpoint, Inner::Http1, worker).await?;
                return client::begin_http1(io, permit).await;
            }
            Err(full) => full,
        };
        if tokio::time::timeout_at(deadline, limits.released())
            .await
            .is_err()
        {
            return Err(full.into());
        }
        if let Some(free) = endpoint
            .pool
            .take_http1(Instant::now(), cluster.policy.idle_timeout)
        {
            return Ok(free);
        }
    }
}

async fn open(
    cluster: &Cluster,
    endpoint: &Endpoint,
    inner: Inner,
    worker: &Worker,
) -> Result<Upstream, Error> {
    let (dialer, metrics, identity) = (
        &worker.dialer,
        &worker.shared.metrics,
        endpoint.identity.as_ref(),
    );
    let within = cluster.policy.connect_timeout;
    Ok(connect::to_endpoint(dialer, metrics, endpoint.address, identity, inner, within).await?)
}
