//! What a route does: forward to weighted backends, or redirect.

use weft_model::route::filter::Scheme;
use weft_model::route::{
    Action, Forward, HttpRule, Mirror, PathMatch, Redirect, RetryPolicy, Rewrite, WeightedBackend,
};
use weft_model::{Hostname, Meta};

use super::path::Rewriting;
use super::{INVALID_BACKEND, headers, path, retry};
use crate::convert::error::At as _;
use crate::convert::metadata::{Kept, Notes};
use crate::convert::proto::{core, duration, from_duration, route, types, uint32};
use crate::convert::{DecodeError, Flavour};
use route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use route::route_action::{ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier};
use types::fractional_percent::DenominatorType;

/// The status of a route without any backend (Gateway API, `backendRefs`).
const NO_BACKEND_STATUS: u32 = 500;

/// Does some backend edit a request header that the rule edits too?
pub(super) fn edits_clash(rule: &HttpRule, forward: &Forward) -> bool {
    let backends = forward.backends.iter();
    !rule.request_headers.is_empty()
        && backends
            .filter(|b| !b.request_headers.is_empty())
            .any(|b| headers::clash(&rule.request_headers, &b.request_headers))
}

pub(super) fn encode_forward(
    rule: &HttpRule,
    forward: &Forward,
    flavour: Flavour,
    notes: &mut Notes,
) -> route::route::Action {
    if forward.backends.iter().all(|b| b.weight == 0) {
        // Envoy and gRPC refuse a sum of weights of 0.
        notes.keep("forward", forward, Ok(no_backend()));
        return route::route::Action::DirectResponse(route::DirectResponseAction {
            status: NO_BACKEND_STATUS,
            ..Default::default()
        });
    }
    let before = (flavour == Flavour::Envoy && edits_clash(rule, forward)).then_some(rule);
    let mut action = route::RouteAction {
        cluster_not_found_response_code: ClusterNotFoundResponseCode::InternalServerError.into(),
        // Without it Envoy would take 15 s.
        timeout: duration(forward.request_timeout.unwrap_or_default()),
        retry_policy: retry::encode(&forward.retry, flavour),
        request_mirror_policies: forward.mirrors.iter().map(mirror).collect(),
        cluster_specifier: Some(specifier(&forward.backends, before)),
        ..Default::default()
    };
    if flavour == Flavour::Grpc && forward.request_timeout.is_some_and(|t| !t.is_zero()) {
        action.max_stream_duration = Some(route::route_action::MaxStreamDuration {
            max_stream_duration: action.timeout,
            ..Default::default()
        });
    }
    encode_rewrite(rule, &forward.rewrite, &mut action);
    notes.keep("backends", &forward.backends, decode_backends(&action));
    notes.keep("rewrite", &forward.rewrite, decode_rewrite(&action));
    notes.keep("mirrors", &forward.mirrors, decode_mirrors(&action));
    notes.keep(
        "requestTimeout",
        &forward.request_timeout,
        decode_timeout(&action),
    );
    notes.keep("retry", &forward.retry, decode_retry(&action));
    route::route::Action::Route(action)
}

/// What a direct response of 500 means.
fn no_backend() -> Forward {
    Forward {
        backends: Vec::new(),
        rewrite: Rewrite::default(),
        mirrors: Vec::new(),
        request_timeout: None,
        retry: RetryPolicy::default(),
    }
}

fn specifier(backends: &[WeightedBackend], before: Option<&HttpRule>) -> ClusterSpecifier {
    if let ([only], None) = (backends, before)
        && let Some(key) = &only.backend
        && *only == WeightedBackend::only(key.clone())
    {
        return ClusterSpecifier::Cluster(key.to_string());
    }
    let clusters = backends.iter().map(|backend| {
        let both = before.map(|rule| &rule.request_headers).into_iter();
        let edits: Vec<_> = both.chain([&backend.request_headers]).collect();
        let (request_headers_to_add, request_headers_to_remove) = headers::encode(&edits);
        let (response_headers_to_add, response_headers_to_remove) =
            headers::encode(&[&backend.response_headers]);
        route::weighted_cluster::ClusterWeight {
            name: backend
                .backend
                .as_ref()
                .map_or_else(|| INVALID_BACKEND.to_owned(), ToString::to_string),
            weight: uint32(backend.weight),
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            ..Default::default()
        }
    });
    ClusterSpecifier::WeightedClusters(route::WeightedCluster {
        clusters: clusters.collect(),
        ..Default::default()
    })
}

fn mirror(mirror: &Mirror) -> route::route_action::RequestMirrorPolicy {
    let denominator = match mirror.denominator {
        10_000 => DenominatorType::TenThousand,
        1_000_000 => DenominatorType::Million,
        _ => DenominatorType::Hundred,
    };
    route::route_action::RequestMirrorPolicy {
        cluster: mirror.backend.to_string(),
        runtime_fraction: Some(core::RuntimeFractionalPercent {
            default_value: Some(types::FractionalPercent {
                numerator: mirror.numerator,
                denominator: denominator.into(),
            }),
            ..Default::default()
        }),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    }
}

fn encode_rewrite(rule: &HttpRule, rewrite: &Rewrite, action: &mut route::RouteAction) {
    let hostname = rewrite.hostname.as_ref().map(ToString::to_string);
    action.host_rewrite_specifier = hostname
        .or_else(|| headers::host(&rule.request_headers))
        .map(HostRewriteSpecifier::HostRewriteLiteral);
    match rewrite
        .path
        .as_ref()
        .and_then(|p| path::encode(p, &rule.matches.path))
    {
        Some(Rewriting::Prefix(prefix)) => action.prefix_rewrite = prefix,
        Some(Rewriting::Regex(regex)) => action.regex_rewrite = Some(regex),
        None => {}
    }
}

pub(super) fn encode_redirect(
    redirect: &Redirect,
    matched: &PathMatch,
    port: u16,
    notes: &mut Notes,
) -> route::route::Action {
    let path = redirect.path.as_ref().and_then(|p| match p {
        weft_model::route::PathRewrite::Full(full) => {
            Some(PathRewriteSpecifier::PathRedirect(full.clone()))
        }
        weft_model::route::PathRewrite::Prefix(_) => {
            path::encode(p, matched).map(|rewriting| match rewriting {
                Rewriting::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix),
                Rewriting::Regex(regex) => PathRewriteSpecifier::RegexRewrite(regex),
            })
        }
    });
    let action = route::RedirectAction {
        host_redirect: redirect
            .hostname
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        port_redirect: port_redirect(redirect, port),
        response_code: match redirect.status {
            301 => RedirectResponseCode::MovedPermanently,
            303 => RedirectResponseCode::SeeOther,
            307 => RedirectResponseCode::TemporaryRedirect,
            308 => RedirectResponseCode::PermanentRedirect,
            _ => RedirectResponseCode::Found,
        }
        .into(),
        scheme_rewrite_specifier: redirect
            .scheme
            .map(|scheme| SchemeRewriteSpecifier::SchemeRedirect(scheme.as_str().to_owned())),
        path_rewrite_specifier: path,
        ..Default::default()
    };
    notes.keep("redirect", redirect, decode_redirect(&action));
    route::route::Action::Redirect(action)
}

/// Envoy leaves the request's port in place, or appends this one even where it is the scheme's own; 0 leaves it.
/// The model always says the port, unless it is the scheme's own (see `decide::transform::location`). So a well-known
/// port is only spelled out where the request's `Host` is sure to have another one.
fn port_redirect(redirect: &Redirect, port: u16) -> u32 {
    let scheme = redirect.scheme.unwrap_or(Scheme::Http);
    let meant = redirect
        .port
        .unwrap_or_else(|| redirect.scheme.map_or(port, Scheme::port));
    let host_has_other_port = redirect.hostname.is_none() && port != Scheme::Http.port();
    if meant == scheme.port() && !host_has_other_port {
        0
    } else {
        meant.into()
    }
}

pub(super) fn decode(encoded: &route::Route, kept: Kept<'_>) -> Result<Action, DecodeError> {
    match &encoded.action {
        Some(route::route::Action::Route(action)) => decode_forward(action, kept)
            .at("route")
            .map(Action::Forward),
        Some(route::route::Action::Redirect(action)) => kept
            .or("redirect", || decode_redirect(action).at("redirect"))
            .map(Action::Redirect),
        Some(route::route::Action::DirectResponse(response))
            if response.status == NO_BACKEND_STATUS =>
        {
            kept.or("forward", || Ok(no_backend())).map(Action::Forward)
        }
        Some(_) => Err(DecodeError::new(
            "only route, redirect and a direct response of 500 are supported",
        )),
        None => Err(DecodeError::new("no action")),
    }
}

fn decode_forward(action: &route::RouteAction, kept: Kept<'_>) -> Result<Forward, DecodeError> {
    Ok(Forward {
        backends: kept.or("backends", || decode_backends(action))?,
        rewrite: kept.or("rewrite", || decode_rewrite(action))?,
        mirrors: kept.or("mirrors", || decode_mirrors(action))?,
        request_timeout: kept.or("requestTimeout", || decode_timeout(action))?,
        retry: kept.or("retry", || decode_retry(action))?,
    })
}

fn decode_backends(action: &route::RouteAction) -> Result<Vec<WeightedBackend>, DecodeError> {
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            Ok(vec![WeightedBackend::only(name.parse().at("cluster")?)])
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted
            .clusters
            .iter()
            .enumerate()
            .map(|(i, c)| {
                decode_weighted(c)
                    .at_index(i)
                    .at("weighted_clusters.clusters")
            })
            .collect(),
        _ => Err(DecodeError::new(
            "only cluster and weighted_clusters are supported",
        )),
    }
}

fn decode_weighted(
    c: &route::weighted_cluster::ClusterWeight,
) -> Result<WeightedBackend, DecodeError> {
    let backend = match c.name.as_str() {
        INVALID_BACKEND => None,
        name => Some(name.parse().at("name")?),
    };
    Ok(WeightedBackend {
        backend,
        weight: c.weight.map_or(1, |w| w.value),
        request_headers: headers::decode(&c.request_headers_to_add, &c.request_headers_to_remove)
            .at("request_headers_to_add")?,
        response_headers: headers::decode(
            &c.response_headers_to_add,
            &c.response_headers_to_remove,
        )
        .at("response_headers_to_add")?,
    })
}

fn decode_rewrite(action: &route::RouteAction) -> Result<Rewrite, DecodeError> {
    let hostname = match &action.host_rewrite_specifier {
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            Some(host.parse::<Hostname>().at("host_rewrite_literal")?)
        }
        Some(_) => return Err(DecodeError::new("only host_rewrite_literal is supported")),
        None => None,
    };
    let rewriting = match (&action.regex_rewrite, action.prefix_rewrite.as_str()) {
        (Some(regex), _) => Some(Rewriting::Regex(regex.clone())),
        (None, "") => None,
        (None, prefix) => Some(Rewriting::Prefix(prefix.to_owned())),
    };
    Ok(Rewrite {
        hostname,
        path: rewriting
            .as_ref()
            .map(path::decode)
            .transpose()
            .at("regex_rewrite")?,
    })
}

fn decode_mirrors(action: &route::RouteAction) -> Result<Vec<Mirror>, DecodeError> {
    let mirrors = action.request_mirror_policies.iter().enumerate();
    mirrors
        .map(|(i, m)| decode_mirror(m).at_index(i).at("request_mirror_policies"))
        .collect()
}

fn decode_mirror(policy: &route::route_action::RequestMirrorPolicy) -> Result<Mirror, DecodeError> {
    let fraction = policy
        .runtime_fraction
        .as_ref()
        .and_then(|f| f.default_value);
    let (numerator, denominator) = match fraction {
        None => (100, 100),
        Some(f) => match DenominatorType::try_from(f.denominator) {
            Ok(DenominatorType::Hundred) => (f.numerator, 100),
            Ok(DenominatorType::TenThousand) => (f.numerator, 10_000),
            Ok(DenominatorType::Million) => (f.numerator, 1_000_000),
            Err(_) => {
                return Err(DecodeError::new("the denominator is unknown")).at("runtime_fraction");
            }
        },
    };
    Ok(Mirror {
        backend: policy.cluster.parse().at("cluster")?,
        numerator,
        denominator,
        meta: Meta::default(),
    })
}

fn decode_timeout(action: &route::RouteAction) -> Result<Option<std::time::Duration>, DecodeError> {
    let timeout = action
        .timeout
        .as_ref()
        .map(from_duration)
        .transpose()
        .at("timeout")?;
    Ok(timeout.filter(|t| !t.is_zero()))
}

fn decode_retry(action: &route::RouteAction) -> Result<RetryPolicy, DecodeError> {
    match &action.retry_policy {
        Some(policy) => retry::decode(policy).at("retry_policy"),
        None => Ok(RetryPolicy {
            attempts: 0,
            ..RetryPolicy::default()
        }),
    }
}

fn decode_redirect(action: &route::RedirectAction) -> Result<Redirect, DecodeError> {
    use weft_model::route::PathRewrite;
    let scheme = match &action.scheme_rewrite_specifier {
        None => None,
        Some(SchemeRewriteSpecifier::SchemeRedirect(s)) if s == "http" => Some(Scheme::Http),
        Some(SchemeRewriteSpecifier::SchemeRedirect(s)) if s == "https" => Some(Scheme::Https),
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some(Scheme::Https),
        Some(_) => {
            return Err(DecodeError::new("only http and https are supported"))
                .at("scheme_redirect");
        }
    };
    let path = match &action.path_rewrite_specifier {
        None => None,
        Some(PathRewriteSpecifier::PathRedirect(path)) => Some(PathRewrite::Full(path.clone())),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            Some(path::decode(&Rewriting::Prefix(prefix.clone()))?)
        }
        Some(PathRewriteSpecifier::RegexRewrite(regex)) => {
            Some(path::decode(&Rewriting::Regex(regex.clone()))?)
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            return Err(DecodeError::new("it is not supported")).at("path_rewrite");
        }
    };
    let hostname = Some(action.host_redirect.as_str()).filter(|host| !host.is_empty());
    let port = u16::try_from(action.port_redirect).map_err(DecodeError::new);
    Ok(Redirect {
        scheme,
        hostname: hostname.map(str::parse).transpose().at("host_redirect")?,
        path,
        port: Some(port.at("port_redirect")?).filter(|port| *port != 0),
        status: match RedirectResponseCode::try_from(action.response_code) {
            Ok(RedirectResponseCode::MovedPermanently) => 301,
            Ok(RedirectResponseCode::Found) => 302,
            Ok(RedirectResponseCode::SeeOther) => 303,
            Ok(RedirectResponseCode::TemporaryRedirect) => 307,
            Ok(RedirectResponseCode::PermanentRedirect) => 308,
            Err(_) => return Err(DecodeError::new("it is unknown")).at("response_code"),
        },
    })
}
