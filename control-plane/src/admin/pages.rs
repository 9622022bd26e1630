//! The answers of the admin port, each from one snapshot of the state that it shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use weft_model::{Namespace, UnixMillis, WorkloadKey};
use weft_xds::TypeUrl;
use weft_xds::server::{ClientStatus, Clients, Nack, ResourceStatus, TypeStatus};

use super::Page;
use crate::ca::Authority;
use crate::clock::Rfc3339;
use crate::compile::InForce;
use crate::metrics::Metrics;
use crate::problems::Problems;

const PATHS: &str = "/healthz, /readyz, /metrics, /status, /clients, /view, /roots, /lag";

/// Everything that the pages show.
#[derive(Clone)]
pub struct Pages {
    /// What is served.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// To whom.
    pub clients: Clients,
    /// The roots.
    pub authority: watch::Receiver<Arc<Authority>>,
    /// Faults of the control plane's own inputs.
    pub problems: Problems,
    /// The registry.
    pub metrics: Metrics,
    /// Set when the TLS port is open, unset when it closes.
    pub ready: watch::Receiver<bool>,
}

impl Pages {
    /// The page of a path, or an error that lists the paths.
    pub fn get(&self, path: &str, query: &str) -> Page {
        match path {
            "/healthz" => self.health(),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            "/status" => self.status(),
            "/clients" => Page::json(&self.clients.list()),
            "/view" => self.view(query),
            "/roots" => Page {
                status: StatusCode::OK,
                content_type: "application/x-pem-file",
                body: self.authority.borrow().bundle_pem().to_owned().into(),
            },
            "/lag" => Page::json(&lag(&self.clients.list(), SystemTime::now())),
            _ => Page::error(
                StatusCode::NOT_FOUND,
                format!("no such page; there are {PATHS}"),
            ),
        }
    }

    /// Unhealthy only when a restart would help: the compile loop is gone.
    fn health(&self) -> Page {
        if self.in_force.has_changed().is_err() {
            return Page::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the compile loop has ended\n",
            );
        }
        Page::text(StatusCode::OK, "ok\n")
    }

    fn ready(&self) -> Page {
        if *self.ready.borrow() {
            Page::text(StatusCode::OK, "ready\n")
        } else {
            Page::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the TLS port is not open\n",
            )
        }
    }

    fn metrics(&self) -> Page {
        self.metrics.clients(&self.clients.list());
        Page {
            status: StatusCode::OK,
            content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
            body: self.metrics.text().into(),
        }
    }

    fn status(&self) -> Page {
        let current = self.in_force.borrow().clone();
        let authority = self.authority.borrow().clone();
        Page::json(&json!({
            "version": current.snapshot.version(),
            "sourceVersion": current.observed.version,
            "publishedAt": current.published_at,
            "compileMillis": current.took.as_secs_f64() * 1000.0,
            "ready": *self.ready.borrow(),
            "objects": current.observed.objects.counts(),
            "problems": current.problems(),
            "facilities": self.problems.list(),
            "statuses": current.compiled.statuses,
            "authority": {
                "notAfter": Rfc3339(authority.not_after()).to_string(),
                "roots": authority.roots().len(),
            },
        }))
    }

    fn view(&self, query: &str) -> Page {
        let asked = match ViewQuery::parse(query) {
            Ok(asked) => asked,
            Err(message) => return Page::error(StatusCode::BAD_REQUEST, message),
        };
        let current = self.in_force.borrow().clone();
        let mesh = &current.compiled.mesh;
        if let Some(workload) = asked
            .workload
            .as_ref()
            .filter(|w| !mesh.workloads.contains_key(w))
        {
            return Page::error(
                StatusCode::NOT_FOUND,
                format!("{workload} is not a workload of the mesh"),
            );
        }
        let namespace = asked.namespace.or(asked.workload.map(|w| w.namespace));
        Page::json(&mesh.view(namespace.as_ref()))
    }
}

/// `namespace=NS` or `workload=NS/POD`; a workload brings its namespace.
#[derive(Debug, Default, PartialEq, Eq)]
struct ViewQuery {
    namespace: Option<Namespace>,
    workload: Option<WorkloadKey>,
}

impl ViewQuery {
    /// Names need no percent-encoding but for the slash, which is accepted both ways.
    fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace("%2F", "/").replace("%2f", "/");
            match key {
                "namespace" => {
                    parsed.namespace = Some(value.parse().map_err(|e| format!("namespace: {e}"))?);
                }
                "workload" => {
                    parsed.workload = Some(value.parse().map_err(|e| format!("workload: {e}"))?);
                }
                other => {
                    return Err(format!(
                        "{other:?} is not a parameter; use namespace=NS or workload=NS/POD"
                    ));
                }
            }
        }
        match (&parsed.namespace, &parsed.workload) {
            (Some(n), Some(w)) if *n != w.namespace => {
                Err(format!("the workload {w} is not in the namespace {n}"))
            }
            _ => Ok(parsed),
        }
    }
}

/// How a client stands, in `/lag`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lag {
    id: String,
    workload: Option<WorkloadKey>,
    kind: weft_xds::convert::Flavour,
    types: BTreeMap<TypeUrl, TypeLag>,
}

/// How it stands with one type.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TypeLag {
    version_sent: u64,
    version_acked: u64,
    /// Resources that it has not acknowledged as they are now, with how long ago each changed.
    pending: Vec<PendingResource>,
    /// From a resource's change to its acknowledgement, for the resource that changed last.
    last_convergence_millis: Option<u64>,
    nack: Option<Nack>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PendingResource {
    name: String,
    age_millis: u64,
}

fn lag(clients: &[ClientStatus], now: SystemTime) -> Vec<Lag> {
    let of_client = |client: &ClientStatus| Lag {
        id: client.id.clone(),
        workload: client.workload.clone(),
        kind: client.kind,
        types: client
            .types
            .iter()
            .map(|(kind, status)| (*kind, type_lag(status, now)))
            .collect(),
    };
    clients.iter().map(of_client).collect()
}

fn type_lag(status: &TypeStatus, now: SystemTime) -> TypeLag {
    let pending = status
        .resources
        .iter()
        .filter(|(_, r)| r.version_acked != r.version_sent);
    let newest = status
        .resources
        .values()
        .filter(|r| r.acked_at.0 > 0)
        .max_by_key(|r| r.changed_at);
    TypeLag {
        version_sent: status.version_sent,
        version_acked: status.version_acked,
        pending: pending
            .map(|(name, r)| PendingResource {
                name: name.clone(),
                age_millis: age(r, now),
            })
            .collect(),
        last_convergence_millis: newest
            .filter(|r| r.changed_at.0 > 0)
            .map(|r| r.acked_at.0.saturating_sub(r.changed_at.0)),
        nack: status.nack.clone(),
    }
}

/// Since the change of its source, or since it was sent where that is not known.
fn age(resource: &ResourceStatus, now: SystemTime) -> u64 {
    let since = if resource.changed_at == UnixMillis(0) {
        resource.sent_at
    } else {
        resource.changed_at
    };
    u64::try_from(since.age(now).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_checked() {
        assert_eq!(ViewQuery::parse("").unwrap(), ViewQuery::default());
        let both = ViewQuery::parse("namespace=shop&workload=shop%2Fweb-0").unwrap();
        assert_eq!(both.workload.unwrap().to_string(), "shop/web-0");
        for (bad, expected) in [
            (
                "namespace=Shop",
                "namespace: \"Shop\" is not a valid namespace",
            ),
            ("workload=web", "expected <namespace>/<pod>"),
            ("pod=web", "is not a parameter"),
            ("namespace=a&workload=b/c", "is not in the namespace"),
        ] {
            let error = ViewQuery::parse(bad).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn lag_names_what_is_owed() {
        let resource = |changed: u64, acked: Option<&str>| ResourceStatus {
            version_sent: Some("b".into()),
            version_acked: acked.map(Into::into),
            changed_at: UnixMillis(changed),
            sent_at: UnixMillis(changed + 3),
            acked_at: UnixMillis(if acked.is_some() { changed + 8 } else { 0 }),
        };
        let status = TypeStatus {
            resources: [
                ("new".to_owned(), resource(1000, None)),
                ("late".to_owned(), resource(900, Some("a"))),
                ("done".to_owned(), resource(990, Some("b"))),
            ]
            .into(),
            ..TypeStatus::default()
        };
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1500);
        let lag = type_lag(&status, now);
        let pending: Vec<_> = lag
            .pending
            .iter()
            .map(|p| (p.name.as_str(), p.age_millis))
            .collect();
        assert_eq!(pending, [("late", 600), ("new", 500)]);
        assert_eq!(lag.last_convergence_millis, Some(8));
    }
}
