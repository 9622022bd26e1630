//! One rule of a route, as far as it can be understood without other objects.
//!
//! [`draft`] finds what is wrong inside the rule: the same function runs when a file is read ([`faults`](super::faults)), so that a
//! bad route never replaces its last good version, and in the compilation, where references are resolved afterwards.

use std::time::Duration;

use weft_model::duration;
use weft_model::route::{
    HeaderMatch, HttpMatch, PathMatch, QueryMatch, ResetRetry, RetryPolicy, ValueMatch,
};

use super::fault::{Fault, check_backend, header_name};
use super::filter::{self, Effects};
use super::spec::{Match, Method, Named, Retry, Rule, Timeouts, Typed};

/// A rule without its references.
pub(super) struct Draft {
    pub(super) matches: Vec<DraftMatch>,
    pub(super) effects: Effects,
    pub(super) request_timeout: Option<Duration>,
    pub(super) retry: RetryPolicy,
}

/// A match, and for gRPC how many characters of service and method it names.
pub(super) struct DraftMatch {
    pub(super) http: HttpMatch,
    pub(super) grpc: Option<(usize, usize)>,
}

/// Reads a rule. `field` is its path. What cannot be read is left out and noted in `faults`.
pub(super) fn draft(rule: &Rule, grpc: bool, field: &str, faults: &mut Vec<Fault>) -> Draft {
    let mut matches = Vec::new();
    for (i, m) in rule.matches.iter().enumerate() {
        match one_match(m, grpc, &format!("{field}.matches[{i}]")) {
            Ok(m) => matches.push(m),
            Err(fault) => faults.push(fault),
        }
    }
    if rule.matches.is_empty() {
        matches.push(DraftMatch {
            http: HttpMatch::default(),
            grpc: grpc.then_some((0, 0)),
        });
    }
    let effects = filter::effects(&rule.filters, field, faults);
    if effects.needs_prefix()
        && !matches
            .iter()
            .all(|m| matches!(m.http.path, PathMatch::Prefix(_)))
    {
        let reason = "ReplacePrefixMatch needs a PathPrefix in every match of the rule";
        faults.push(
            Fault::new(format!("{field}.filters"), reason)
                .hint("use ReplaceFullPath, or match by PathPrefix"),
        );
    }
    if effects.redirect.is_some() && !rule.backend_refs.is_empty() {
        faults.push(Fault::new(
            format!("{field}.backendRefs"),
            "a rule that redirects has no backends",
        ));
    }
    for (i, backend) in rule.backend_refs.iter().enumerate() {
        check_backend(backend, &format!("{field}.backendRefs[{i}]"), faults);
    }
    if rule.session_persistence.is_some() {
        let reason = "session persistence is not supported";
        faults.push(Fault::new(format!("{field}.sessionPersistence"), reason).unsupported());
    }
    let (request_timeout, per_try) =
        timeouts(rule.timeouts.as_ref(), &format!("{field}.timeouts"), faults);
    let mut retry = retry(rule.retry.as_ref(), &format!("{field}.retry"), faults);
    retry.per_try_timeout = per_try;
    Draft {
        matches,
        effects,
        request_timeout,
        retry,
    }
}

fn one_match(m: &Match, grpc: bool, field: &str) -> Result<DraftMatch, Fault> {
    let mut http = HttpMatch {
        headers: headers(&m.headers, field)?,
        ..HttpMatch::default()
    };
    if grpc {
        let (path, named) = grpc_path(m.method.as_ref(), &format!("{field}.method"))?;
        http.path = path;
        return Ok(DraftMatch {
            http,
            grpc: Some(named),
        });
    }
    if let Some(path) = &m.path {
        http.path = http_path(path, &format!("{field}.path"))?;
    }
    if let Some(Method::Http(method)) = &m.method {
        http.method = Some(
            method
                .parse()
                .map_err(|e| Fault::new(format!("{field}.method"), e))?,
        );
    }
    for (i, q) in m.query_params.iter().enumerate() {
        // "If multiple entries specify equivalent query param names, only the first entry with an equivalent name MUST be considered"
        if !http.query.iter().any(|known| known.name == q.name) {
            let value = value(q, &format!("{field}.queryParams[{i}]"))?;
            http.query.push(QueryMatch {
                name: q.name.clone(),
                value,
            });
        }
    }
    Ok(DraftMatch { http, grpc: None })
}

fn headers(all: &[Named], field: &str) -> Result<Vec<HeaderMatch>, Fault> {
    let mut found: Vec<HeaderMatch> = Vec::new();
    for (i, h) in all.iter().enumerate() {
        let field = format!("{field}.headers[{i}]");
        let name = header_name(&h.name, &field)?;
        if !found.iter().any(|known| known.name == name) {
            found.push(HeaderMatch {
                name,
                value: value(h, &field)?,
            });
        }
    }
    Ok(found)
}

fn value(named: &Named, field: &str) -> Result<ValueMatch, Fault> {
    Ok(match named.r#type.as_deref() {
        Some("RegularExpression") => ValueMatch::Regex(
            named
                .value
                .parse()
                .map_err(|e| Fault::new(format!("{field}.value"), e))?,
        ),
        _ => ValueMatch::Exact(named.value.clone()),
    })
}

fn http_path(path: &Typed, field: &str) -> Result<PathMatch, Fault> {
    let value = path.value.as_deref().unwrap_or("/");
    let kind = path.r#type.as_deref().unwrap_or("PathPrefix");
    if kind != "RegularExpression" && !value.starts_with('/') {
        let fault = Fault::new(
            format!("{field}.value"),
            format!("{value:?} does not begin with '/'"),
        );
        return Err(fault.hint(format!("use \"/{value}\"")));
    }
    Ok(match kind {
        "Exact" => PathMatch::Exact(value.to_owned()),
        "RegularExpression" => PathMatch::Regex(
            value
                .parse()
                .map_err(|e| Fault::new(format!("{field}.value"), e))?,
        ),
        _ => PathMatch::prefix(value),
    })
}

/// gRPC's path is `/<service>/<method>` (PROTOCOL-HTTP2.md, Path).
fn grpc_path(method: Option<&Method>, field: &str) -> Result<(PathMatch, (usize, usize)), Fault> {
    let Some(Method::Grpc {
        service,
        method,
        r#type,
    }) = method
    else {
        return Ok((PathMatch::default(), (0, 0)));
    };
    let service = service.as_deref().filter(|s| !s.is_empty());
    let method = method.as_deref().filter(|m| !m.is_empty());
    let named = (service.map_or(0, str::len), method.map_or(0, str::len));
    let regex = |text: String| {
        text.parse()
            .map(PathMatch::Regex)
            .map_err(|e| Fault::new(field, e))
    };
    let path = match (r#type.as_deref(), service, method) {
        (_, None, None) => PathMatch::default(),
        (Some("RegularExpression"), service, method) => {
            // Each alone first, so that neither can reach into the other.
            for part in [service, method].into_iter().flatten() {
                regex(part.to_owned())?;
            }
            regex(format!(
                "/(?:{})/(?:{})",
                service.unwrap_or("[^/]+"),
                method.unwrap_or("[^/]+")
            ))?
        }
        (_, Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}")),
        (_, Some(service), None) => PathMatch::prefix(&format!("/{service}")),
        // A method is an identifier; anything else is matched as it stands.
        (_, None, Some(method)) => regex(format!("/[^/]+/{}", escaped(method)))?,
    };
    Ok((path, named))
}

fn escaped(text: &str) -> String {
    let special = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c.is_ascii();
    text.chars()
        .flat_map(|c| special(c).then_some('\\').into_iter().chain([c]))
        .collect()
}

fn timeouts(
    timeouts: Option<&Timeouts>,
    field: &str,
    faults: &mut Vec<Fault>,
) -> (Option<Duration>, Option<Duration>) {
    let Some(timeouts) = timeouts else {
        return (None, None);
    };
    let mut read = |text: Option<&String>, name: &str| {
        let parsed = duration::parse(text?)
            .map_err(|e| faults.push(Fault::new(format!("{field}.{name}"), e)));
        // "A zero-valued duration (e.g. 0s) SHOULD be interpreted as having no timeout."
        parsed.ok().filter(|d| !d.is_zero())
    };
    let request = read(timeouts.request.as_ref(), "request");
    let backend = read(timeouts.backend_request.as_ref(), "backendRequest");
    if let (Some(request), Some(backend)) = (request, backend)
        && backend > request
    {
        let reason = "one attempt may not take longer than the whole request";
        let hint = format!("at most {}", duration::format(request));
        faults.push(Fault::new(format!("{field}.backendRequest"), reason).hint(hint));
    }
    (request, backend)
}

fn retry(retry: Option<&Retry>, field: &str, faults: &mut Vec<Fault>) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    let Some(retry) = retry else { return policy };
    policy.reset = ResetRetry::Always; // "a broken connection" is retried where retries are asked for (GEP-1731)
    match retry.attempts.map(u32::try_from) {
        Some(Ok(attempts @ 0..=100)) => policy.attempts = attempts,
        Some(_) => faults.push(Fault::new(format!("{field}.attempts"), "expected 0 to 100")),
        None => {}
    }
    match retry.backoff.as_deref().map(duration::parse) {
        Some(Ok(backoff)) => policy.backoff = backoff,
        Some(Err(error)) => faults.push(Fault::new(format!("{field}.backoff"), error)),
        None => {}
    }
    for (i, code) in retry.codes.iter().enumerate() {
        match u16::try_from(*code) {
            Ok(code @ 400..=599) => policy.codes.push(code),
            _ => faults.push(Fault::new(
                format!("{field}.codes[{i}]"),
                format!("{code} is not between 400 and 599"),
            )),
        }
    }
    policy.codes.sort_unstable();
    policy.codes.dedup();
    policy
}
