//! TLSRoute and TCPRoute: connections that are forwarded as they are.

use std::cmp::Reverse;
use std::sync::Arc;

use kube::Resource;
use serde::{Deserialize, Serialize};
use weft_model::route::{HeaderEdits, WeightedBackend};
use weft_model::{BackendKey, Cluster, HostnameMatch, Mesh, Meta, Protocol, SniRoute};

use super::attach;
use super::backend::Resolver;
use super::fault::{Fault, check_backend};
use super::notes::Notes;
use super::spec::{self, BackendRef, ParentRef};
use super::{Content, Route, route};
use crate::compile::report::Report;
use crate::object::{Kind, Stored};
use crate::problem::Severity;

/// `spec` of both kinds.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StreamSpec {
    parent_refs: Vec<ParentRef>,
    hostnames: Vec<String>,
    rules: Vec<StreamRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StreamRule {
    name: Option<String>,
    backend_refs: Vec<BackendRef>,
}

/// The rules of one route.
pub(super) struct Rules {
    /// Empty: any connection.
    names: Vec<HostnameMatch>,
    /// Only the first is ever reached; a route has just one.
    rules: Vec<(Vec<WeightedBackend>, Meta)>,
}

/// Reads a TLSRoute or TCPRoute.
pub(super) fn read<T: Resource<DynamicType = ()>>(
    kind: Kind,
    stored: &Stored<T>,
    spec: &impl Serialize,
    resolver: &Resolver<'_>,
    report: &mut Report,
) -> Route {
    let spec: StreamSpec = spec::read(spec);
    let (key, meta) = (stored.key(), stored.to_meta());
    let mut notes = Notes {
        source: &stored.source,
        object: format!("{kind} {key}"),
        report,
        unresolved: None,
    };
    let mut faults = Vec::new();
    let names = names(&spec, &mut faults);
    let mut rules = Vec::new();
    for (index, rule) in spec.rules.iter().enumerate() {
        let mut backends = Vec::new();
        for (i, reference) in rule.backend_refs.iter().enumerate() {
            let field = format!("spec.rules[{index}].backendRefs[{i}]");
            check_backend(reference, &field, &mut faults);
            backends.push(WeightedBackend {
                backend: resolver
                    .backend(kind, &key, reference)
                    .map_err(|why| notes.unresolved(&field, why))
                    .ok(),
                weight: reference
                    .weight
                    .map_or(1, |w| u32::try_from(w).unwrap_or(0)),
                request_headers: HeaderEdits::default(),
                response_headers: HeaderEdits::default(),
            });
        }
        let origin = meta
            .origin
            .rule(rule.name.clone().unwrap_or_else(|| index.to_string()));
        rules.push((
            backends,
            Meta {
                origin,
                changed_at: meta.changed_at,
            },
        ));
    }
    for fault in faults {
        notes.note(Severity::Error, fault.field, fault.reason, fault.hint);
    }
    let unresolved = notes.unresolved.take();
    route(
        kind,
        stored,
        spec.parent_refs,
        Content::Stream(Rules { names, rules }),
        unresolved,
    )
}

fn names(spec: &StreamSpec, faults: &mut Vec<Fault>) -> Vec<HostnameMatch> {
    let mut names = Vec::new();
    for (i, name) in spec.hostnames.iter().enumerate() {
        match name.to_ascii_lowercase().parse() {
            Ok(name) => names.push(name),
            Err(error) => faults.push(Fault::new(format!("spec.hostnames[{i}]"), error)),
        }
    }
    names
}

/// What is wrong inside such a route.
pub(super) fn faults(spec: &impl Serialize, found: &mut Vec<Fault>) {
    let spec: StreamSpec = spec::read(spec);
    names(&spec, found);
    for (i, parent) in spec.parent_refs.iter().enumerate() {
        attach::check(parent, &format!("spec.parentRefs[{i}]"), found);
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        for (i, reference) in rule.backend_refs.iter().enumerate() {
            check_backend(
                reference,
                &format!("spec.rules[{index}].backendRefs[{i}]"),
                found,
            );
        }
    }
}

/// Writes the routes of one port over its destinations: "you are replacing that implicit logic - not adding to it" (GEP-1294).
///
/// The most specific name goes first, then the oldest route, then the first by name.
pub(super) fn apply(key: &BackendKey, routes: &[(&Route, &Rules)], mesh: &mut Mesh) {
    let mut sni = Vec::new();
    let mut protocol = Protocol::Tcp;
    for (route, rules) in routes {
        if route.kind == Kind::TlsRoute {
            protocol = Protocol::Tls;
        }
        let Some((backends, meta)) = rules.rules.first() else {
            continue;
        };
        let each: Vec<Option<&HostnameMatch>> = if rules.names.is_empty() {
            vec![None]
        } else {
            rules.names.iter().map(Some).collect()
        };
        for name in each {
            let rank = (
                Reverse(name.map(HostnameMatch::rank)),
                route.created,
                route.key.clone(),
            );
            let names = name
                .into_iter()
                .filter(|n| **n != HostnameMatch::Any)
                .cloned()
                .collect();
            sni.push((
                rank,
                SniRoute {
                    names,
                    backends: backends.clone(),
                    meta: meta.clone(),
                },
            ));
        }
    }
    sni.sort_by(|a, b| a.0.cmp(&b.0));
    let sni: Vec<SniRoute> = sni.into_iter().map(|(_, route)| route).collect();
    for destination in mesh.destinations.values_mut().filter(|d| d.key == *key) {
        let changed = Arc::make_mut(destination);
        changed.protocol = protocol;
        changed.sni.clone_from(&sni);
        for route in &sni {
            changed.meta.changed_at = changed.meta.changed_at.max(route.meta.changed_at);
        }
    }
    if let Some(cluster) = mesh.clusters.get_mut(key) {
        *cluster = Arc::new(Cluster {
            protocol,
            ..(**cluster).clone()
        });
    }
    mesh.routes.remove(key);
}
