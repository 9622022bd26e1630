//! Which routes hold on which port of which service, and for whom.
//!
//! GEP-1294: a route in the service's own namespace (a producer route) holds for everyone; one in another namespace (a consumer route)
//! only for clients in its own, where it stands instead of the producer's. "If multiple routes with different types both bind to the
//! same Service and Port pair, only a single route type should be applied": GRPCRoute, HTTPRoute, TLSRoute, TCPRoute, the first wins.

use std::collections::BTreeMap;

use weft_model::{BackendKey, Mesh, Namespace, Protocol};

use super::Route;
use super::backend::is_core;
use super::fault::Fault;
use super::spec::ParentRef;
use crate::compile::index::{Frontend, Index, ServiceInfo, ServicePort};
use crate::compile::report::Report;
use crate::compile::status::{Condition, ParentStatus, Reason, Status};
use crate::object::{Kind, ObjectKey};
use crate::problem::{Problem, Severity, did_you_mean};

/// All attachments.
#[derive(Default)]
pub(super) struct Attachments {
    pub(super) by_key: BTreeMap<BackendKey, Scopes>,
    /// By route and parent.
    parents: Vec<Parent>,
}

/// The routes of one port, by index.
#[derive(Default)]
pub(super) struct Scopes {
    pub(super) producers: Vec<usize>,
    pub(super) consumers: BTreeMap<Namespace, Vec<usize>>,
}

/// One parent reference that is Weft's business.
struct Parent {
    route: usize,
    index: usize,
    reference: String,
    keys: Vec<BackendKey>,
    refused: Option<(Reason, String)>,
}

/// Why a parent is refused: reason, field below the parent's own path, message, hint.
type Refusal = (Reason, &'static str, String, Option<String>);

/// Does the reference mean a Service of the core group?
pub(super) fn names_service(parent: &ParentRef) -> bool {
    parent.kind.as_deref() == Some("Service") && parent.group.as_deref().is_some_and(is_core)
}

/// What is wrong with the reference before anybody looks for what it names.
pub(super) fn check(parent: &ParentRef, field: &str, faults: &mut Vec<Fault>) {
    if parent.kind.as_deref() == Some("Service") && parent.group.is_none() {
        let reason = "Service is in the core group, but the group of a parent is gateway.networking.k8s.io where nothing is said";
        faults.push(Fault::new(format!("{field}.group"), reason).hint("add group: \"\""));
    }
    if let Some(port) = parent.port.filter(|p| !(1..=65535).contains(p)) {
        faults.push(Fault::new(
            format!("{field}.port"),
            format!("{port} is not a port: expected 1 to 65535"),
        ));
    }
}

impl Attachments {
    /// Attaches every route to the ports that its parents name.
    pub(super) fn of(
        routes: &[Route],
        index: &Index<'_>,
        mesh: &Mesh,
        report: &mut Report,
    ) -> Self {
        let mut all = Self::default();
        for (number, route) in routes.iter().enumerate() {
            for (i, parent) in route
                .parents
                .iter()
                .enumerate()
                .filter(|(_, p)| names_service(p))
            {
                let namespace = parent.namespace.as_deref().unwrap_or(&route.key.namespace);
                let key = ObjectKey::new(namespace, &*parent.name);
                let port = parent
                    .port
                    .map(|p| format!(" port {p}"))
                    .unwrap_or_default();
                let reference = format!("Service {key}{port}");
                let (keys, refused) = match ports(route, parent, &key, index, mesh) {
                    Ok(keys) => (keys, None),
                    Err((reason, field, message, hint)) => {
                        let object = format!("{} {}", route.kind, route.key);
                        let field = format!("spec.parentRefs[{i}]{field}");
                        let problem =
                            Problem::error(route.source.clone(), object, field, message.clone());
                        report.problems.push(problem.maybe_hint(hint));
                        (Vec::new(), Some((reason, message)))
                    }
                };
                for backend in &keys {
                    all.attach(backend, number, route, namespace);
                }
                all.parents.push(Parent {
                    route: number,
                    index: i,
                    reference,
                    keys,
                    refused,
                });
            }
        }
        all.settle(routes, report);
        all
    }

    fn attach(&mut self, key: &BackendKey, number: usize, route: &Route, namespace: &str) {
        let scopes = self.by_key.entry(key.clone()).or_default();
        let list = if route.key.namespace == namespace {
            &mut scopes.producers
        } else if let Ok(consumer) = route.key.namespace.parse() {
            scopes.consumers.entry(consumer).or_default()
        } else {
            return;
        };
        if !list.contains(&number) {
            list.push(number);
        }
    }

    /// Leaves one type of route on each port, and tells the others.
    fn settle(&mut self, routes: &[Route], report: &mut Report) {
        let mut losers = Vec::new();
        for (key, scopes) in &mut self.by_key {
            for list in std::iter::once(&mut scopes.producers).chain(scopes.consumers.values_mut())
            {
                let best = list
                    .iter()
                    .map(|i| type_rank(routes[*i].kind))
                    .min()
                    .unwrap_or_default();
                let winner = list
                    .iter()
                    .find(|i| type_rank(routes[**i].kind) == best)
                    .copied();
                list.retain(|i| {
                    let stays = type_rank(routes[*i].kind) == best;
                    if let (false, Some(winner)) = (stays, winner) {
                        losers.push((*i, key.clone(), winner));
                    }
                    stays
                });
            }
        }
        for (loser, key, winner) in losers {
            let message = format!(
                "{} {} is on the same port, and its kind goes first",
                routes[winner].kind, routes[winner].key
            );
            for parent in self.parents.iter_mut().filter(|p| p.route == loser) {
                parent.keys.retain(|k| *k != key);
                if parent.keys.is_empty() && parent.refused.is_none() {
                    parent.refused = Some((Reason::Conflicted, message.clone()));
                }
            }
            let (object, field) = (
                format!("{} {}", routes[loser].kind, routes[loser].key),
                "spec.parentRefs",
            );
            let problem = Problem::error(
                routes[loser].source.clone(),
                object,
                field,
                format!("on {key}: {message}"),
            );
            report.problems.push(problem.severity(Severity::Warning));
        }
    }

    /// What became of each route.
    pub(super) fn report(self, routes: &[Route], report: &mut Report) {
        let mut parents: BTreeMap<usize, Vec<ParentStatus>> = BTreeMap::new();
        for parent in self.parents {
            let accepted = match parent.refused {
                Some((reason, message)) => Condition::refused(reason, message),
                None => Condition::accepted(),
            };
            let resolved = Condition::resolved(routes[parent.route].unresolved.clone());
            parents.entry(parent.route).or_default().push(ParentStatus {
                index: parent.index,
                reference: parent.reference,
                conditions: vec![accepted, resolved],
                keys: parent.keys,
            });
        }
        for (number, parents) in parents {
            let route = &routes[number];
            let object = route.meta.origin.clone();
            report.statuses.push(Status {
                object,
                generation: route.generation,
                parents,
            });
        }
    }
}

fn type_rank(kind: Kind) -> u8 {
    match kind {
        Kind::GrpcRoute => 0,
        Kind::HttpRoute => 1,
        Kind::TlsRoute => 2,
        _ => 3,
    }
}

/// The ports that a parent means.
fn ports(
    route: &Route,
    parent: &ParentRef,
    key: &ObjectKey,
    index: &Index<'_>,
    mesh: &Mesh,
) -> Result<Vec<BackendKey>, Refusal> {
    let Some(service) = index.services.get(key) else {
        let near = index
            .services
            .keys()
            .filter(|k| k.namespace == key.namespace)
            .map(|k| k.name.as_str());
        let hint = did_you_mean(&key.name, near);
        return Err((
            Reason::NoMatchingParent,
            ".name",
            format!("there is no Service {key}"),
            hint,
        ));
    };
    let stream = matches!(route.kind, Kind::TlsRoute | Kind::TcpRoute);
    if stream && route.key.namespace != key.namespace {
        let message = format!(
            "a {} holds for everyone, so it has to be in the namespace of its Service",
            route.kind
        );
        return Err((Reason::UnsupportedValue, ".namespace", message, None));
    }
    if !matches!(service.frontend, Frontend::ClusterIp(_)) {
        let message = format!(
            "Service {key} has no address of its own that a route could be about (headless or ExternalName)"
        );
        return Err((Reason::UnsupportedValue, "", message, None));
    }
    let named = named_ports(service, parent, key)?;
    let keys = named
        .iter()
        .map(|p| BackendKey::service(service.namespace.clone(), service.name.clone(), p.port));
    let protocol = |key: &BackendKey| {
        mesh.clusters
            .get(key)
            .map_or(Protocol::Detect, |c| c.protocol)
    };
    let (fit, unfit): (Vec<_>, Vec<_>) = keys.partition(|key| fits(route.kind, protocol(key)));
    match (fit.is_empty(), unfit.first()) {
        (true, Some(key)) => {
            let message = format!(
                "{key} speaks {}, which a {} cannot route",
                protocol(key),
                route.kind
            );
            let hint = "see appProtocol and the name of the Service's port";
            Err((Reason::UnsupportedValue, "", message, Some(hint.into())))
        }
        _ => Ok(fit),
    }
}

/// The service's ports that the reference names: by number, by name, or all.
fn named_ports<'s, 'a>(
    service: &'s ServiceInfo<'a>,
    parent: &ParentRef,
    key: &ObjectKey,
) -> Result<Vec<&'s ServicePort<'a>>, Refusal> {
    let named: Vec<&'s ServicePort<'a>> = service
        .ports
        .iter()
        .filter(|p| parent.port.is_none_or(|port| i64::from(p.port) == port))
        .filter(|p| {
            parent
                .section_name
                .as_deref()
                .is_none_or(|name| p.name == Some(name))
        })
        .collect();
    if named.is_empty() {
        let ports: Vec<String> = service.ports.iter().map(|p| p.port.to_string()).collect();
        let field = if parent.port.is_some() {
            ".port"
        } else {
            ".sectionName"
        };
        let message = format!("Service {key} has no such TCP port");
        return Err((
            Reason::NoMatchingParent,
            field,
            message,
            Some(format!("it has {}", ports.join(", "))),
        ));
    }
    Ok(named)
}

/// Can this kind of route say something about a port of this protocol? TCP underlies them all.
fn fits(kind: Kind, protocol: Protocol) -> bool {
    match (kind, protocol) {
        (_, Protocol::Detect) | (Kind::TcpRoute, _) => true,
        (Kind::TlsRoute, protocol) => protocol == Protocol::Tls || protocol == Protocol::Tcp,
        (_, protocol) => protocol.is_http(),
    }
}
