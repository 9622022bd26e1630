//! The attempts of one request: pick, connect, send, and again as long as policy, budget and body allow.
//!
//! [`super::http`] makes [`Attempts`] for each request; each goes through [`super::exchange`].

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use weft_model::Cluster;
use weft_model::route::Forward;

use super::exchange::exchange;
use super::mirror;
use crate::backend::{Backend, InFlight};
use crate::balance::limits::Permit;
use crate::error::{ConnectError, Error, ExchangeError};
use crate::http::client::Failed;
use crate::http::expect::{Gate, expects_continue};
use crate::http::passing::Passing;
use crate::http::pool::Lease;
use crate::http::replay::Replayable;
use crate::http::{Body, Version, reply};
use crate::retry::{self, Outcome};
use crate::worker::Worker;

/// The body on its way out.
pub(super) enum Outgoing {
    Empty,
    Once(Option<Incoming>),
    Replayable(Replayable),
}

impl Outgoing {
    pub(super) fn new(incoming: Incoming, forward: &Forward, tunnel: bool) -> Self {
        if incoming.is_end_stream() {
            Self::Empty
        } else if tunnel || (forward.retry.attempts == 0 && forward.mirrors.is_empty()) {
            Self::Once(Some(incoming))
        } else {
            Self::Replayable(Replayable::new(incoming))
        }
    }

    /// For the next attempt; `None`: it cannot be sent again.
    fn attempt(&mut self, gate: Option<Gate>) -> Option<Body> {
        match self {
            Self::Empty => Some(Body::Empty),
            Self::Once(incoming) => incoming.take().map(|i| Body::Once(Passing::new(i), gate)),
            Self::Replayable(body) => body.can_replay().then(|| Body::Replay(body.attempt(gate))),
        }
    }

    fn can_replay(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(incoming) => incoming.is_some(),
            Self::Replayable(body) => body.can_replay(),
        }
    }
}

/// An endpoint's response.
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
    pub(super) in_flight: InFlight,
}

/// The attempts of one request.
pub(super) struct Attempts<'a> {
    worker: &'a Rc<Worker>,
    version: Version,
    forward: &'a Forward,
    backend: &'a Rc<Backend>,
    cluster: &'a Arc<Cluster>,
    /// How many there were.
    pub(super) made: u32,
    tried: Vec<SocketAddr>,
    retrying: Option<Permit>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(
        worker: &'a Rc<Worker>,
        version: Version,
        forward: &'a Forward,
        backend: &'a Rc<Backend>,
        cluster: &'a Arc<Cluster>,
    ) -> Self {
        Self {
            worker,
            version,
            forward,
            backend,
            cluster,
            made: 0,
            tried: Vec::new(),
            retrying: None,
        }
    }

    /// Tries until there is a response to keep, or no further attempt is wanted or allowed.
    pub(super) async fn run(&mut self, head: Parts, mut body: Outgoing) -> Result<Answered, Error> {
        let expects = expects_continue(&head.headers);
        self.mirror(&head, &body).await;
        let mut head = Some(head);
        loop {
            self.made += 1;
            let last = self.made > self.forward.retry.attempts;
            let Some(parts) = (if last { head.take() } else { head.clone() }) else {
                return Err(ExchangeError::Reset.into());
            };
            let method = parts.method.clone();
            let mut request = Request::from_parts(parts, ());
            let gate = expects.then(|| Gate::before(&mut request));
            let Some(outgoing) = body.attempt(gate) else {
                return Err(ExchangeError::Reset.into());
            };
            let result = self.once(request.map(|()| outgoing)).await;
            let again = match &result {
                Ok(answered) => {
                    let headers = answered.response.headers();
                    let status = retry::effective_status(answered.response.status(), headers);
                    retry::wanted(&self.forward.retry, &method, Outcome::Answered(status))
                        || failed_behind(answered).is_some_and(|error| {
                            retry::wanted(&self.forward.retry, &method, Outcome::Failed(&error))
                        })
                }
                Err(error) => retry::wanted(&self.forward.retry, &method, Outcome::Failed(error)),
            };
            if !again {
                return result;
            }
            if last || !self.may_retry(&body) {
                if last {
                    self.backend.metrics.retry("exhausted");
                }
                return result;
            }
            drop(result);
            let wait = retry::backoff(&self.forward.retry, self.made, fastrand::u64(..));
            tokio::time::sleep(wait).await;
        }
    }

    /// Do the body and the budget allow one more?
    fn may_retry(&mut self, body: &Outgoing) -> bool {
        let metrics = &self.backend.metrics;
        if !body.can_replay() {
            metrics.retry("body");
            return false;
        }
        // A request that is retried already keeps its place.
        if self.retrying.is_none() {
            self.retrying = self.backend.limits.retry(&self.cluster.policy.retry_budget);
        }
        let allowed = self.retrying.is_some();
        metrics.retry(if allowed { "retried" } else { "budget" });
        allowed
    }

    /// One attempt, within its own time.
    async fn once(&mut self, request: Request<Body>) -> Result<Answered, Error> {
        let mut in_flight = self.backend.pick(self.cluster, &self.tried)?;
        let sending = exchange(
            self.backend,
            self.cluster,
            &in_flight,
            request,
            self.version,
            self.worker,
        );
        let sent = match self.forward.retry.per_try_timeout.filter(|t| !t.is_zero()) {
            None => sending.await,
            Some(limit) => tokio::time::timeout(limit, sending)
                .await
                .unwrap_or(Err(Failed {
                    error: ExchangeError::TryTimeout.into(),
                    reused: false,
                })),
        };
        let metrics = &self.backend.metrics;
        match sent {
            Ok((response, lease)) => {
                let status = retry::effective_status(response.status(), response.headers());
                if status < 500 {
                    in_flight.answered();
                    metrics.attempted("success");
                } else {
                    in_flight.failed(true);
                    metrics.attempted("server_error");
                    self.tried.push(in_flight.endpoint.address);
                }
                Ok(Answered {
                    response,
                    lease,
                    in_flight,
                })
            }
            Err(Failed { error, reused }) => {
                metrics.attempted(error.verdict().reason);
                let idle_close = reused && error == ExchangeError::Reset.into();
                if !idle_close && !matches!(error, Error::Request(_) | Error::Pick(_)) {
                    in_flight.failed(false);
                    self.tried.push(in_flight.endpoint.address);
                }
                Err(error)
            }
        }
    }

    /// Sends copies, if the rule wants any and the body is short enough.
    async fn mirror(&self, head: &Parts, body: &Outgoing) {
        if self.forward.mirrors.is_empty() {
            return;
        }
        let to = mirror::drawn(&self.forward.mirrors);
        if to.is_empty() {
            return;
        }
        let bytes = match body {
            Outgoing::Empty => Some(bytes::Bytes::new()),
            Outgoing::Once(_) => None,
            Outgoing::Replayable(body) => body.collect().await,
        };
        if let Some(bytes) = bytes {
            mirror::send(to, head, &bytes, self.version, self.worker);
        }
    }
}

/// A sidecar whose application gave no answer answers itself. Whether to try again depends on what happened there, as if
/// the application had been called without it.
fn failed_behind(answered: &Answered) -> Option<Error> {
    answered.in_flight.endpoint.identity.as_ref()?;
    let status = answered.response.headers().get(reply::PROXY_STATUS)?;
    failure_told(status.to_str().ok()?)
}

/// The failure that a sidecar's `Proxy-Status` tells of, as [`reply::error`] writes it; those never retried left out.
fn failure_told(proxy_status: &str) -> Option<Error> {
    let told = proxy_status.strip_prefix("weft; ")?;
    if told.ends_with("; stage=connect") {
        return Some(ConnectError::Refused.into());
    }
    let (_, details) = told.split_once("; details=\"")?;
    match details.split_once(':')?.0 {
        "not_taken" => Some(ExchangeError::NotTaken.into()),
        "reset" => Some(ExchangeError::Reset.into()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::PickError;

    #[test]
    fn a_sidecar_tells_what_happened_behind_it() {
        let refused: Error = ConnectError::Refused.into();
        let (reset, not_taken): (Error, Error) =
            (ExchangeError::Reset.into(), ExchangeError::NotTaken.into());
        for (error, told) in [
            (ConnectError::Timeout.into(), Some(refused.clone())),
            (refused.clone(), Some(refused)),
            (reset.clone(), Some(reset)),
            (not_taken.clone(), Some(not_taken)),
            (ExchangeError::Malformed.into(), None),
            (PickError::NoneReady.into(), None),
        ] {
            for grpc in [false, true] {
                let reply = reply::error(&error, grpc, error.origin());
                let status = reply.headers()[reply::PROXY_STATUS].to_str().unwrap();
                assert_eq!(failure_told(status), told, "{status}");
            }
        }
        assert_eq!(
            failure_told("nginx; details=\"reset: \"; stage=connect"),
            None
        );
    }
}
