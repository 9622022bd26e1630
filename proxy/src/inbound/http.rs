//! HTTP to the application: each request over a pooled connection to its own address and port.
//!
//! [`serve`] runs the client's connection, [`call`] one request of it. The client's identity goes along in
//! `x-forwarded-client-cert`, as Istio and Envoy write it; what a client claims there itself is taken off.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};

use super::judge::Judge;
use super::tcp::CONNECT_TIMEOUT;
use crate::access_log::Direction;
use crate::connect;
use crate::error::{Error, ExchangeError};
use crate::http::client::{self, Failed};
use crate::http::expect::{Gate, expects_continue};
use crate::http::log::Line;
use crate::http::passing::Passing;
use crate::http::pool::{Lease, Pool};
use crate::http::tail::Tail;
use crate::http::{Body, Version, head, reply, tunnel};
use crate::listen::Captured;
use crate::metrics::{Counter, InboundRequest};
use crate::port::IDLE_TIMEOUT;
use crate::worker::Worker;

const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What the requests of one connection have in common.
struct Context {
    worker: Rc<Worker>,
    judge: Rc<Judge>,
    pool: Rc<Pool>,
    version: Version,
    application: SocketAddr,
    peer: SocketAddr,
    client_cert: Option<HeaderValue>,
    counters: RefCell<Vec<(u16, Counter)>>,
}

/// Serves a connection that speaks HTTP.
pub(super) async fn serve<I>(conn: Captured<I>, version: Version, judge: Judge, worker: &Rc<Worker>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let judge = Rc::new(judge);
    let client_cert = judge.peer.as_ref().and_then(|peer| {
        let value = format!("By={};URI={}", peer.own, peer.id);
        HeaderValue::try_from(value).ok()
    });
    let context = Rc::new(Context {
        worker: Rc::clone(worker),
        pool: judge.port.pool(conn.original_dst),
        judge: Rc::clone(&judge),
        version,
        application: conn.original_dst,
        peer: conn.peer,
        client_cert,
        counters: RefCell::default(),
    });
    let stop = judge.revoked(true);
    let served = crate::http::serve(conn.io, version, stop, |request| {
        call(Rc::clone(&context), request)
    })
    .await;
    if let Err(error) = served {
        tracing::debug!(peer = %conn.peer, %error, "an inbound HTTP connection broke");
    }
}

async fn call(context: Rc<Context>, request: Request<Incoming>) -> Response<Body> {
    let grpc = head::is_grpc(request.headers());
    let log = &context.worker.shared.access_log;
    let mut line = Line::begin(log, Direction::Inbound, context.version.label(), &request);
    let (mut response, reason) = match answer(&context, request).await {
        Ok(response) => (response, ""),
        Err(error) => {
            let reason = error.verdict().reason;
            tracing::debug!(application = %context.application, reason, "a request failed: {error}");
            (reply::error(&error, grpc, error.origin()), reason)
        }
    };
    context.count(response.status().as_u16());
    if let Some(mut line) = line.take() {
        line.status = response.status().as_u16();
        line.reason = reason;
        line.peer = context.judge.peer.as_ref().map(|p| p.id.clone());
        line.peer_address = Some(context.peer);
        line.upstream = Some(context.application);
        line.destination = Some(context.application);
        line.attempts = 1;
        if let Body::Response(_, Some(tail)) = response.body_mut() {
            tail.log(line);
        }
    }
    response
}

impl Context {
    fn count(&self, status: u16) {
        let mut counters = self.counters.borrow_mut();
        if let Some((_, counter)) = counters.iter().find(|(s, _)| *s == status) {
            counter.add(1);
            return;
        }
        let counter = self
            .worker
            .shared
            .metrics
            .inbound_requests
            .get(&InboundRequest {
                port: self.application.port().into(),
                protocol: self.version.label(),
                status: status.into(),
                peer: self.judge.peer_label(),
            });
        counter.add(1);
        counters.push((status, counter));
    }

    /// Sends one request to the application.
    async fn send(&self, request: Request<Body>) -> Result<(Response<Incoming>, Lease), Failed> {
        let application = self.application;
        match self.version {
            Version::Http1 => {
                let connect = async || {
                    let io = connect::to_application(application, CONNECT_TIMEOUT).await?;
                    client::begin_http1(io, ()).await
                };
                client::send_http1(&self.pool, IDLE_TIMEOUT, request, connect).await
            }
            Version::Http2 => {
                let connect = || async move {
                    let io = connect::to_application(application, CONNECT_TIMEOUT).await?;
                    client::begin_http2(io, ()).await
                };
                client::send_http2(&self.pool, request, connect).await
            }
        }
    }
}

async fn answer(
    context: &Context,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let authority = head::authority(&request)?;
    let client = head::wants_tunnel(&request).then(|| tunnel::of_request(&mut request));
    let (mut parts, incoming) = request.into_parts();
    head::strip_hop_by_hop(&mut parts.headers, client.is_some());
    if context.version == Version::Http1 {
        head::to_origin_form(&mut parts, &authority, || context.application.to_string());
    }
    parts.headers.remove(FORWARDED_CLIENT_CERT);
    if let Some(value) = &context.client_cert {
        parts.headers.insert(FORWARDED_CLIENT_CERT, value.clone());
    }
    let method = parts.method.clone();
    let (response, lease) = send_twice(context, parts, incoming).await?;
    Ok(respond(context, response, lease, client, &method).await)
}

/// A pooled connection may be closing for being idle just as the request is sent; what is safe to send again is, once.
async fn send_twice(
    context: &Context,
    parts: Parts,
    incoming: Incoming,
) -> Result<(Response<Incoming>, Lease), Error> {
    if !incoming.is_end_stream() {
        let mut request = Request::from_parts(parts, ());
        let gate = expects_continue(request.headers()).then(|| Gate::before(&mut request));
        let request = request.map(|()| Body::Once(Passing::new(incoming), gate));
        return context.send(request).await.map_err(|f| f.error);
    }
    let again = parts.method.is_idempotent().then(|| parts.clone());
    match (
        context.send(Request::from_parts(parts, Body::Empty)).await,
        again,
    ) {
        (Ok(answered), _) => Ok(answered),
        (Err(failed), Some(parts))
            if failed.reused && failed.error == ExchangeError::Reset.into() =>
        {
            // Its neighbours are as old.
            context
                .pool
                .sweep(Instant::now(), std::time::Duration::ZERO);
            let request = Request::from_parts(parts, Body::Empty);
            context.send(request).await.map_err(|f| f.error)
        }
        (Err(failed), _) => Err(failed.error),
    }
}

async fn respond(
    context: &Context,
    mut response: Response<Incoming>,
    lease: Lease,
    client: Option<OnUpgrade>,
    method: &http::Method,
) -> Response<Body> {
    let tunnel = head::is_tunnel(method, response.status());
    head::strip_hop_by_hop(response.headers_mut(), tunnel);
    // What the application relays of another sidecar's error is not ours to tell the caller's sidecar, which would
    // believe it and try again.
    reply::disown(response.headers_mut());
    if let (Some(client), true) = (client, tunnel) {
        let shared = &context.worker.shared;
        let counters = shared
            .metrics
            .bytes("inbound", &context.application.port().to_string());
        tunnel::join(client, &mut response, counters, shared.drain.guard());
        return response.map(|_| Body::Empty);
    }
    let (mut parts, incoming) = response.into_parts();
    let mut passing = Passing::new(incoming);
    if context.version == Version::Http1 {
        parts.version = http::Version::HTTP_11;
        passing.read_ahead().await;
    }
    let tail = Tail::new(Box::new(lease), None);
    Response::from_parts(parts, Body::Response(passing, Some(Box::new(tail))))
}
