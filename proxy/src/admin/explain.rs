//! Why does traffic go where it goes? The data path's own decisions over this proxy's own resources, recorded.
//!
//! Called by [`super::control`] for `/explain`. What is not known yet is asked for, exactly as traffic would ask. The steps have
//! the form of `weft explain`, which decides by the same code over the control plane's view; here it is what this proxy
//! really has, so the two differ when an update is under way.

pub mod request;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use weft_model::decide::outbound::{self, HttpStep, RequestView};
use weft_model::decide::{Recorder, Refusal, Step, Verdict, transform};
use weft_model::route::WeightedBackend;
use weft_model::{BackendKey, Destination, Health, Hostname, HttpRoutes, Origin};
use weft_xds::client::{Client, Known};

pub use request::{ExplainError, Request, parameters};

use super::Running;
use crate::config::{Config, OutboundPolicy};

/// How long the control plane may take for what is not known yet.
const PATIENCE: Duration = Duration::from_secs(2);

/// A step with the stage of the connection's way that it belongs to: `name`, `destination`, `route`, `backend`, `endpoint`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    stage: &'static str,
    #[serde(flatten)]
    step: Step,
}

/// How it ends.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Outcome {
    /// Traffic goes to one of these backends.
    Forward {
        /// With their weights.
        backends: Vec<Share>,
    },
    /// The proxy answers a redirect.
    Redirect {
        /// 301 to 308.
        status: u16,
        /// The `Location` header.
        location: String,
    },
    /// Not of the mesh: it goes there untouched.
    Passthrough,
    /// Not of the mesh, and the outbound policy denies others.
    Denied,
    /// A route or policy says no.
    Refused {
        /// Always `outbound`: this is the caller's side.
        side: &'static str,
        /// Why, and by what.
        #[serde(flatten)]
        refusal: Refusal,
    },
}

/// A backend's share of the traffic.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    backend: Option<BackendKey>,
    weight: u32,
}

/// The whole answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    from: String,
    to: String,
    address: SocketAddr,
    steps: Vec<Stage>,
    result: Outcome,
}

#[derive(Default)]
struct Steps(Vec<Stage>);

impl Steps {
    fn say(&mut self, stage: &'static str, origin: &Origin, verdict: Verdict, detail: String) {
        let origin = origin.clone();
        let step = Step {
            origin,
            verdict,
            detail,
        };
        self.0.push(Stage { stage, step });
    }

    fn record(&mut self, stage: &'static str, recorder: Recorder) {
        self.0
            .extend(recorder.steps.into_iter().map(|step| Stage { stage, step }));
    }
}

/// Walks the way of a connection or request, up to the endpoints.
pub async fn explain(
    running: &Running,
    config: &Config,
    request: &Request,
) -> Result<Explanation, ExplainError> {
    let mut steps = Steps::default();
    let client = &running.client;
    let address = resolve(client, config, request, &mut steps).await?;
    let deadline = Instant::now() + PATIENCE;
    let result = match client.destination(address).ready(deadline).await {
        Known::Pending => return Err(ExplainError::Pending(request.destination.clone())),
        Known::Absent => {
            let detail = format!("{address} is not an address of the mesh");
            let (verdict, outcome) = match config.outbound_policy {
                OutboundPolicy::Allow => (Verdict::Passed, Outcome::Passthrough),
                OutboundPolicy::Deny => (Verdict::Refused, Outcome::Denied),
            };
            steps.say(
                "destination",
                &Origin::default_of("outbound-policy"),
                verdict,
                detail,
            );
            outcome
        }
        Known::Present(destination) => {
            let detail = format!(
                "{address} is {}, protocol {}",
                destination.key,
                destination.protocol.as_str()
            );
            steps.say(
                "destination",
                &destination.meta.origin,
                Verdict::Matched,
                detail,
            );
            decide(client, &destination, request, &mut steps).await?
        }
    };
    Ok(Explanation {
        from: config.workload().to_string(),
        to: request.destination.clone(),
        address,
        steps: steps.0,
        result,
    })
}

/// The address that an application would dial: names as its resolver expands them.
async fn resolve(
    client: &Client,
    config: &Config,
    request: &Request,
    steps: &mut Steps,
) -> Result<SocketAddr, ExplainError> {
    if let Ok(address) = request.destination.parse() {
        return Ok(address);
    }
    let (host, port) = request
        .split()
        .ok_or_else(|| ExplainError::Destination(request.destination.clone()))?;
    let (host, domain, namespace) = (
        host.trim_end_matches('.'),
        &config.cluster_domain,
        &config.pod.namespace,
    );
    let expanded = [
        host.to_owned(),
        format!("{host}.{namespace}.svc.{domain}"),
        format!("{host}.svc.{domain}"),
        format!("{host}.{domain}"),
    ];
    let ends = format!(".svc.{domain}");
    for name in expanded.iter().filter(|n| n.ends_with(&ends)) {
        let Ok(hostname) = name.to_ascii_lowercase().parse::<Hostname>() else {
            continue;
        };
        let watch = client.name(&hostname);
        let Known::Present(record) = watch.ready(Instant::now() + PATIENCE).await else {
            continue;
        };
        let Some(ip) = record.addresses.first() else {
            continue;
        };
        let detail = format!("{hostname} is {ip}");
        steps.say("name", &record.meta.origin, Verdict::Matched, detail);
        return Ok(SocketAddr::new(*ip, port));
    }
    Err(ExplainError::Name(host.to_owned()))
}

async fn decide(
    client: &Client,
    destination: &Arc<Destination>,
    request: &Request,
    steps: &mut Steps,
) -> Result<Outcome, ExplainError> {
    if !matches!(
        destination.protocol,
        weft_model::Protocol::Tcp | weft_model::Protocol::Tls
    ) {
        match client
            .routes(&destination.key)
            .ready(Instant::now() + PATIENCE)
            .await
        {
            Known::Present(routes) => {
                return http(client, destination, &routes, request, steps).await;
            }
            Known::Pending => {
                return Err(ExplainError::Pending(format!(
                    "the routes of {}",
                    destination.key
                )));
            }
            Known::Absent => {}
        }
    }
    // The name in a TLS hello is the host that was dialled by name.
    let host = request.split().map(|(host, _)| host);
    let server_name =
        host.filter(|h| h.parse::<std::net::IpAddr>().is_err() && !h.starts_with('['));
    let mut recorder = Recorder::default();
    let route = outbound::connection(destination, server_name, &mut recorder);
    steps.record("route", recorder);
    Ok(match route {
        Ok(route) => backends(client, &route.backends, &route.meta.origin, steps).await,
        Err(refusal) => refused(refusal),
    })
}

async fn http(
    client: &Client,
    destination: &Destination,
    routes: &HttpRoutes,
    request: &Request,
    steps: &mut Steps,
) -> Result<Outcome, ExplainError> {
    let host = request
        .headers
        .get(http::header::HOST)
        .and_then(|h| h.to_str().ok());
    let authority = host.unwrap_or(&request.destination);
    let (path, query) = match request.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.path.as_str(), None),
    };
    let view = RequestView {
        method: &request.method,
        authority,
        path,
        query,
        headers: &request.headers,
    };
    let mut recorder = Recorder::default();
    let plan = outbound::http(routes, &view, &mut recorder);
    steps.record("route", recorder);
    Ok(match plan {
        Err(refusal) => refused(refusal),
        Ok(plan) => match plan.step() {
            HttpStep::Redirect(redirect) => {
                let port = destination.key.port;
                let location =
                    transform::location(plan.rule, redirect, authority, port, path, query);
                let status = redirect.status;
                Outcome::Redirect { status, location }
            }
            HttpStep::Forward(forward) => {
                backends(client, &forward.backends, &plan.rule.meta.origin, steps).await
            }
        },
    })
}

fn refused(refusal: Refusal) -> Outcome {
    let side = "outbound";
    Outcome::Refused { side, refusal }
}

/// Each backend with its share, and its endpoints.
async fn backends(
    client: &Client,
    backends: &[WeightedBackend],
    origin: &Origin,
    steps: &mut Steps,
) -> Outcome {
    for backend in backends.iter().filter(|b| b.weight > 0) {
        let Some(key) = &backend.backend else {
            let detail = "the reference is invalid: answered 500".into();
            steps.say("backend", origin, Verdict::Refused, detail);
            continue;
        };
        match client.endpoints(key).ready(Instant::now() + PATIENCE).await {
            Known::Pending => steps.say(
                "backend",
                origin,
                Verdict::Refused,
                format!("{key}: endpoints not known yet"),
            ),
            Known::Absent => steps.say(
                "backend",
                origin,
                Verdict::Refused,
                format!("{key}: does not exist"),
            ),
            Known::Present(known) => {
                let source = &known.meta.origin;
                let ready = known
                    .endpoints
                    .iter()
                    .filter(|e| e.health == Health::Ready)
                    .count();
                let verdict = if ready > 0 {
                    Verdict::Matched
                } else {
                    Verdict::Refused
                };
                steps.say(
                    "backend",
                    source,
                    verdict,
                    format!("{key}: {ready} ready endpoints"),
                );
                for endpoint in &known.endpoints {
                    let spoken = match &endpoint.identity {
                        Some(identity) => format!("mutual TLS, must be {identity}"),
                        None => "not in the mesh, spoken to in plaintext".into(),
                    };
                    let detail = format!("{} {:?}: {spoken}", endpoint.address, endpoint.health);
                    steps.say("endpoint", source, Verdict::Matched, detail);
                }
            }
        }
    }
    let shares = backends.iter().map(|b| Share {
        backend: b.backend.clone(),
        weight: b.weight,
    });
    Outcome::Forward {
        backends: shares.collect(),
    }
}
