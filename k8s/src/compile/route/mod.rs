//! Gateway API routes with a Service as parent (GAMMA, GEP-1294): attached, ordered, written over what services do by themselves.
//!
//! [`spec`] is their one shape; [`http`] and [`stream`] read them, with [`rule`] and [`filter`] for what needs no other object and
//! [`backend`] for what does; [`attach`] says which routes
//! hold on which port and for whom. Here the tables are put together.

mod attach;
mod backend;
mod fault;
mod filter;
mod http;
mod notes;
mod rule;
mod spec;
mod stream;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Resource;
use weft_model::route::Precedence;
use weft_model::{
    BackendKey, HostnameMatch, HttpRoutes, HttpRule, Mesh, Meta, Namespace, Scoped, UnixMillis,
    VirtualHost,
};

use self::attach::Attachments;
use self::backend::Resolver;
pub(crate) use self::fault::Fault;
use self::spec::{ParentRef, RouteSpec};
use super::index::Index;
use super::report::Report;
use super::status::Reason;
use crate::object::{AnyObject, Kind, ObjectKey, Stored};
use crate::problem::Location;

/// A route of any kind, as far as all kinds are alike.
struct Route {
    kind: Kind,
    key: ObjectKey,
    source: Location,
    meta: Meta,
    created: UnixMillis,
    generation: i64,
    parents: Vec<ParentRef>,
    content: Content,
    /// The first reference that leads nowhere.
    unresolved: Option<(Reason, String)>,
}

/// What differs by kind.
enum Content {
    Http(Vec<(Precedence, HttpRule)>),
    Stream(stream::Rules),
}

/// Attaches all routes and changes the mesh accordingly.
pub(super) fn compile(index: &Index<'_>, mesh: &mut Mesh, report: &mut Report) {
    let resolver = Resolver::new(index);
    let objects = index.objects;
    let mut routes = Vec::new();
    routes.extend(
        objects
            .http_routes
            .values()
            .map(|r| http::read(Kind::HttpRoute, r, &r.object.spec, &resolver, report)),
    );
    routes.extend(
        objects
            .grpc_routes
            .values()
            .map(|r| http::read(Kind::GrpcRoute, r, &r.object.spec, &resolver, report)),
    );
    routes.extend(
        objects
            .tls_routes
            .values()
            .map(|r| stream::read(Kind::TlsRoute, r, &r.object.spec, &resolver, report)),
    );
    routes.extend(
        objects
            .tcp_routes
            .values()
            .map(|r| stream::read(Kind::TcpRoute, r, &r.object.spec, &resolver, report)),
    );
    let attachments = Attachments::of(&routes, index, mesh, report);
    for (key, scopes) in &attachments.by_key {
        let producers: Vec<&Route> = scopes.producers.iter().map(|i| &routes[*i]).collect();
        let streams: Vec<(&Route, &stream::Rules)> = producers
            .iter()
            .filter_map(|r| match &r.content {
                Content::Stream(rules) => Some((*r, rules)),
                Content::Http(_) => None,
            })
            .collect();
        if streams.is_empty() {
            tables(
                key,
                &producers,
                scopes
                    .consumers
                    .iter()
                    .map(|(n, all)| (n, all.iter().map(|i| &routes[*i]))),
                mesh,
            );
        } else {
            stream::apply(key, &streams, mesh);
        }
    }
    attachments.report(&routes, report);
}

/// The route tables of a port: the producer's for everyone, and the consumers' instead for their own namespaces.
fn tables<'r, C: Iterator<Item = &'r Route>>(
    key: &BackendKey,
    producers: &[&Route],
    consumers: impl Iterator<Item = (&'r Namespace, C)>,
    mesh: &mut Mesh,
) {
    let Some(direct) = mesh.routes.get(key).map(|scoped| scoped.any.clone()) else {
        return;
    };
    let any = if producers.is_empty() {
        direct.clone()
    } else {
        table(key, &direct.meta, producers)
    };
    let by_namespace: BTreeMap<Namespace, Arc<HttpRoutes>> = consumers
        .map(|(namespace, routes)| {
            (
                namespace.clone(),
                table(key, &direct.meta, &routes.collect::<Vec<_>>()),
            )
        })
        .collect();
    mesh.routes
        .insert(key.clone(), Scoped { any, by_namespace });
}

fn table(key: &BackendKey, service: &Meta, routes: &[&Route]) -> Arc<HttpRoutes> {
    let mut rules: Vec<&(Precedence, HttpRule)> = Vec::new();
    let mut meta = service.clone();
    for route in routes {
        meta.changed_at = meta.changed_at.max(route.meta.changed_at);
        if let Content::Http(own) = &route.content {
            rules.extend(own);
        }
    }
    rules.sort_by(|a, b| a.0.cmp(&b.0));
    let rules = rules.into_iter().map(|(_, rule)| rule.clone()).collect();
    let host = VirtualHost {
        hostnames: vec![HostnameMatch::Any],
        rules,
    };
    Arc::new(HttpRoutes {
        key: key.clone(),
        hosts: vec![host],
        meta,
    })
}

/// What a route has besides its rules.
fn route<T: Resource<DynamicType = ()>>(
    kind: Kind,
    stored: &Stored<T>,
    parents: Vec<ParentRef>,
    content: Content,
    unresolved: Option<(Reason, String)>,
) -> Route {
    Route {
        kind,
        key: stored.key(),
        source: stored.source.clone(),
        meta: stored.to_meta(),
        created: stored.created(),
        generation: stored.metadata().generation.unwrap_or(0),
        parents,
        content,
        unresolved,
    }
}

/// What is wrong inside a route, whatever else there is; other objects have nothing of the kind.
pub(crate) fn faults(object: &AnyObject) -> Vec<Fault> {
    let mut found = Vec::new();
    let of_rules = |spec: RouteSpec, grpc: bool, found: &mut Vec<Fault>| {
        for (i, parent) in spec.parent_refs.iter().enumerate() {
            attach::check(parent, &format!("spec.parentRefs[{i}]"), found);
        }
        for (i, rule) in spec.rules.iter().enumerate() {
            rule::draft(rule, grpc, &format!("spec.rules[{i}]"), found);
        }
    };
    match object {
        AnyObject::HttpRoute(o) => of_rules(spec::read(&o.object.spec), false, &mut found),
        AnyObject::GrpcRoute(o) => of_rules(spec::read(&o.object.spec), true, &mut found),
        AnyObject::TlsRoute(o) => stream::faults(&o.object.spec, &mut found),
        AnyObject::TcpRoute(o) => stream::faults(&o.object.spec, &mut found),
        _ => {}
    }
    found.retain(|fault| !fault.unsupported);
    found
}
