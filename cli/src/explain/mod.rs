//! `weft explain FROM TO`: every step of a decision, by the code that the proxies run.
//!
//! [`crate::target`] finds out what TO means for FROM; this module walks from there: destination, route, backends,
//! endpoints, and what the other side's inbound policy says. [`render`] prints it.

pub(crate) mod render;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::Serialize;
use weft_model::decide::inbound::Peer;
use weft_model::decide::outbound::{HttpStep, RequestView};
use weft_model::decide::{self, Recorder, Refusal, Step, Verdict};
use weft_model::route::WeightedBackend;
use weft_model::{BackendKey, Destination, Endpoint, Health, Namespace, Origin, View, Workload};

use crate::target::{self, To};

use crate::access::Mesh;
use crate::failure::Failure;
use crate::output::Format;

/// The request that is asked about.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: Uri,
    pub(crate) headers: HeaderMap,
}

impl Request {
    /// From the command line; `--path` wins over the path of a URL.
    pub(crate) fn new(
        method: Method,
        to: &str,
        path: Option<&str>,
        headers: &[String],
    ) -> Result<Self, Failure> {
        let (_, _, url_path, _) = target::parse(to)?;
        let path = path.or(url_path.as_deref()).unwrap_or("/");
        let bad_path = || {
            Failure::Value(format!(
                "--path {path:?} is not a path: it begins with /, e.g. /cart?id=1"
            ))
        };
        if !path.starts_with('/') {
            return Err(bad_path());
        }
        let path = path.parse().map_err(|_| bad_path())?;
        let headers = headers
            .iter()
            .map(|text| header(text))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            method,
            path,
            headers,
        })
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    let bad = || {
        Failure::Value(format!(
            "--header {text:?} is not a header: expected NAME: VALUE"
        ))
    };
    let (name, value) = text.split_once(':').ok_or_else(bad)?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| bad())?;
    Ok((name.trim().parse().map_err(|_| bad())?, value))
}

/// The command.
pub(crate) async fn run(
    mesh: &Mesh,
    namespace: &Namespace,
    from: &str,
    to: &str,
    request: &Request,
    format: Format,
) -> Result<(), Failure> {
    let pod = mesh.one_pod(namespace, from)?;
    let view = mesh.view(namespace).await?;
    let workload = view
        .workload(&pod)
        .ok_or_else(|| Failure::NotMeshed(pod.to_string()))?;
    let to = target::resolve(&view, namespace, to)?;
    render::print(format, &explain(&view, workload, &to, request))?;
    Ok(())
}

/// A step with the stage of the connection's way that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stage {
    /// `destination`, `route`, `backend`, `endpoint` or `inbound`.
    pub(crate) stage: &'static str,
    #[serde(flatten)]
    pub(crate) step: Step,
}

/// How it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub(crate) enum Outcome {
    /// Traffic goes to one of these backends.
    #[serde(rename_all = "camelCase")]
    Forward {
        /// With their weights.
        backends: Vec<Share>,
    },
    /// The proxy answers a redirect.
    #[serde(rename_all = "camelCase")]
    Redirect {
        /// 301 to 308.
        status: u16,
        /// The `Location` header.
        location: String,
    },
    /// The address is not of the mesh: it goes there untouched, or is refused, by the pod's outbound policy.
    Passthrough,
    /// It is refused.
    #[serde(rename_all = "camelCase")]
    Refused {
        /// By which side: `outbound` or `inbound`.
        side: &'static str,
        #[serde(flatten)]
        refusal: Refusal,
    },
}

/// A backend's share of the traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Share {
    /// `None`: the reference is invalid, and this share is answered 500.
    pub(crate) backend: Option<BackendKey>,
    pub(crate) weight: u32,
}

/// The whole answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) steps: Vec<Stage>,
    pub(crate) result: Outcome,
}

/// Decides as the sidecar of `from` would.
pub(crate) fn explain(view: &View, from: &Workload, to: &To, request: &Request) -> Explanation {
    let mut steps = Steps::default();
    let result = walk(view, from, to, request, &mut steps);
    Explanation {
        from: from.key.to_string(),
        to: to.to_string(),
        steps: steps.0,
        result,
    }
}

#[derive(Default)]
struct Steps(Vec<Stage>);

impl Steps {
    fn say(&mut self, stage: &'static str, origin: &Origin, verdict: Verdict, detail: String) {
        self.0.push(Stage {
            stage,
            step: Step {
                origin: origin.clone(),
                verdict,
                detail,
            },
        });
    }

    fn record(&mut self, stage: &'static str, recorder: Recorder) {
        self.0
            .extend(recorder.steps.into_iter().map(|step| Stage { stage, step }));
    }
}

fn walk(view: &View, from: &Workload, to: &To, request: &Request, steps: &mut Steps) -> Outcome {
    let Some(destination) = view.destination(&to.listener()) else {
        let detail = format!("{} is not an address of the mesh", to.address);
        steps.say(
            "destination",
            &Origin::default_of("outbound-policy"),
            Verdict::Passed,
            detail,
        );
        return Outcome::Passthrough;
    };
    let detail = format!(
        "{} is {}, protocol {}",
        to.address, destination.key, destination.protocol
    );
    steps.say(
        "destination",
        &destination.meta.origin,
        Verdict::Matched,
        detail,
    );
    match (
        destination.protocol.is_http() || to.speaks_http,
        view.routes(&destination.key),
    ) {
        (true, Some(routes)) => http(view, from, destination, routes, to, request, steps),
        _ => connection(view, from, destination, to, steps),
    }
}

fn http(
    view: &View,
    from: &Workload,
    destination: &Destination,
    routes: &weft_model::HttpRoutes,
    to: &To,
    request: &Request,
    steps: &mut Steps,
) -> Outcome {
    let authority = to.authority();
    let host = request
        .headers
        .get(http::header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or(&authority);
    let uri = &request.path;
    let seen = RequestView {
        method: &request.method,
        authority: host,
        path: uri.path(),
        query: uri.query(),
        headers: &request.headers,
    };
    let mut recorder = Recorder::default();
    let plan = decide::outbound::http(routes, &seen, &mut recorder);
    steps.record("route", recorder);
    let plan = match plan {
        Ok(plan) => plan,
        Err(refusal) => {
            return Outcome::Refused {
                side: "outbound",
                refusal,
            };
        }
    };
    match plan.step() {
        HttpStep::Redirect(redirect) => {
            let port = destination.key.port;
            let location = decide::transform::location(
                plan.rule,
                redirect,
                host,
                port,
                uri.path(),
                uri.query(),
            );
            Outcome::Redirect {
                status: redirect.status,
                location,
            }
        }
        HttpStep::Forward(forward) => {
            backends(view, from, &forward.backends, &plan.rule.meta.origin, steps)
        }
    }
}

fn connection(
    view: &View,
    from: &Workload,
    destination: &Destination,
    to: &To,
    steps: &mut Steps,
) -> Outcome {
    let mut recorder = Recorder::default();
    let route = decide::outbound::connection(destination, to.server_name(), &mut recorder);
    steps.record("route", recorder);
    match route {
        Ok(route) => backends(view, from, &route.backends, &route.meta.origin, steps),
        Err(refusal) => Outcome::Refused {
            side: "outbound",
            refusal,
        },
    }
}

/// Follows every backend to its endpoints and their inbound policies.
fn backends(
    view: &View,
    from: &Workload,
    backends: &[WeightedBackend],
    origin: &Origin,
    steps: &mut Steps,
) -> Outcome {
    let mut refused = None;
    for backend in backends.iter().filter(|b| b.weight > 0) {
        let Some(key) = &backend.backend else {
            steps.say(
                "backend",
                origin,
                Verdict::Refused,
                "the reference is invalid: answered 500".into(),
            );
            continue;
        };
        let endpoints = view.endpoints(key);
        let usable = endpoints.map_or(0, |e| {
            e.endpoints
                .iter()
                .filter(|e| e.health == Health::Ready)
                .count()
        });
        let verdict = if usable > 0 {
            Verdict::Matched
        } else {
            Verdict::Refused
        };
        let source = endpoints.map_or(origin, |e| &e.meta.origin);
        steps.say(
            "backend",
            source,
            verdict,
            format!("{key}: {usable} ready endpoints"),
        );
        for endpoint in endpoints.into_iter().flat_map(|e| &e.endpoints) {
            refused = inbound(view, from, endpoint, source, steps).or(refused);
        }
    }
    match refused {
        Some(refusal) => Outcome::Refused {
            side: "inbound",
            refusal,
        },
        None if backends
            .iter()
            .all(|b| b.weight == 0 || b.backend.is_none()) =>
        {
            let refusal = Refusal {
                reason: decide::Reason::NoBackend,
                origin: origin.clone(),
            };
            Outcome::Refused {
                side: "outbound",
                refusal,
            }
        }
        None => {
            let shares = backends.iter().map(|b| Share {
                backend: b.backend.clone(),
                weight: b.weight,
            });
            Outcome::Forward {
                backends: shares.collect(),
            }
        }
    }
}

/// One endpoint: how it is spoken to, and whether it admits the caller.
fn inbound(
    view: &View,
    from: &Workload,
    endpoint: &Endpoint,
    origin: &Origin,
    steps: &mut Steps,
) -> Option<Refusal> {
    let Some(identity) = &endpoint.identity else {
        let detail = format!(
            "{} {:?}: not in the mesh, spoken to in plaintext",
            endpoint.address, endpoint.health
        );
        steps.say("endpoint", origin, Verdict::Matched, detail);
        return None;
    };
    let detail = format!(
        "{} {:?}: mutual TLS, must be {identity}",
        endpoint.address, endpoint.health
    );
    steps.say("endpoint", origin, Verdict::Matched, detail);
    let workload = endpoint
        .workload
        .as_ref()
        .and_then(|key| view.workload(key))?;
    let mut recorder = Recorder::default();
    let policy = workload.inbound(endpoint.address.port());
    let verdict =
        decide::inbound::connection(&policy, Peer::Authenticated(&from.identity), &mut recorder);
    steps.record("inbound", recorder);
    verdict.err()
}
