//! One HTTP request of the application: decided, filtered, tried until it succeeds or may not be tried again.
//!
//! [`serve`] runs the connection, [`call`] one request of it: the plan comes from `weft_model::decide`, [`crate::retry`] says
//! whether to try again ([`super::attempt`]), [`crate::balance`] where, [`crate::http::client`] sends.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::net::TcpStream;
use tokio::time::Instant as Deadline;
use weft_model::decide::outbound::{self as decide, HttpPlan, HttpStep, RequestView};
use weft_model::decide::{NoTrace, transform};
use weft_model::route::{Forward, WeightedBackend};
use weft_model::{HttpRoutes, HttpRule, Origin};

use super::attempt::{Answered, Attempts, Outgoing};
use crate::access_log::Direction;
use crate::backend::{Backend, InFlight};
use crate::balance::limits::Permit;
use crate::destination::Destination;
use crate::discovery::DISCOVERY_PATIENCE;
use crate::error::{Error, ExchangeError};
use crate::http::head::{self, AuthorityOf};
use crate::http::log::Line;
use crate::http::passing::Passing;
use crate::http::pool::Lease;
use crate::http::tail::{Held, Tail};
use crate::http::{Body, Version, reply, tunnel};
use crate::listen::Captured;
use crate::prefixed::Prefixed;
use crate::worker::Worker;

/// What the requests of one connection have in common.
struct Context {
    worker: Rc<Worker>,
    destination: Rc<Destination>,
    version: Version,
    peer: SocketAddr,
}

/// Serves a connection that speaks HTTP.
pub async fn serve(
    conn: Captured<Prefixed<TcpStream>>,
    version: Version,
    destination: Rc<Destination>,
    worker: &Rc<Worker>,
) {
    let context = Rc::new(Context {
        worker: Rc::clone(worker),
        destination,
        version,
        peer: conn.peer,
    });
    // A connection that begins during the drain is served: the application may need it for its own end.
    let until_drain = !worker.shared.drain.is_draining();
    let stop = worker.changed(until_drain, || false);
    let served = crate::http::serve(conn.io, version, stop, |request| {
        call(Rc::clone(&context), request)
    })
    .await;
    if let Err(error) = served {
        tracing::debug!(peer = %conn.peer, %error, "an outbound HTTP connection broke");
    }
}

/// What a request has shown of itself by the time it is answered.
#[derive(Default)]
struct Told {
    backend: Option<Rc<Backend>>,
    /// The rule under which it failed.
    origin: Option<Origin>,
    line: Option<Box<Line>>,
}

async fn call(context: Rc<Context>, request: Request<Incoming>) -> Response<Body> {
    let began = Instant::now();
    let grpc = head::is_grpc(request.headers());
    let protocol = context.version.label();
    let mut told = Told {
        backend: None,
        origin: None,
        line: Line::begin(
            &context.worker.shared.access_log,
            Direction::Outbound,
            protocol,
            &request,
        ),
    };
    if let Some(line) = &mut told.line {
        line.peer_address = Some(context.peer);
        line.destination = Some(context.destination.address);
    }
    let (response, reason) = match answer(&context, request, &mut told).await {
        Ok(response) => (response, ""),
        Err(error) => {
            let reason = error.verdict().reason;
            tracing::debug!(destination = %context.destination.address, reason, "a request failed: {error}");
            let origin = error.origin().or(told.origin.as_ref());
            (reply::error(&error, grpc, origin), reason)
        }
    };
    let status = response.status().as_u16();
    if let Some(backend) = &told.backend {
        backend
            .metrics
            .answered(protocol, status, reason, began.elapsed());
    } else {
        let metrics = &context.worker.shared.metrics;
        metrics
            .outbound_requests
            .get(&crate::metrics::OutboundRequest {
                destination: context.destination.address.to_string(),
                protocol,
                status: status.into(),
                reason,
            })
            .add(1);
    }
    if let Some(mut line) = told.line {
        line.status = status;
        line.reason = reason;
        return with_line(response, line);
    }
    response
}

/// The line is written when the response's body has ended.
fn with_line(mut response: Response<Body>, line: Box<Line>) -> Response<Body> {
    if let Body::Response(_, Some(tail)) = response.body_mut() {
        tail.log(line);
    }
    response
}

async fn answer(
    context: &Context,
    request: Request<Incoming>,
    told: &mut Told,
) -> Result<Response<Body>, Error> {
    // 1. One snapshot of the routes for the whole request.
    let authority = head::authority(&request)?;
    let routes = context
        .destination
        .routes(&context.worker.shared.discovery)
        .await?;
    // 2. Which rule?
    let plan = plan(&routes, &request, &authority)?;
    if let Some(line) = &mut told.line {
        line.route = Some(plan.rule.meta.origin.clone());
    }
    match plan.step() {
        HttpStep::Forward(to) => {
            let result = forward(context, request, &authority, (&plan, to), told).await;
            if result.is_err() {
                told.origin = Some(plan.rule.meta.origin.clone());
            }
            result
        }
        HttpStep::Redirect(to) => {
            let (uri, port) = (request.uri(), context.destination.address.port());
            let location = transform::location(
                plan.rule,
                to,
                authority.as_str(),
                port,
                uri.path(),
                uri.query(),
            );
            let mut response = reply::redirect(to.status, &location);
            transform::response(plan.rule, None, response.headers_mut());
            Ok(response)
        }
    }
}

async fn forward(
    context: &Context,
    mut request: Request<Incoming>,
    authority: &AuthorityOf,
    (plan, forward): (&HttpPlan<'_>, &Forward),
    told: &mut Told,
) -> Result<Response<Body>, Error> {
    // 3. Which backend?
    let (weighted, key) = plan.backend(forward, fastrand::u64(..))?;
    let backend = context.worker.backend(key);
    told.backend = Some(Rc::clone(&backend));
    let cluster = backend
        .ready(|| Deadline::now() + DISCOVERY_PATIENCE)
        .await?;
    let permit = backend.limits.request(&cluster.policy.circuit_breaker)?;
    // 4. What goes on: this hop's own headers off, the rule's edits on.
    let client = head::wants_tunnel(&request).then(|| tunnel::of_request(&mut request));
    let (mut parts, incoming) = request.into_parts();
    head::strip_hop_by_hop(&mut parts.headers, client.is_some());
    if context.version == Version::Http1 {
        head::to_origin_form(&mut parts, authority, || {
            context.destination.address.to_string()
        });
    }
    transform::request(
        plan.rule,
        &forward.rewrite,
        weighted,
        &mut parts.uri,
        &mut parts.headers,
    );
    // 5. Try.
    let deadline = forward
        .request_timeout
        .filter(|t| !t.is_zero())
        .map(|t| Deadline::now() + t);
    let mut attempts = Attempts::new(
        &context.worker,
        context.version,
        forward,
        &backend,
        &cluster,
    );
    let method = parts.method.clone();
    let trying = attempts.run(parts, Outgoing::new(incoming, forward, client.is_some()));
    let answered = match deadline {
        None => trying.await,
        Some(at) => tokio::time::timeout_at(at, trying)
            .await
            .unwrap_or(Err(ExchangeError::RequestTimeout.into())),
    };
    if let Some(line) = &mut told.line {
        line.attempts = attempts.made;
    }
    let answered = answered?;
    if let Some(line) = &mut told.line {
        line.upstream = Some(answered.in_flight.endpoint.address);
        line.upstream_identity
            .clone_from(&answered.in_flight.endpoint.identity);
    }
    // 6. What comes back.
    let finish = Finish {
        rule: plan.rule,
        weighted,
        method,
        client,
        permit,
        deadline,
    };
    Ok(finish.response(answered, context).await)
}

fn plan<'r, B>(
    routes: &'r HttpRoutes,
    request: &Request<B>,
    authority: &AuthorityOf,
) -> Result<HttpPlan<'r>, Error> {
    let uri = request.uri();
    let view = RequestView {
        method: request.method(),
        authority: authority.as_str(),
        // CONNECT has no path; rules for every path hold for it.
        path: if *request.method() == Method::CONNECT {
            "/"
        } else {
            uri.path()
        },
        query: uri.query(),
        headers: request.headers(),
    };
    Ok(decide::http(routes, &view, &mut NoTrace)?)
}

/// What is needed to make the client's response out of the endpoint's.
struct Finish<'a> {
    rule: &'a HttpRule,
    weighted: &'a WeightedBackend,
    method: Method,
    client: Option<OnUpgrade>,
    permit: Permit,
    deadline: Option<Deadline>,
}

impl Finish<'_> {
    async fn response(self, answered: Answered, context: &Context) -> Response<Body> {
        let Answered {
            mut response,
            lease,
            in_flight,
        } = answered;
        let tunnel = head::is_tunnel(&self.method, response.status());
        head::strip_hop_by_hop(response.headers_mut(), tunnel);
        transform::response(self.rule, Some(self.weighted), response.headers_mut());
        if let (Some(client), true) = (self.client, tunnel) {
            let shared = &context.worker.shared;
            let destination = context.destination.address.to_string();
            let counters = shared.metrics.bytes("outbound", &destination);
            tunnel::join(client, &mut response, counters, shared.drain.guard());
            return response.map(|_| Body::Empty);
        }
        let (mut parts, incoming) = response.into_parts();
        let mut passing = Passing::new(incoming);
        if context.version == Version::Http1 {
            parts.version = http::Version::HTTP_11;
            passing.read_ahead().await;
        }
        let held = Exchange {
            lease,
            _in_flight: in_flight,
            _permit: self.permit,
        };
        let tail = Tail::new(Box::new(held), self.deadline);
        Response::from_parts(parts, Body::Response(passing, Some(Box::new(tail))))
    }
}

/// What the exchange with an endpoint holds. The balancer and the limits learn of its end when it is dropped.
#[derive(Debug)]
struct Exchange {
    lease: Lease,
    _in_flight: InFlight,
    _permit: Permit,
}

impl Held for Exchange {
    fn complete(self: Box<Self>) {
        self.lease.give_back();
    }
}
