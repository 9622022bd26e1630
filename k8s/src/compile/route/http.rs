//! HTTPRoute and GRPCRoute: each match of each rule becomes one rule of the model.

use kube::Resource;
use weft_model::route::{Action, Forward, HeaderEdits, Mirror, Precedence, WeightedBackend};
use weft_model::{HttpRule, Meta};

use super::attach;
use super::backend::Resolver;
use super::fault::Fault;
use super::filter;
use super::notes::Notes;
use super::rule::{self, Draft};
use super::spec::{self, BackendRef, RouteSpec, Rule};
use super::{Content, Route, route};
use crate::compile::report::Report;
use crate::object::{Kind, ObjectKey, Stored};
use crate::problem::Severity;

/// Reads an HTTPRoute or GRPCRoute.
pub(super) fn read<T: Resource<DynamicType = ()>>(
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
