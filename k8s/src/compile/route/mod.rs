//! Gateway API routes with a Service as parent (GAMMA, GEP-1294): attached, ordered, written over what services do by themselves.
//!
//! [`spec`] is their one shape, [`rule`] and [`filter`] read a rule, [`backend`] looks its references up, [`attach`] says which routes
//! hold on which port and for whom. Here the tables are put together.

mod attach;
mod backend;
mod filter;
mod rule;
mod spec;
mod stream;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Resource;
use weft_model::route::{Action, Forward, HeaderEdits, Mirror, Precedence, WeightedBackend};
use weft_model::{
    BackendKey, HostnameMatch, HttpRoutes, HttpRule, Mesh, Meta, Namespace, Scoped, UnixMillis,
    VirtualHost,
};

use self::attach::Attachments;
use self::backend::{Resolver, Unresolved};
use self::rule::Draft;
pub(crate) use self::rule::Fault;
use self::spec::{BackendRef, ParentRef, RouteSpec, Rule};
use super::index::Index;
use super::report::Report;
use super::status::Reason;
use crate::object::{AnyObject, Kind, ObjectKey, Stored};
use crate::problem::{Location, Problem, Severity};

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
            .map(|r| http(Kind::HttpRoute, r, &r.object.spec, &resolver, report)),
    );
    routes.extend(
        objects
            .grpc_routes
            .values()
            .map(|r| http(Kind::GrpcRoute, r, &r.object.spec, &resolver, report)),
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

/// Problems of one route on their way to the report.
struct Notes<'n> {
    source: &'n Location,
    object: String,
    report: &'n mut Report,
    unresolved: Option<(Reason, String)>,
}

impl Notes<'_> {
    fn note(&mut self, severity: Severity, field: String, reason: String, hint: Option<String>) {
        let problem = Problem::error(self.source.clone(), self.object.clone(), field, reason);
        self.report
            .problems
            .push(problem.maybe_hint(hint).severity(severity));
    }

    fn unresolved(&mut self, field: &str, why: Unresolved) {
        self.note(
            Severity::Error,
            format!("{field}{}", why.field),
            why.message.clone(),
            why.hint,
        );
        self.unresolved.get_or_insert((why.reason, why.message));
    }
}

/// Reads an HTTPRoute or GRPCRoute.
fn http<T: Resource<DynamicType = ()>>(
    kind: Kind,
    stored: &Stored<T>,
    spec: &impl serde::Serialize,
    resolver: &Resolver<'_>,
    report: &mut Report,
) -> Route {
    let spec: RouteSpec = spec::read(spec);
    let (key, created, meta) = (stored.key(), stored.created(), stored.to_meta());
    let mut notes = Notes {
        source: &stored.source,
        object: format!("{kind} {key}"),
        report,
        unresolved: None,
    };
    if !spec.hostnames.is_empty() && spec.parent_refs.iter().any(attach::names_service) {
        let reason = "host names are ignored on a route whose parent is a Service";
        notes.note(
            Severity::Warning,
            "spec.hostnames".into(),
            reason.into(),
            None,
        );
    }
    let mut compiled = Vec::new();
    for (index, rule) in spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        let mut faults = Vec::new();
        let draft = rule::draft(rule, kind == Kind::GrpcRoute, &field, &mut faults);
        for fault in &faults {
            notes.note(
                Severity::Error,
                fault.field.clone(),
                fault.reason.clone(),
                fault.hint.clone(),
            );
        }
        let rule_meta = Meta {
            origin: meta
                .origin
                .rule(rule.name.clone().unwrap_or_else(|| index.to_string())),
            changed_at: meta.changed_at,
        };
        // "MUST result in an HTTP 500" for filters that cannot be processed; a rule that is wrong in another way is not guessed at.
        let action = if faults.is_empty() {
            action(
                kind, &key, rule, &draft, &field, resolver, &rule_meta, &mut notes,
            )
        } else {
            forward(Vec::new(), Vec::new(), &draft)
        };
        for (position, m) in draft.matches.into_iter().enumerate() {
            let (names, place) = (
                (key.namespace.as_str(), key.name.as_str()),
                (index, position),
            );
            let precedence = match m.grpc {
                Some(named) => Precedence::grpc(named, &m.http, created, names, place),
                None => Precedence::new(&m.http, created, names, place),
            };
            let rule = HttpRule {
                matches: m.http,
                action: action.clone(),
                request_headers: draft.effects.request_headers.clone(),
                response_headers: draft.effects.response_headers.clone(),
                meta: rule_meta.clone(),
            };
            compiled.push((precedence, rule));
        }
    }
    let unresolved = notes.unresolved.take();
    route(
        kind,
        stored,
        spec.parent_refs,
        Content::Http(compiled),
        unresolved,
    )
}

fn forward(backends: Vec<WeightedBackend>, mirrors: Vec<Mirror>, draft: &Draft) -> Action {
    Action::Forward(Forward {
        backends,
        rewrite: draft.effects.rewrite.clone(),
        mirrors,
        request_timeout: draft.request_timeout,
        retry: draft.retry.clone(),
    })
}

#[allow(clippy::too_many_arguments)] // the parts of one rule, each from its own place
fn action(
    kind: Kind,
    key: &ObjectKey,
    rule: &Rule,
    draft: &Draft,
    field: &str,
    resolver: &Resolver<'_>,
    meta: &Meta,
    notes: &mut Notes<'_>,
) -> Action {
    if let Some(redirect) = &draft.effects.redirect {
        return Action::Redirect(redirect.clone());
    }
    if rule.backend_refs.is_empty() {
        let reason = "the rule has no backends: requests that match it are answered 500";
        notes.note(
            Severity::Warning,
            format!("{field}.backendRefs"),
            reason.into(),
            None,
        );
    }
    let mut backends = Vec::new();
    for (i, reference) in rule.backend_refs.iter().enumerate() {
        backends.push(weighted(
            kind,
            key,
            reference,
            &format!("{field}.backendRefs[{i}]"),
            resolver,
            notes,
        ));
    }
    let mut mirrors = Vec::new();
    for mirror in &draft.effects.mirrors {
        match resolver.backend(kind, key, &mirror.backend) {
            Ok(backend) => mirrors.push(Mirror {
                backend,
                numerator: mirror.numerator,
                denominator: mirror.denominator,
                meta: meta.clone(),
            }),
            Err(why) => notes.unresolved(&format!("{}.backendRef", mirror.field), why),
        }
    }
    forward(backends, mirrors, draft)
}

/// A backend with its weight and header edits. One that leads nowhere, or has a filter that cannot be processed, keeps its share.
fn weighted(
    kind: Kind,
    key: &ObjectKey,
    reference: &BackendRef,
    field: &str,
    resolver: &Resolver<'_>,
    notes: &mut Notes<'_>,
) -> WeightedBackend {
    let mut backend = resolver
        .backend(kind, key, reference)
        .map_err(|why| notes.unresolved(field, why))
        .ok();
    let (mut request_headers, mut response_headers) =
        (HeaderEdits::default(), HeaderEdits::default());
    for (i, f) in reference.filters.iter().enumerate() {
        let field = format!("{field}.filters[{i}]");
        let fault =
            match filter::header_filter(f, &field, &mut request_headers, &mut response_headers) {
                Ok(true) => continue,
                Ok(false) => Fault::new(
                    format!("{field}.type"),
                    format!("the filter {} is not supported on a backend", f.r#type),
                )
                .hint("this backend's share of requests is answered 500"),
                Err(fault) => fault,
            };
        notes.note(Severity::Error, fault.field, fault.reason, fault.hint);
        backend = None;
    }
    let weight = reference
        .weight
        .map_or(1, |w| u32::try_from(w).unwrap_or(0));
    WeightedBackend {
        backend,
        weight,
        request_headers,
        response_headers,
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
